#!/usr/bin/env bash
# Shots that need more memory than there is: known before the first step, and said in one line. And what the plan decides
# when there is enough.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
write_job "$job"
clip=$work/videos/clip.mp4
events=$work/events # of rank 0; rank 1 writes $events.1

steps() { cat "$events"* 2>/dev/null | grep -c '"event":"step"' || true; }

no_step() { equal "$1: no step was made" 0 "$(steps)"; } # name

# The size is allowed, no machine is that large.
huge=(--width 16384 --height 16384 --num-frames 10000)
place='ranks? on .* needs? [0-9.]+ GiB, available are [0-9.]+ [GM]iB'
largest='shot 1 \(16384x16384, 10000 frames\): [0-9.]+ GiB: transformer activations [0-9.]+ GiB, latents'
pattern="not enough memory: .*$place.*denoise.* rank .*$largest.*fewer frames"
for ranks in 0 1 3; do
    refused 'a shot of terabytes' "$ranks" "$pattern" render "$job" -o "$clip" "${huge[@]}" --log-json "$events"
    no_step "a shot of terabytes, $ranks ranks"
done
for weights in resident stream; do
    refused "a shot of terabytes, weights $weights" 0 "$pattern" render "$job" -o "$clip" "${huge[@]}" --weights "$weights"
done
write_job "$work/shots.yaml" 'shots:' "  - {output: $work/videos/1.mp4}" \
    "  - {output: $work/videos/2.mp4, width: 8192, height: 8192, num_frames: 1001}" "  - {output: $work/videos/3.mp4}"
refused_by_all 'the largest of several shots' 'not enough memory: .*shot 2 \(8192x8192, 1001 frames\)' \
    render "$work/shots.yaml" --log-json "$events"
no_step 'the largest of several shots'

# Memory as limited for one process. The sanitizers need all addresses.
limited() { # name, ranks, KiB of addresses, regular expression, words
    local name=$1 ranks=$2 kib=$3 pattern=$4
    shift 4
    if [[ ${SANITIZE:-0} == 1 ]]; then
        skip "$name" 'not with the sanitizers'
        return
    fi
    printf '#!/usr/bin/env bash\nulimit -v %d\nexec "%s" "$@"\n' "$kib" "$(realpath "$RINGREEL")" >"$work/limited"
    chmod +x "$work/limited"
    RINGREEL=$work/limited refused "$name" "$ranks" "$pattern" "$@" --log-json "$events"
    no_step "$name, $ranks ranks"
}
limit='not enough memory: the limit of addresses \(ulimit -v\) leaves rank [0-9]+ '
limited 'ulimit -v' 0 1000000 "$limit" render "$job" -o "$clip" --width 4096 --height 4096 --num-frames 121
limited 'ulimit -v' 3 1000000 "$limit" render "$job" -o "$clip" --width 4096 --height 4096 --num-frames 121

# --dry-run: a line for every rank, nothing taken, nothing written; sizes that no machine has are no error. The VAE's share
# does not depend on the length of the clip.
vae_of() { sed -n 's/^rank [0-9]*, codec.*[ :]VAE \([0-9.]* [GM]iB\).*/\1/p' "$work/out"; }
ringreel 4 render "$job" -o "$clip" "${huge[@]}" --dry-run --codec-ranks 2
equal 'a dry run of terabytes: exit code, lines, files' '0 4 ' "$code $(grep -c '^rank [0-3], ' "$work/out") $(files_in "$work" | grep clip || true)"
for frames in 129 1505; do
    ringreel 3 render "$job" -o "$clip" --width 256 --height 160 --num-frames "$frames" --dry-run
    vae_of >"$work/vae.$frames"
done
equal 'a minute and five seconds: the same memory for the VAE' "$(cat "$work/vae.129")" "$(cat "$work/vae.1505")"
has_line 'the dry run names the VAE' "$work/vae.129" 'iB'

# Enough memory: the tiny model's weights are kept, and what is planned is said for each role.
for ranks in 0 3; do
    for weights in auto resident stream; do
        rm -f "$events"*
        ringreel "$ranks" render "$job" -o "$clip" --weights "$weights" --digest --log-json "$events"
        equal "weights $weights, $ranks ranks: exit code and steps" "0 $((ranks == 0 ? 3 : 6))" "$code $(steps)"
        cp "$work/out" "$work/digest.$weights"
        cp "$work/err" "$work/err.$weights"
    done
    has_line "weights auto, $ranks ranks: resident" "$work/err.auto" \
        '^ringreel: memory of a denoise.* rank: .*transformer weights [0-9.]+ MiB'
    equal "weights stream, $ranks ranks: not resident" '' "$(grep 'transformer weights' "$work/err.stream" || true)"
    equal "weights auto, $ranks ranks: the same bytes" "$(cat "$work/digest.auto")" "$(cat "$work/digest.stream")"
    has_line "$ranks ranks: the codec rank's plan" "$work/err.auto" \
        '^ringreel: memory of a (denoise\+)?codec rank: .*VAE [0-9.]+ MiB'
done

finish
