#!/usr/bin/env bash
# Places that cannot be written, and videos that no encoder makes. Known before rendering wherever that is possible.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
write_job "$job"
one() { refused "$1" 0 "${@:2}"; }
clip=$work/videos/clip.mp4
: >"$work/file"

refused_by_all 'a folder below a file' "$work/file/clip.mp4: .*$work/file" render "$job" -o "$work/file/clip.mp4"
mkdir "$work/folder.mp4"
one 'a folder as output' "$work/folder.mp4: .*folder" render "$job" -o "$work/folder.mp4"
one 'a device as output' '/dev/null.*' render "$job" -o /dev/null
one 'a name without an ending' "$work/videos/clip: .*ending" render "$job" -o "$work/videos/clip"
refused_by_all 'an unknown encoder' "$clip: .*libx263" render "$job" -o "$clip" --encoder libx263
one 'an encoder that the container cannot hold' "$clip: .*ffv1" render "$job" -o "$clip" --encoder ffv1
one 'an unknown encoder option' "$clip: .*encoder_options.*speedy" render "$job" -o "$clip" --encoder-options speedy=1
one 'a bad encoder option' "$clip: .*encoder_options.*preset" render "$job" -o "$clip" --encoder-options preset=nonsense
refused_by_all 'an odd width for H.264' "$clip: .*97x64.*width must be" render "$job" -o "$clip" --width 97
one '--dump below a file' "dump: $work/file is not a folder" render "$job" -o "$clip" --dump "$work/file/dump"
refused_by_all '--trace below a file' "$work/file/trace" render "$job" -o "$clip" --trace "$work/file/trace"
refused '--trace over the video' 0 ".*'$clip' is also written as output" render "$job" -o "$clip" --trace "$clip"
refused '--log-json over the sidecar' 0 ".*also written as output" render "$job" -o "$clip" --log-json "$clip.json"

leaks=1 refused '--log-json below a file' 3 "log_json: $work/file/events" render "$job" -o "$clip" \
    --log-json "$work/file/events"
one '--log-json below a file' "log_json: $work/file/events" render "$job" -o "$clip" --log-json "$work/file/events"

full_disk() { # ranks, words
    local name="a full disk, ${2##*/}" line='clip.mkv: .*No space left on device'
    (($1 == 0)) || name="$name, $1 ranks"
    on_full_disk "$name" 64k "$1" "$line" "${@:2}" --encoder ffv1 || return 0
    equal "$name: nothing is left" '' "$(cat "$work/out")"
}
full_disk 0 "$job" -o "$work/disk/clip.mkv"
full_disk 3 "$job" -o "$work/disk/clip.mkv"

# In the middle of a job: of the second shot not all latents have come, and the shots after it wait to be taken.
write_job "$work/shots.yaml" 'shots:' "  - {output: $work/1.mkv}" "  - {output: $work/disk/clip.mkv, num_frames: 49}" \
    "  - {output: $work/3.mkv, num_frames: 49}" "  - {output: $work/4.mkv}" "  - {output: $work/5.mkv}"
if [[ ${SANITIZE:-0} != 1 ]]; then # a minute each then
    full_disk 2 "$work/shots.yaml" --num-inference-steps=1
    full_disk 4 "$work/shots.yaml" --num-inference-steps=1 --codec-ranks=2
fi

finish
