#!/usr/bin/env bash
# The whole program with --backend cuda, on the emulated device and NVIDIA's libraries (README.md here): the same bytes
# on 1, 2 and 4 ranks, close to what the CPU backend renders, and a clear end where a device fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh

library=$PWD/$BUILD/emulation/libringreel_cuda.so
export RINGREEL_CUDA_LIBRARY=$library OMP_NUM_THREADS=1 RINGREEL_EMULATION_DEVICES=1

job=$work/job.yaml
write_job "$job"
size=() small=(--width 64 --height 64 --num-frames 9 --num-inference-steps 1)
# The sanitizers make the emulator twenty times slower.
[[ ${SANITIZE:-0} != 1 ]] || size=(--width 32 --height 32 --num-frames 1 --num-inference-steps 1) small=()

# ---- renders -------------------------------------------------------------------------------------------------------

digest() { sed -n 's/^digest shot 1 //p' "$work/out"; }

render_cuda() { # ranks, words: the digest
    local ranks=$1
    shift
    ringreel "$ranks" render "$job" "${size[@]}" --backend cuda --digest -o "$work/cuda.mkv" --encoder ffv1 "$@"
    digest
    ((code == 0)) || echo "exit code $code of $ranks $* $RANDOM" # equal to nothing
}

one=$(render_cuda 0)
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

# ---- recorded steps ------------------------------------------------------------------------------------------------

made() { sed -n 's/.*: made \(.*\), [0-9]* launches of graphs$/\1/p' "$work/err"; }
launches() { sed -n 's/.*, \([0-9]*\) launches of graphs$/\1/p' "$work/err"; }
counted() { # steps, words: the digest; what was made is in $work/err
    local steps=$1
    shift
    RINGREEL_EMULATION_COUNT=1 render_cuda 0 --width 32 --height 32 --num-frames 1 --num-inference-steps "$steps" "$@"
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
ringreel 2 render "$job" --backend cuda --digest -o "$work/cuda.mkv" --encoder ffv1 --width 32 --height 32 --num-frames 1 "${guided[@]}"
equal 'one denoise rank and one codec rank, the same bytes' "$recorded" "$(digest)"
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
