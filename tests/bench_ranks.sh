#!/usr/bin/env bash
# Part of `make bench`: what several ranks gain, one thread each. A denoise rank and a codec rank should take no longer
# than denoising alone and the last decode; two ranks should decode a picture in half the time of one. At the end, what
# segments gain and cost an encoder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=5
work=$(mktemp -d /tmp/ringreel-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1

# From a trace: seconds of all denoising, of the last decode, and from the first denoise to the end.
read_trace() {
    awk '
        function number(key,    at) {
            at = index($0, "\"" key "\":")
            return at ? substr($0, at + length(key) + 3) + 0 : -1
        }
        /"ph":"X"/ { from = number("ts"); to = from + number("dur"); shot = number("shot") }
        /"ph":"X".*"name":"denoise"/ && number("tid") == 0 {
            denoise += to - from
            if (!begin || from < begin) begin = from
        }
        /"ph":"X".*"name":"decode"/ {
            if (shot >= last) { last = shot; decode = to - from }
            if (to > end) end = to
        }
        END { printf "%.3f %.3f %.3f\n", denoise / 1e6, decode / 1e6, (end - begin) / 1e6 }
    ' "$1"
}

write_job() {
    cat >"$work/job.yaml" <<JOB
checkpoint_path: $PWD/models/tiny/ltxv-tiny.safetensors
text_encoder_model_name_or_path: $PWD/models/tiny
width: 384
height: 256
num_frames: 33
num_inference_steps: 20
guidance_scale: 3
stg_scale: 0
rescaling_scale: 1
prompt: a red ball rolls over a blue floor
shots:
JOB
    for shot in 1 2 3 4 5; do echo "  - {seed: $shot, output: $work/$shot.mp4}"; done >>"$work/job.yaml"
}

pipeline() {
    local denoise decode wall
    for ((i = 0; i < runs; i++)); do
        launch/ringreel-mpi -n 2 render "$work/job.yaml" --threads 1 --trace "$work/trace" --quiet
        read -r denoise decode wall < <(read_trace "$work/trace")
        awk -v n="$denoise" -v c="$decode" -v w="$wall" 'BEGIN { printf "%.3f %s %s %s\n", w / (n + c), n, c, w }'
    done | sort -n >"$work/ratios"
    read -r ratio denoise decode wall < <(sed -n "$((runs / 2 + 1))p" "$work/ratios")
    printf '%-52s %10.2f   (%.2f to %.2f; %s s against %s + %s)\n' \
        '5 shots against denoising and the last decode, times' "$ratio" \
        "$(head -n 1 "$work/ratios" | cut -d ' ' -f 1)" "$(tail -n 1 "$work/ratios" | cut -d ' ' -f 1)" \
        "$wall" "$denoise" "$decode"
}

printf '\ntwo ranks, one thread each, models/tiny\n'
write_job
pipeline
RINGREEL=$BUILD/bench_shares launch/ringreel-mpi -n 2 models/tiny/ltxv-tiny.safetensors
$BUILD/bench_encoders
