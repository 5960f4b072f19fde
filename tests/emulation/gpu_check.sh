#!/usr/bin/env bash
# `make gpu-check` rehearsed on the emulated device: every section, a check that fails, a program that hangs, pieces
# that are missing, the table; how it judges, on made-up rows. What it would say of a GPU is for a GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh

export GPU_CHECK_REHEARSAL=1 GPU_CHECK_OUT=$work/results

run_check() { # variables
    code=0
    env "$@" launch/gpu-check.sh >"$work/out" 2>"$work/err" || code=$?
}

row() { # name, verdict, extended regular expression for the rest
    has_line "$1: $2" "$work/results/table.txt" "^$1 +$2 +$3"
}

fake() { # name, lines of sh
    printf '#!/bin/sh\n%s\n' "$2" >"$work/test_$1"
    chmod +x "$work/test_$1"
}
fake good 'echo "ok - one"'
fake bad 'echo "ok - one"; echo "not ok - two"; exit 1'
fake dead 'echo "ok - one"; echo "out of luck"; exit 7'
fake hanging 'echo "ok - one"; sleep 60'
run_check GPU_CHECK_ONLY=kernels GPU_CHECK_LIMIT=2 \
    GPU_CHECK_TESTS="$work/test_good $work/test_bad $work/test_dead $work/test_hanging"
equal 'checks fail: exit code' 1 "$code"
row 'kernels: good' passed '1 cases'
row 'kernels: bad' failed '1 of 2 cases: two'
row 'kernels: dead' failed 'exit code 7: out of luck after 1 cases'
row 'kernels: hanging' failed 'took too long after 1 cases'
has_line 'they are counted' "$work/out" '^1 passed, 3 failed, 0 not run$'

# ---- targets, on made-up rows ----------------------------------------------------------------------------------------

{
    printf '# name, measure, number, card\n'
    printf '%s\tshare\t60\n' 'good share' 'bad share'
    printf '%s\tseconds\t0.5\tH100\n' 'in time' 'late' 'nobody ran it' 'stopped'
    printf '%s\ttflops\t447.3\tH100\n' 'fast' 'slow'
} >"$work/targets"
timed() { printf 'timing\t%s\t%s\t%s\t0\tringreel\n' "$@"; } # name, seconds, TFLOP
judge() { # device
    { # the ceiling: 100 TFLOP/s
        printf 'fact\tdevice\t%s\n' "$1"
        timed 'linear 8192 x 8192 -> 8192' 0.01 1
        timed 'good share' 0.016 1
        timed 'bad share' 0.017 1
        timed 'in time' 0.5 0
        timed 'late' 0.51 0
        timed 'stopped' '' 0
        timed 'fast' 0.01 4.48
        timed 'slow' 0.01 4.46
    } >"$work/rows"
    awk -f launch/gpu-table.awk "$work/targets" "$work/rows" >"$work/table"
}
judged() { has_line "$who: $1: $4" "$work/table" "^$1 +$2 +$3 +$4\$"; } # name, measured, aim, verdict

who='an H100'
judge 'NVIDIA H100 80GB HBM3 sm_90'
judged 'good share' '6[23] %' '>= 60 % of the ceiling' met
judged 'bad share' '59 %' '>= 60 % of the ceiling' missed
judged 'in time' '500.000 ms' '<= 0.5 s, H100' met
judged 'late' '510.000 ms' '<= 0.5 s, H100' missed
judged 'nobody ran it' - '<= 0.5 s, H100' 'not measured'
judged 'stopped' - '<= 0.5 s, H100' 'not measured'
judged 'fast' '448.0 TFLOP/s' '>= 447.3 TFLOP/s, H100' met
judged 'slow' '446.0 TFLOP/s' '>= 447.3 TFLOP/s, H100' missed
has_line 'targets are counted' "$work/table" '^3 targets met, 3 missed, 0 not judged, 2 not measured$'
who='another card'
judge 'NVIDIA H200 sm_90'
judged 'good share' '6[23] %' '>= 60 % of the ceiling' met
judged 'late' '510.000 ms' '<= 0.5 s, H100' 'not judged: another card'
judged 'fast' '448.0 TFLOP/s' '>= 447.3 TFLOP/s, H100' 'not judged: another card'
who='an emulated card'
judge 'NVIDIA H100 80GB HBM3 sm_90 (emulated: nothing below is a speed)'
judged 'good share' '6[23] %' '>= 60 % of the ceiling' 'not judged: emulated'
sed -i '/8192/d' "$work/rows"
awk -v markdown=1 -f launch/gpu-table.awk "$work/targets" <(sed 's/ (emulated.*//' "$work/rows") >"$work/table"
has_line 'without a ceiling' "$work/table" '^\| good share \| - \| >= 60 % of the ceiling \| not judged: no ceiling \|$'
# What is aimed at is what is timed: under the same names, but for those that the sections make up.
while IFS=$'\t' read -r name _; do
    [[ $name != \#* ]] || continue
    pattern=$(sed -E 's/^attention ([0-9]+) tokens, 32 heads of ([0-9]+)/ATTENTION(\1, \2)/; s/: prompt to file$//' <<<"$name")
    equal "it is timed: $name" 1 "$(cat launch/gpu-sections.sh tests/gpu/bench_gpu.c | grep -cF -- "$pattern")"
done <tests/gpu/targets.tsv

# ---- several ranks on the device through NCCL, by made-up renders ------------------------------------------------------

# shellcheck disable=SC2034,SC2317 # the section uses them
nccl_says() { # exit code, digest, line of the log
    (
        # shellcheck source=/dev/null
        . launch/gpu-sections.sh
        results=$work/made-up tiny_digest=d1
        RINGREEL=$work/test_transport
        mkdir -p "$results"
        : >"$results/results.tsv"
        render_tiny() {
            printf '%s\n' "$its_line" >"$results/tiny-nccl.log"
            echo "$its_digest"
            return "$its_code"
        }
        its_code=$1 its_digest=$2 its_line=$3
        section_nccl >/dev/null
        cut -f 3,4 "$results/results.tsv" | tr '\t' '|' | sed 's/ $//'
    )
}
fake transport 'echo "  --transport WORD"'
equal 'NCCL: the same bytes' 'passed|the same bytes' "$(nccl_says 0 d1 '')"
equal 'NCCL: what it refuses is no failure' \
    'not run|not allowed by this NCCL: rank 0 on a: NCCL in group "denoise": Duplicate GPU detected' \
    "$(nccl_says 1 '' 'ringreel: fatal: rank 0 on a: NCCL in group "denoise": Duplicate GPU detected')"
equal 'NCCL: nor is what takes too long' 'not run|not allowed by this NCCL: took too long' "$(nccl_says 124 '' '')"
equal 'NCCL: other bytes are told' 'not run|OTHER BYTES, in a use that NCCL does not promise' "$(nccl_says 0 d2 '')"

# ---- all of it -------------------------------------------------------------------------------------------------------

sections='ops tiny nccl ceilings linear attention conv rows step vae render step13b torch'
# The sanitizers make the emulator twenty times slower.
[[ ${SANITIZE:-0} != 1 ]] || sections='ceilings linear rows torch'
run_check GPU_CHECK_ONLY="kernels $sections" GPU_CHECK_TESTS=
equal 'all sections: exit code' 0 "$code"
row 'kernels' 'not run' 'no test programs'
row 'ceilings' passed ''
row 'rms norm, modulated, 6144 x 2048' '[0-9.]+ ms' '[0-9]+ GB/s'
has_line 'rows for the docs' "$work/results/rows.md" '^\| linear 8192 x 8192 -> 8192 \| [0-9.]+ ms \| .* \| 100 % \|'
has_line 'nothing there is a speed' "$work/out" 'emulated: nothing below is a speed'
if [[ ${SANITIZE:-0} != 1 ]]; then
    row 'ops against the CPU' passed '[0-9]+ cases'
    row 'tiny render, three ranks on the device' passed 'the same bytes'
    row 'three ranks on the device through NCCL' passed 'the same bytes'
    row 'step 13B, 6144 tokens' '[0-9.]+ m?s' '.*TFLOP/s'
    row 'VAE decode 768x512x121' '[0-9.]+ m?s' '.*TFLOP/s'
    row 'render 768x512x121, 20 steps, guidance of both kinds: denoise' '[0-9.]+ m?s' ''
    row 'render 768x512x121, 20 steps, no guidance: prompt to file' '[0-9.]+ m?s' ''
    has_line 'every target is measured' "$work/out" '^0 targets met, 0 missed, [1-9][0-9]* not judged, 0 not measured$'
fi

run_check GPU_CHECK_SECONDS=10 GPU_CHECK_ONLY='kernels ops' GPU_CHECK_TESTS="$work/test_hanging"
row 'kernels: hanging' failed 'took too long'
row 'ops against the CPU' 'not run' 'no time was left'
run_check RINGREEL_CUDA_LIBRARY="$work/none.so"
equal 'no device: exit code, lines' '2 1' "$code $(wc -l <"$work/err")"
has_line 'no device: it is said' "$work/err" '^gpu-check: no device: no CUDA device: .*none.so'
if [[ ! -e /dev/nvidia0 ]] && ! command -v nvidia-smi >/dev/null; then
    run_check GPU_CHECK_REHEARSAL=0
    equal 'no GPU: exit code, lines' '2 1' "$code $(wc -l <"$work/err")"
    has_line 'no GPU: it is said' "$work/err" '^gpu-check: no GPU here'
fi
finish
