#!/usr/bin/env bash
# Ranks without work: they are told of, and the run ends like any other.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

write_job "$work/job.yaml" "output: $work/out.mp4"

ringreel 5 render "$work/job.yaml" --denoise-ranks 2 --codec-ranks 1
equal '2 denoise ranks and 1 codec rank of 5: exit code' 0 "$code"
has_line '2 denoise ranks and 1 codec rank of 5: the idle ones are named' "$work/err" '^ringreel: warning: 2 ranks are idle'

ringreel 4 render "$work/job.yaml" --width 32 --height 32 --num-frames 1
equal 'one token for 3 denoise ranks: exit code' 0 "$code"
has_line 'one token for 3 denoise ranks: the idle ones are named' "$work/err" \
    '^ringreel: warning: shot 1: 1 granule.* 2 .*idle'

ringreel 4 render "$work/job.yaml" --codec-ranks 2 --denoise-ranks 2
equal 'a codec rank without a shot: exit code' 0 "$code"

write_job "$work/shots.yaml" 'digest: true' 'shots:' "  - {output: $work/1.mp4}" "  - {output: $work/2.mp4}" \
    "  - {output: $work/3.mp4, width: 32, height: 64}"
ringreel 0 render "$work/shots.yaml" --num-inference-steps 1
sort "$work/out" >"$work/alone"
ringreel 6 render "$work/shots.yaml" --num-inference-steps 1 --codec-ranks 5
equal 'the owner of a shot has no share of its picture' "$(cat "$work/alone")" "$(grep '^digest ' "$work/out" | sort)"

finish
