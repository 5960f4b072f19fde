#!/usr/bin/env bash
# The whole program with --backend cuda, on the emulated device and NVIDIA's libraries (README.md here): the same bytes
# on 1, 2 and 4 ranks and in every order of threads and streams, and close to what the CPU backend renders.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh

job=$work/job.yaml
write_job "$job"
small=(--width 64 --height 64 --num-frames 9 --num-inference-steps 1)
# The sanitizers make the emulator twenty times slower.
[[ ${SANITIZE:-0} != 1 ]] || size=(--width 32 --height 32 --num-frames 1 --num-inference-steps 1) small=()

# ---- renders -------------------------------------------------------------------------------------------------------

one=$(ASAN_OPTIONS=$thorough render_cuda 0)
has_line 'the device and its kind are named' "$work/err" '; cuda \(sm_90, bf16\)'
for ranks in 2 4; do
    equal "$ranks ranks, the same bytes" "$one" "$(render_cuda "$ranks")"
done
has_line 'ranks that share a device are told' "$work/err" '4 ranks share 1 CUDA device$'

psnr_of() {
    { "$RINGREEL" compare "$work/cpu.mkv" "$work/cuda.mkv" 2>&1 || true; } | sed -n 's/^PSNR \([0-9]*\)\..*/\1/p'
}
close_to_cpu() { # name, least PSNR, words
    local name=$1 least=$2 psnr
    shift 2
    rm -f "$work/cpu.mkv" "$work/cuda.mkv" # of the case before
    ringreel 0 render "$job" "${size[@]}" "$@" --backend cpu --precision float32 -o "$work/cpu.mkv" --encoder ffv1
    render_cuda 0 "$@" >/dev/null
    psnr=$(psnr_of)
    if ((${psnr:-0} >= least)); then ok "$name: $psnr dB"; else not_ok "$name" "PSNR ${psnr:-none}, wanted $least"; fi
}
# Products of bf16 numbers: 8 bits of mantissa, summed in fp32, through two steps and the decoder.
close_to_cpu 'bf16 is close to fp32 on the CPU' 45
close_to_cpu 'with guidance of all kinds' 40 "${small[@]}" --stg-scale 1 --skip-block-list 1 --cfg-star-rescale
# Attention alone rounds to bf16.
close_to_cpu 'fp32 products are closer' 52 "${small[@]}" --precision float32

vae_memory() { # precision: MiB of the plan
    ringreel 0 render "$job" --backend cuda --precision "$1" --width 768 --height 512 --num-frames 33 --dry-run
    sed -nE 's/^rank 0, [^;]* VAE ([0-9]+)[.0-9]* MiB.*/\1/p' "$work/out"
}
half=$(vae_memory bfloat16) whole=$(vae_memory float32)
if ((0 < half && half < whole)); then
    ok "clips in bf16 take less: $half of $whole MiB"
else
    not_ok 'clips in bf16 take less' "${half:-none} of ${whole:-none} MiB"
fi

few=$(render_cuda 0 "${small[@]}")
for order in fifo random:5; do
    equal "streams in order $order, the same bytes" "$few" "$(RINGREEL_EMULATION_STREAMS=$order render_cuda 0 "${small[@]}")"
done
for order in reverse random:7; do
    equal "threads in order $order, the same bytes" "$few" "$(RINGREEL_EMULATION_ORDER=$order render_cuda 0 "${small[@]}")"
done
equal 'asynchronous copies late, the same bytes' "$few" "$(RINGREEL_EMULATION_ASYNC=late render_cuda 0 "${small[@]}")"
equal 'device memory out of the reach of the host, the same bytes' "$few" \
    "$(RINGREEL_EMULATION_GUARD=1 render_cuda 0 "${small[@]}")"
equal 'a device of capability 8.0, the same bytes' "$few" "$(RINGREEL_EMULATION_DEVICE=sm_80 render_cuda 0 "${small[@]}")"

# MiB of the transformer's activations in the plan
planned() {
    ringreel 0 render "$job" --width 768 --height 512 --num-frames 121 --dry-run --backend cuda "$@"
    sed -nE 's/.*transformer activations ([0-9.]+) MiB.*/\1/p' "$work/out"
}
half=$(planned) whole=$(planned --precision float32)
if awk -v a="${half:-1}" -v b="${whole:-0}" 'BEGIN { exit !(a < 0.75 * b) }'; then
    ok "the plan of bf16 is smaller: $half MiB, $whole MiB in fp32"
else
    not_ok 'the plan of bf16 is smaller' "${half:-none} MiB, ${whole:-none} MiB in fp32"
fi

finish
