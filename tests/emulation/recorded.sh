#!/usr/bin/env bash
# Steps of the denoise loop that are recorded and done again as a whole (kernels/cuda/recording.c), on the emulated device:
# the same bytes as without, and nothing is made anew in later steps.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh

job=$work/job.yaml
write_job "$job"
size=(--width 32 --height 32 --num-frames 1)

made() { sed -n 's/.*: made \(.*\), [0-9]* launches of graphs$/\1/p' "$work/err"; }
launches() { sed -n 's/.*, \([0-9]*\) launches of graphs$/\1/p' "$work/err"; }
counted() { # steps, words: the digest; what was made is in $work/err
    local steps=$1
    shift
    RINGREEL_EMULATION_COUNT=1 render_cuda 0 --num-inference-steps "$steps" "$@"
}
guided=(--stg-scale 1 --skip-block-list 1 --stochastic-sampling)
recorded=$(counted 3 "${guided[@]}")
things=$(made)
equal 'three passes a step, all but the first step from graphs' 6 "$(launches)"
counted 5 "${guided[@]}" >/dev/null
equal 'more steps allocate no more' "$things" "$(made)"
equal 'more steps launch more' 12 "$(launches)"
equal 'without graphs, the same bytes' "$recorded" "$(counted 3 "${guided[@]}" --graphs off)"
equal 'without graphs, none' 0 "$(launches)"
equal 'where capturing fails, the same bytes' "$recorded" "$(RINGREEL_EMULATION_FAIL=capture:2 counted 3 "${guided[@]}")"
equal 'where capturing fails, it is told once' 1 "$(grep -c 'CUDA graphs are not used: ' "$work/err")"
equal 'streams in order fifo, the same bytes' "$recorded" "$(RINGREEL_EMULATION_STREAMS=fifo counted 3 "${guided[@]}")"
equal 'weights that are streamed, the same bytes' "$recorded" \
    "$(RINGREEL_EMULATION_STREAMS=random:2 counted 3 "${guided[@]}" --weights stream)"
equal 'weights that are streamed are not in graphs' 0 "$(launches)"
equal 'a step is dumped as ever' "$recorded" "$(counted 3 "${guided[@]}" --dump "$work/dump" --trace "$work/trace.json")"
equal 'one denoise rank and one codec rank, the same bytes' "$recorded" "$(render_cuda 2 "${guided[@]}")"

finish
