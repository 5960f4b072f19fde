#!/usr/bin/env bash
# Device memory moved by NCCL and by MPI, on the emulated device and libraries (README.md here): the same bytes in every
# order of the streams; who may use NCCL; and how a run ends whose messages fail, hang, or lose a rank.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh
. tests/support/launched.sh

export RINGREEL_EMULATION_DEVICES=4

job=$work/job.yaml
write_job "$job"
# Two granules, so that blocks of two ranks are exchanged; one, of which only one rank has something to send.
two=(--width 96 --height 192 --num-frames 1 --num-inference-steps 1)
one=(--width 64 --height 64 --num-frames 1 --num-inference-steps 1)
# The sanitizers make the emulator twenty times slower.
[[ ${SANITIZE:-0} != 1 ]] || two=(--width 32 --height 64 --num-frames 1 --num-inference-steps 1) one=("${two[@]}")

# Sets `digest`.
render_cuda() { # ranks, words
    ringreel "$1" render "$job" --backend cuda --digest -o "$work/cuda.mkv" --encoder ffv1 "${@:2}"
    digest=$(sed -n 's/^digest shot 1 //p' "$work/out")
    ((code == 0)) || digest="exit code $code: $(tail -n 20 "$work/err")"
}
same_bytes() { # name, wanted digest, pattern of the announcement, ranks, words
    render_cuda "${@:4}"
    equal "$1" "$2" "$digest"
    has_line "$1: announced" "$work/err" "^ringreel: transport: $3\$"
}

# ---- the same bytes ------------------------------------------------------------------------------------------------

version='[0-9]+\.[0-9]+\.[0-9]+'
render_cuda 0 "${one[@]}" --transport nccl
alone=$digest
RINGREEL_EMULATION_GUARD=1 same_bytes '2 ranks, NCCL, device memory out of reach' "$alone" "nccl $version" \
    2 "${one[@]}" --transport nccl
if [[ ${SANITIZE:-0} == 1 ]]; then # the emulator is twenty times slower then, and a script has ten minutes
    finish
    exit
fi

same_bytes '2 ranks, MPI' "$alone" mpi 2 "${one[@]}" --transport mpi
RINGREEL_EMULATION_STREAMS=fifo same_bytes '3 ranks, auto, streams in order fifo' "$alone" "nccl $version" 3 "${one[@]}"
RINGREEL_EMULATION_DEVICES=2 same_bytes '3 ranks on 2 devices: NCCL for those that share none' "$alone" \
    "nccl $version \(mpi for everyone: ranks 0 and 2 share a device\)" 3 "${one[@]}"
RINGREEL_EMULATION_DEVICES=1 same_bytes '2 ranks on 1 device' "$alone" \
    'mpi \(everyone: ranks 0 and 1 share a device\)' 2 "${one[@]}"

render_cuda 0 "${two[@]}"
alone=$digest
RINGREEL_EMULATION_STREAMS=random:5 same_bytes '3 ranks, streams in order random' "$alone" "nccl $version" \
    3 "${two[@]}" --transport nccl
render_cuda 3 "${two[@]}" --attention-order ring --transport mpi
RINGREEL_EMULATION_STREAMS=fifo same_bytes 'blocks that cross: order ring' "$digest" "nccl $version" \
    3 "${two[@]}" --attention-order ring --transport nccl

# ---- where NCCL cannot be ------------------------------------------------------------------------------------------

nccl=(render "$job" "${one[@]}" --transport nccl -o "$work/videos/no.mkv")
refused_by_all 'NCCL on the CPU' 'transport nccl: .* cpu backend; auto and mpi do there$' "${nccl[@]}" --backend cpu
RINGREEL_EMULATION_DEVICES=1 refused 'NCCL on one device' 3 \
    'transport nccl: group denoise: ranks 0 and 1 share a device; everyone: ranks 0 and 1 share a device;' \
    "${nccl[@]}" --backend cuda
mkdir "$work/broken"
printf 'no library\n' >"$work/broken/libnccl.so.2"
export LD_LIBRARY_PATH=$work/broken
refused_by_all "without NCCL's library" 'transport nccl: no NCCL: .*libnccl.so.2: ' "${nccl[@]}" --backend cuda
same_bytes "auto without NCCL's library" "$(render_cuda 0 "${one[@]}" && echo "$digest")" \
    'mpi \(everyone: rank 0 has no NCCL\)' 2 "${one[@]}"
unset LD_LIBRARY_PATH

# ---- what fails ----------------------------------------------------------------------------------------------------

# To try a communicator out takes three messages of a rank; rank 1 is in two of three ranks', one of two ranks'.
ends() { # name, ranks, line, words
    ringreel "$2" render "$job" "${one[@]}" --backend cuda --transport nccl -o "$work/failed.mkv" "${@:4}"
    equal "$1: exit code" 1 "$code"
    has_line "$1: group, rank, message and hop are named" "$work/err" "^ringreel: fatal: rank [0-9] .*, during $3"
    equal "$1: no file" '' "$(compgen -G "$work/failed*" || true)"
}
RINGREEL_EMULATION_FAIL=nccl:8@1 ends 'an error of NCCL' 3 \
    'shot 1 .*: NCCL in group "denoise": broadcast from rank 1, asked for during shot 1 step 1 block [0-9]+ hop 1: asynchronous error: '
RINGREEL_EMULATION_FAIL=nccl-hang:5@1 ends 'lines that do not come' 2 \
    'shot 1 decode: NCCL in group "everyone": receive from rank [01], send to rank [01], asked for during shot 1 decode: nothing has happened for 5 s \(timeout\)' \
    --timeout 5
RINGREEL_EMULATION_FAIL=nccl:1@0 ends 'an error of NCCL at the start' 2 \
    'opening the transport: NCCL in group "everyone": receive from rank 1, send to rank 1, asked for during opening the transport: asynchronous error: '

lose_rank() { # name, signal, line, words
    launch/ringreel-mpi -n 3 render "$job" "${one[@]}" --backend cuda --transport nccl --num-inference-steps 1000 \
        --log-json "$work/events" -o "$work/failed.mkv" "${@:4}" >"$work/out" 2>"$work/err" &
    launcher=$!
    if ! wait_until grep -qs '"event":"step"' "$work/events"; then
        not_ok "$1" "$(cat "$work/err")"
        return
    fi
    signal_and_wait "$2" "$(process_of_rank 1)"
    rm -f "$work/events"*
    equal "$1: exit code" 1 "$((code != 0))"
    equal "$1: no rank is left" '' "$left"
    has_line "$1: it is named" "$work/err" "$3"
}
lose_rank 'kill -9 of a rank' KILL 'rank 1 .* signal 9'
# The codec rank waits for rank 0, and may find out first.
lose_rank 'a rank that stops' STOP \
    '("denoise": broadcast from rank 1, asked for during .*|with rank 0 of group "world"): nothing has happened for 6 s' \
    --timeout 6

finish
