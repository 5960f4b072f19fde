#!/usr/bin/env bash
# Codec ranks decode a shot while the denoise ranks are at the next one; seen in the trace of a run.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

trace=$work/trace.json

# Spans NAME of one shot (counted from 0), as "start end" in microseconds.
spans() { # name, shot
    awk -v name="\"name\":\"$1\"" -v shot="\"shot\":$2," '
        function number(key,    at) {
            at = index($0, "\"" key "\":")
            return at ? substr($0, at + length(key) + 3) + 0 : -1
        }
        index($0, "\"ph\":\"X\"") && index($0, name) && index($0, shot) { print number("ts"), number("ts") + number("dur") }
    ' "$trace"
}

# Microseconds of the shot's decoding that lie between the begin of the next shot's first step and the end of its last.
overlap_us() { # shot
    { spans decode "$1" | sed 's/^/decode /'; spans step "$(($1 + 1))" | sed 's/^/step /'; } | awk '
        $1 == "decode" { from = $2; to = $3 }
        $1 == "step" && (!begin || $2 < begin) { begin = $2 }
        $1 == "step" && $3 > end { end = $3 }
        END {
            a = begin > from ? begin : from
            b = end < to ? end : to
            printf "%d\n", (begin && b > a ? b - a : 0)
        }'
}

write_job "$work/job.yaml" 'shots:' \
    "  - {output: $work/1.mp4, prompt: a red ball}" \
    "  - {output: $work/2.mp4, prompt: a green ball}" \
    "  - {output: $work/3.mp4, prompt: a blue ball}" \
    "  - {output: $work/4.mp4, prompt: a yellow ball}"
# Steps enough that denoising a shot takes several times as long as decoding one: the codec rank is never behind.
ringreel 3 render "$work/job.yaml" --denoise-ranks 2 --codec-ranks 1 --num-inference-steps 30 --trace "$trace"
equal 'four shots on 2 denoise ranks and 1 codec rank: exit code' 0 "$code"
if ((code != 0)); then
    cat "$work/err"
    exit 1
fi

equal 'four videos' "$work/1.mp4 $work/2.mp4 $work/3.mp4 $work/4.mp4" "$(printf '%s ' "$work"/*.mp4 | sed 's/ $//')"
for rank in 0 1 2; do
    has_line "rank $rank has a row" "$trace" "\"ph\":\"M\".*\"name\":\"rank $rank (denoise|codec)\""
    has_line "rank $rank has spans" "$trace" "\"ph\":\"X\".*\"tid\":$((2 * rank)),"
done
for shot in 0 1 2; do
    shared=$(overlap_us "$shot")
    name="shot $((shot + 1)) is decoded while shot $((shot + 2)) is denoised"
    if ((shared > 0)); then ok "$name ($shared us)"; else not_ok "$name" "$(spans decode "$shot")"; fi
done

finish
