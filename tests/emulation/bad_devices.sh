#!/usr/bin/env bash
# Devices that are too small, not alike, not there, or that fail: known before the first step where that can be, and said in
# one line by one rank; all ranks leave with an exit code. On the emulated device (runtime/README.md has its settings).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh
# shellcheck source=tests/support/emulated.sh
. tests/support/emulated.sh

job=$work/job.yaml
write_job "$job"
clip=$work/videos/clip.mkv
small=(--backend cuda --width 32 --height 32 --num-frames 1 --num-inference-steps 1 --encoder ffv1 -o "$clip")
render=(render "$job" "${small[@]}")

# ---- what is planned -----------------------------------------------------------------------------------------------

dry_run() { # ranks, words
    local ranks=$1
    shift
    ringreel "$ranks" "${render[@]}" --dry-run "$@"
}
ranks_planned() { grep -c '^rank [0-9]*, .*: on the device [0-9.]* [GM]iB: .*; on the host [0-9.]* [GM]iB' "$work/out" || true; }
column() { sed -n "s/^rank .* on the $1 \([0-9.]*\) MiB.*/\1/p" "$work/out"; } # device or host
needed() { sed -n 's/^rank .* needs* \([0-9.]*\) MiB.*/\1/p' "$work/out"; }    # of the device, by all that share it
left() { sed -n 's/^rank .*, \([0-9.]*\) MiB of .* are free.*/\1/p' "$work/out"; }
close_to() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a - b < 0.3 && b - a < 0.3) }'; }

RINGREEL_EMULATION_MEMORY=512M dry_run 3
equal 'a dry run: exit code, lines with two columns, files' '0 3 ' "$code $(ranks_planned) $(ls "$work/videos" 2>/dev/null || true)"
sum=$(column device | awk '{ s += $1 } END { print s }')
if close_to "$sum" "$(needed | head -n 1)"; then
    ok 'ranks that share a device are summed'
else
    not_ok 'ranks that share a device are summed' "$sum MiB of $(needed | head -n 1) MiB"
fi
has_line 'the device is named' "$work/out" '; 3 ranks on device 0000:01:00.0 \(emulated sm_90\) of .* need '
column device >"$work/shared.device"
column host >"$work/shared.host"
RINGREEL_EMULATION_DEVICES=3 RINGREEL_EMULATION_MEMORY=512M dry_run 3
has_line 'a device of its own is planned alone' "$work/out" '^rank 1, .*; 1 rank on device 0000:02:00.0 '
equal 'a device of its own: not shared' '' "$(grep 'ranks share' "$work/err" || true)"
RINGREEL_EMULATION_DEVICES=0 dry_run 3
equal 'without a device: exit code, lines' '0 3' "$code $(ranks_planned)"
equal 'without a device: the same device memory' "$(cat "$work/shared.device")" "$(column device)"
equal 'without a device: the same memory of the host' "$(cat "$work/shared.host")" "$(column host)"
has_line 'without a device: it is told' "$work/out" 'of its device, which is not here'
has_line 'without a device: and why' "$work/err" 'no CUDA: no CUDA-capable device is detected'
RINGREEL_CUDA_LIBRARY='' refused_by_all 'a dry run without the library' 'backend cuda: ' "${render[@]}" --dry-run

# What NCCL takes of a device is planned where it is used: 12 MiB for a broadcast's and for each neighbour's connection,
# with one channel, in groups of two and of three; else what goes by way of the host.
wide=(--width 1024 --height 1024 --num-frames 33 --denoise-ranks 2)
export RINGREEL_EMULATION_DEVICES=3 NCCL_MAX_CTAS=1
columns() { column "$1" | paste "$work/mpi.$1" - | awk "$2" | xargs; }
dry_run 3 "${wide[@]}" --transport mpi
column device >"$work/mpi.device"
dry_run 3 "${wide[@]}"
equal 'NCCL: device memory of two denoise ranks and the codec rank' '60 60 36' \
    "$(columns device '{ printf "%.0f\n", $2 - $1 }')"
NCCL_MAX_CTAS=2 dry_run 3 "${wide[@]}"
equal 'NCCL: twice as much with two channels' '120 120 72' "$(columns device '{ printf "%.0f\n", $2 - $1 }')"
dry_run 3 "${wide[@]}" --transport mpi --last-decode codec
column host >"$work/mpi.host"
dry_run 3 "${wide[@]}" --last-decode codec
equal 'NCCL: no blocks in the memory of the hosts of denoise ranks' 'less less same' \
    "$(columns host '{ print ($2 < $1 ? "less" : $2 == $1 ? "same" : "more") }')"
export RINGREEL_EMULATION_DEVICES=1

# Launchers may show each rank one device of its own as number 0.
RINGREEL_EMULATION_BUS_RANK1=2 RINGREEL_EMULATION_BUS_RANK2=3 dry_run 3
equal 'devices are told apart by what they are' '0000:01:00.0 0000:02:00.0 0000:03:00.0' \
    "$(sed -n 's/.*1 rank on device \(0000:..:00.0\).*/\1/p' "$work/out" | xargs)"
equal 'devices are told apart: not shared' '' "$(grep 'ranks share' "$work/err" || true)"

if [[ ${SANITIZE:-0} == 1 ]]; then # the emulator is twenty times slower then, and a script has ten minutes
    finish
    exit
fi

# ---- what does not fit ---------------------------------------------------------------------------------------------

# Memory in KiB of a device that leaves a single rank so many MiB.
RINGREEL_EMULATION_MEMORY=512M dry_run 0
taken=$(awk -v left="$(left)" 'BEGIN { print 512 - left }') resident=$(needed)
RINGREEL_EMULATION_MEMORY=512M dry_run 0 --weights stream
streamed=$(needed)
leaving() { awk -v a="$taken" -v b="$1" -v c="$2" 'BEGIN { printf "%dK", (a + b + c) * 1024 }'; } # MiB, more MiB

shortage='not enough device memory: [0-9] ranks? on device 0000:0.:00.0 \(emulated sm_90\) of .* needs? [0-9.]+ MiB, [0-9.]+ MiB of [0-9.]+ MiB are free; .* rank'
RINGREEL_EMULATION_MEMORY=35M refused_by_all 'too little device memory' "$shortage [0-9], for shot 1 .*: on the device [0-9.]+ MiB: " "${render[@]}"
RINGREEL_EMULATION_MEMORY=35M refused 'what would help' 0 '.*fewer frames or a smaller picture help, or more ranks' "${render[@]}"
RINGREEL_EMULATION_DEVICES=3 RINGREEL_EMULATION_MEMORY_RANK1=35M refused 'one rank has too little' 3 "$shortage 1, " "${render[@]}"
has_line 'one rank has too little: on its device' "$work/err" '1 rank on device 0000:02:00.0 '
RINGREEL_EMULATION_MEMORY=$(leaving "$streamed" 1) refused 'resident weights do not fit' 0 "$shortage 0, .*, or --weights stream " \
    "${render[@]}" --weights resident
export RINGREEL_EMULATION_MEMORY
RINGREEL_EMULATION_MEMORY=$(leaving "$resident" 1)
dry_run 3 --weights resident
equal 'a device that one rank fits is too little for three' '0 3' "$code $(grep -c ': too little$' "$work/out" || true)"
RINGREEL_EMULATION_DEVICES=3 dry_run 3 --weights resident --transport mpi
equal 'of their own each fits' '0 0' "$code $(grep -c ': too little$' "$work/out" || true)"

# Enough is enough: the least memory that the plan accepts.
for weights in resident stream; do
    least=$resident
    [[ $weights == resident ]] || least=$streamed
    RINGREEL_EMULATION_MEMORY=$(leaving "$least" 0.12)
    ringreel 0 "${render[@]}" --weights "$weights"
    equal "no more is taken than was planned, weights $weights" 0 "$code"
done
ringreel 0 "${render[@]}"
equal 'weights auto: exit code' 0 "$code"
has_line 'weights auto: streamed where the device is too small for them' "$work/err" 'weights expanded at every use'
RINGREEL_EMULATION_COUNT=1 RINGREEL_EMULATION_MEMORY=512M ringreel 0 "${render[@]}" --weights resident
had=$(sed -n 's/.*: had \([0-9]*\) bytes of a device at most$/\1/p' "$work/err")
had=$(awk -v had="${had:-0}" -v before="$taken" 'BEGIN { print had / 1048576 - before }')
if awk -v planned="$resident" -v had="$had" 'BEGIN { exit !(had <= planned && planned < 1.15 * had) }'; then
    ok 'not much more is planned than is taken'
else
    not_ok 'not much more is planned than is taken' "planned $resident MiB, taken $had MiB"
fi
unset RINGREEL_EMULATION_MEMORY
rm -rf "$work/videos"

# ---- what is not alike ---------------------------------------------------------------------------------------------

RINGREEL_EMULATION_NAME_RANK1='NVIDIA H200' refused 'GPUs of two models' 3 \
    'GPUs differ, .*: rank 0 on .* has emulated sm_90 \(sm_90\), rank 1 on .* has NVIDIA H200 \(sm_90\)$' "${render[@]}"
RINGREEL_EMULATION_DEVICE_RANK2=sm_80 refused 'GPUs of two capabilities' 3 'GPUs differ, .* rank 2 on .* \(sm_80\)$' "${render[@]}"
RINGREEL_EMULATION_RUNTIME_RANK1=13010 refused 'two CUDA runtimes' 3 \
    'CUDA libraries differ: rank 0 on .* has CUDA 13.0, cuBLASLt [0-9.]+, rank 1 on .* has CUDA 13.1, ' "${render[@]}"
RINGREEL_EMULATION_CUBLASLT_RANK2=130200 refused 'two versions of cuBLASLt' 3 \
    'CUDA libraries differ: .*, rank 2 on .* has CUDA 13.0, cuBLASLt 13.2.0' "${render[@]}"
RINGREEL_EMULATION_DEVICES_RANK1=0 refused 'a rank without a device' 3 \
    'backend cuda: no CUDA-capable device is detected \(rank 1 on ' "${render[@]}"
RINGREEL_EMULATION_DRIVER_RANK2=12080 refused 'a rank whose driver is too old' 3 \
    'backend cuda: CUDA driver version is insufficient for CUDA runtime version \(rank 2 on ' "${render[@]}"
RINGREEL_EMULATION_NAME_RANK1='NVIDIA H200' dry_run 3 --attention-order ring
equal 'GPUs of two models, order ring: exit code' 0 "$code"
has_line 'GPUs of two models, order ring: it is told' "$work/err" 'warning: GPUs differ: .* rank 1 on .* has NVIDIA H200'
has_line 'ranks that share a device are told' "$work/err" '3 ranks share 1 CUDA device$'

# ---- what fails later ----------------------------------------------------------------------------------------------

fails() { # name, ranks, failure, regular expression, words
    local name="$1, $2 ranks" ranks=$2 failure=$3 pattern=$4 begun=$SECONDS
    shift 4
    RINGREEL_EMULATION_FAIL=$failure ringreel "$ranks" "${render[@]}" --timeout 3 "$@"
    equal "$name: exit code" 1 "$code"
    equal "$name: one line" 1 "$(grep -c '^ringreel: fatal: ' "$work/err" || true)"
    has_line "$name: it is named" "$work/err" "^ringreel: fatal: rank $((ranks ? 1 : 0)) on .*$pattern"
    if ((SECONDS - begun < 60)); then ok "$name: soon"; else not_ok "$name: soon" "$((SECONDS - begun)) s"; fi
    equal "$name: no file" '' "$(files_in "$work" | grep clip || true)"
}
where='of CUDA device 0 \(emulated sm_90 at 0000:01:00.0\) [0-9.]+ [GM]iB of 2.00 GiB are free; the plan \(--dry-run\) was on the device [0-9.]+ MiB: .* on the host '
on='emulated sm_90 at 0000:01:00.0, asked for last: [a-z0-9_]+'
for ranks in 0 3; do
    at=''
    ((ranks == 0)) || at=@1
    fails 'memory that is gone' "$ranks" "malloc:3$at" "out of memory: arena \"[a-zA-Z ]+\" needs [0-9.]+ MiB, $where"
    fails 'memory for weights that is gone' "$ranks" "malloc:15$at" "out of device memory: [a-z0-9_.]+ needs [0-9]+ bytes, $where"
    fails 'a kernel that fails' "$ranks" "launch:60$at" "CUDA device 0: .* \(cudaErrorLaunchFailure\); $on"
    fails 'an ECC error' "$ranks" "ecc:90$at" "CUDA device 0: .* \(cudaErrorECCUncorrectable\); $on"
    fails 'a kernel that never ends' "$ranks" "hang:60$at" "CUDA device 0: it has finished nothing for 3 s \(timeout\); $on"
done
RINGREEL_EMULATION_STREAMS=fifo fails 'a kernel that never ends, queued' 0 hang:200 'it has finished nothing for 3 s'

finish
