#!/usr/bin/env bash
# `make demo`: the small model of this repository on four MPI ranks, three that denoise and one that encodes the prompt
# and decodes the video. Ends with the MP4's name, its size, and how long each stage took.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

video=out/demo.mp4
events=out/demo-events.json

# Stage, seconds: events of every rank; within a rank shots follow each other, ranks work side by side.
stage_times() {
    sed -n 's/.*"event":"stage".*"name":"\([a-z]*\)".*"seconds":\([0-9.]*\).*/\1 \2/p' "$1" |
        awk '{ sum[$1] += $2 } END { for (stage in sum) print stage, sum[stage] }'
}

all_stage_times() {
    local file
    for file in "$events" "$events".*; do
        stage_times "$file"
    done | awk '
        $2 > longest[$1] { longest[$1] = $2 }
        END {
            count = split("encode denoise decode write", order, " ")
            split("prompt to embeddings|denoising|latents to frames|frames to MP4", label, "|")
            for (i = 1; i <= count; i++)
                if (order[i] in longest) printf "  %-22s %7.3f s\n", label[i], longest[order[i]]
        }'
}

mkdir -p out
rm -f "$video" "$events" "$events".*
launch/ringreel-mpi -n 4 render configs/tiny.yaml --denoise-ranks 3 --codec-ranks 1 -o "$video" --log-json "$events"

printf '\n%s\n' "$PWD/$video"
printf '  %-22s %7d bytes\n' 'size' "$(wc -c <"$video")"
all_stage_times
