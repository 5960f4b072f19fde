#!/usr/bin/env bash
# A minute takes no more memory of a codec rank than five seconds: neither planned nor seen by the system.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
events=$work/events # of rank 0; rank r writes $events.r
clip=(--width 192 --height 128 --frame-rate 24 --num-inference-steps 1 --guidance-scale 1 --codec-ranks 2)
write_job "$job" "output: $work/clip.mkv" 'encoder: ffv1'

plan_of() { sed -n "s/^rank $1, [a-z+]*, on [^:]*: //p" "$work/out"; } # rank
peak_of() { sed -n 's/.*"event":"end".*"peak_resident_bytes":\([0-9]*\).*/\1/p' "$events${1/#0/}"; } # 0, .1, ...

for frames in 121 1441; do
    ringreel 3 render "$job" "${clip[@]}" --num-frames "$frames" --dry-run
    for rank in 0 1 2; do plan_of "$rank" >"$work/plan.$rank.$frames"; done
done
for rank in 1 2; do
    has_line "codec rank $rank: a plan" "$work/plan.$rank.121" '^[0-9.]+ MiB: .*VAE'
    equal "codec rank $rank: the same plan for a minute" "$(cat "$work/plan.$rank.121")" "$(cat "$work/plan.$rank.1441")"
done
if cmp -s "$work/plan.0.121" "$work/plan.0.1441"; then
    not_ok 'the denoise rank: another plan for a minute' "$(cat "$work/plan.0.1441")"
else
    ok 'the denoise rank: another plan for a minute'
fi

if [[ ${SANITIZE:-0} == 1 ]]; then # what was freed stays with the process then
    skip 'measured memory' 'not with the sanitizers'
    finish
    exit
fi

# name, bytes of the short clip, of the long one, expression over both
compare() {
    if awk -v a="$2" -v b="$3" "BEGIN { exit !(a > 0 && ($4)) }"; then
        ok "$1 ($2 and $3 bytes)"
    else
        not_ok "$1" "$2 bytes for five seconds, $3 for a minute"
    fi
}

short=() long=()
for frames in 121 1441; do
    ringreel 3 render "$job" "${clip[@]}" --num-frames "$frames" --threads 1 --log-json "$events"
    equal "$frames frames: exit code" 0 "$code"
    peaks=("$(peak_of 0)" "$(peak_of .1)" "$(peak_of .2)")
    if ((frames == 121)); then short=("${peaks[@]}"); else long=("${peaks[@]}"); fi
    has_line "$frames frames: the peaks are said" "$work/err" '^ringreel: memory, at most.* a codec rank [0-9.]+ MiB'
done
for rank in 1 2; do
    compare "codec rank $rank: the same peak within 2 %" "${short[rank]}" "${long[rank]}" 'b < 1.02 * a && a < 1.02 * b'
done
compare 'the denoise rank: more for a minute' "${short[0]}" "${long[0]}" 'b > 1.02 * a'

finish
