#!/usr/bin/env bash
# The program where there is no device, no library for it, or a device that fails: a clear end of all ranks, or the CPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh

job=$work/job.yaml
write_job "$job"
[[ ${SANITIZE:-0} != 1 ]] || size=(--width 32 --height 32 --num-frames 1 --num-inference-steps 1)

# ---- what is not there ---------------------------------------------------------------------------------------------

no_cuda() { # name, line
    ringreel 0 render "$job" "${size[@]}" --backend cuda -o "$work/no.mkv"
    equal "$1: exit code" 2 "$code"
    has_line "$1: it is named" "$work/err" "^ringreel: error: backend cuda: $2"
    ringreel 3 render "$job" "${size[@]}" --backend cuda -o "$work/no.mkv"
    equal "$1: exit code, 3 ranks" 2 "$code"
    equal "$1: one line, 3 ranks" 1 "$(grep -c '^ringreel: error: ' "$work/err")"
}
export RINGREEL_EMULATION_DEVICES=0
no_cuda 'no device' 'no CUDA-capable device is detected'
ringreel 2 render "$job" "${size[@]}" -o "$work/auto.mkv" --encoder ffv1
equal 'backend auto without a device: exit code' 0 "$code"
has_line 'backend auto without a device: it is told' "$work/err" 'no CUDA: no CUDA-capable device is detected'
has_line 'backend auto without a device: the CPU computes' "$work/err" '; cpu \('
export RINGREEL_EMULATION_DEVICES=1
RINGREEL_CUDA_LIBRARY=$work/none.so no_cuda 'no library' '.*none.so: .*No such file'
printf 'no library\n' >"$work/text.so"
RINGREEL_CUDA_LIBRARY=$work/text.so no_cuda 'a file that is no library' '.*text.so: '

# ---- what fails ----------------------------------------------------------------------------------------------------

ends() { # name, ranks, line
    ringreel "$2" render "$job" "${size[@]}" --backend cuda -o "$work/failed.mkv" --timeout 20
    equal "$1, $2 ranks: exit code" 1 "$code"
    has_line "$1, $2 ranks: it is named" "$work/err" "$3"
    equal "$1, $2 ranks: no file" '' "$(ls "$work" | grep failed || true)"
}
for ranks in 0 3; do
    RINGREEL_EMULATION_FAIL=launch:40 ends 'a kernel that cannot be launched' "$ranks" 'CUDA device 0: .*\(cudaError'
    RINGREEL_EMULATION_FAIL=ecc:60 ends 'an ECC error' "$ranks" 'CUDA device 0: .*ECC.*\(cudaErrorECCUncorrectable\)'
done

finish
