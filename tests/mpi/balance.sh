#!/usr/bin/env bash
# How many ranks code is chosen by what the job costs, and a run whose codec is slower than its denoise ranks says so.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

write_job "$work/job.yaml" 'shots:' \
    "  - {output: $work/1.mp4, prompt: a red ball}" \
    "  - {output: $work/2.mp4, prompt: a green ball}" \
    "  - {output: $work/3.mp4, prompt: a blue ball}" \
    "  - {output: $work/4.mp4, prompt: a yellow ball}"
small=(--width 192 --height 128) large=(--width 576 --height 384)
if [[ ${SANITIZE:-0} == 1 ]]; then # arithmetic is ten times slower then
    small=(--width 96 --height 64) large=(--width 256 --height 128)
fi
many_steps=("${small[@]}" --num-inference-steps 30)
large_pictures=("${large[@]}" --num-inference-steps 1 --guidance-scale 1)

# The mesh that a run announces. ranks, wanted, words
mesh() {
    local name=$1 ranks=$2 wanted=$3
    shift 3
    ringreel "$ranks" render "$work/job.yaml" --dry-run "$@"
    has_line "$name, $ranks ranks: $wanted" "$work/err" "^ringreel: version .* $ranks ranks: $wanted;"
}

mesh 'many steps' 4 '3 denoise, 1 codec' "${many_steps[@]}"
has_line 'the run says why' "$work/err" \
    '^ringreel: 1 of 4 ranks for the codec: by multiply-adds .* [0-9.]+ % denoising, [0-9.]+ % decoding, [0-9.]+ % texts'
mesh 'one step of large pictures' 4 '1 denoise, 3 codec' "${large_pictures[@]}"
mesh 'one step of large pictures' 2 '1 denoise, 1 codec' "${large_pictures[@]}"
mesh 'what is asked for comes first' 4 '3 denoise, 1 codec' "${large_pictures[@]}" --codec-ranks 1
has_line 'and what would have been chosen is said' "$work/err" '^ringreel: 1 of 4 ranks .*, as asked \(3 by itself\)'
mesh 'denoise ranks are given' 4 '2 denoise, 2 codec' "${large_pictures[@]}" --denoise-ranks 2

ringreel 4 render "$work/job.yaml" "${large_pictures[@]}" --codec-ranks 1 --threads 1 \
    --log-json "$work/events" --trace "$work/trace"
equal 'a codec that is too slow: exit code' 0 "$code"
has_line 'a codec that is too slow is said, and what would help' "$work/err" \
    '^ringreel: denoise ranks waited [0-9.]+ s \([0-9]+ %\) for codec ranks: [23] of 4 would .*\(--codec-ranks [23]\)$'
equal 'it is said once' 1 "$(grep -c 'ranks waited' "$work/err" || true)"
has_line 'and is an event' "$work/events" '"event":"balance",.*"denoise_waited":[0-9.]+,.*"codec_ranks":1,"advised":[23]\}'
has_line 'and is in the trace' "$work/trace" '"tid":1,"cat":"comm","name":"wait for the codec ranks"'

ringreel 3 render "$work/job.yaml" "${many_steps[@]}" --threads 1
equal 'a codec that keeps up: exit code' 0 "$code"
equal 'nothing is said of it' 0 "$(grep -c 'ranks waited' "$work/err" || true)"

ringreel 4 render "$work/job.yaml" "${many_steps[@]}" --num-inference-steps 120 --codec-ranks 3 --threads 1
equal 'codec ranks with little to do: exit code' 0 "$code"
has_line 'codec ranks with little to do are said' "$work/err" \
    '^ringreel: codec ranks waited [0-9.]+ s .* for denoise ranks: [12] of 4 would .*\(--codec-ranks [12]\)$'

finish
