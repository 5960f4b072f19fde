#!/usr/bin/env bash
# `make gpu-check` rehearsed on the emulated device: every section, a check that fails, a program that hangs, pieces
# that are missing, the table. What it would say of a GPU is for a GPU.
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
    row 'step 13B, 6144 tokens' '[0-9.]+ m?s' '.*TFLOP/s'
    row 'VAE decode 768x512x121' '[0-9.]+ m?s' '.*TFLOP/s'
    row 'render 768x512x121, 20 steps, guidance of both kinds: denoise' '[0-9.]+ m?s' ''
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
