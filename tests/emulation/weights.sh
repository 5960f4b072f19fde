#!/usr/bin/env bash
# Weights that one rank of a host reads and broadcasts over NCCL (src/parallel/reading.c), on the emulated device and
# libraries: who reads and who does not, the same bytes as without, and how a run ends that fails meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh
. tests/support/launched.sh

export RINGREEL_EMULATION_DEVICES=6 RINGREEL_EMULATION_MEMORY=8G # where weights are kept beside what NCCL is planned to take

job=$work/job.yaml
checkpoint=$PWD/models/tiny/ltxv-tiny.safetensors
write_job "$job"
size=(--width 32 --height 32 --num-frames 1 --num-inference-steps 1 --log-json "$work/events")

same_bytes() { # name, pattern of the announcement, ranks, words
    rm -f "$work/events"*
    equal "$1" "$alone" "$(render_cuda "${@:3}")"
    has_line "$1: announced" "$work/err" "^ringreel: weights: $2\$"
}
# What the ranks read from the checkpoint, and what they were given instead: "READ/GIVEN", "-" where nothing is shared.
bytes_of_ranks() { # ranks
    local rank file
    for ((rank = 0; rank < $1; rank++)); do
        file=$work/events
        ((rank == 0)) || file+=.$rank
        sed -n 's|.*"event":"weights","read_bytes":\([0-9]*\),"given_bytes":\([0-9]*\).*|\1/\2|p' "$file" | grep . || echo -
    done | sed 's|[1-9][0-9]*|some|g' | paste -s -d ' '
}

# ---- the same bytes, read once -------------------------------------------------------------------------------------

alone=$(render_cuda 0)
RINGREEL_EMULATION_GUARD=1 RINGREEL_EMULATION_STREAMS=random:7 \
    same_bytes '2 denoise ranks, device memory out of reach' 'read by 1 of 2 denoise ranks, broadcast over NCCL to 1' 3
equal 'only the first of them reads' 'some/0 0/some -' "$(bytes_of_ranks 3)"
if [[ ${SANITIZE:-0} == 1 ]]; then # the emulator is twenty times slower then, and a script has ten minutes
    finish
    exit
fi

both='read by 1 of 3 denoise ranks, broadcast over NCCL to 2; read by 1 of 2 codec ranks, broadcast over NCCL to 1'
RINGREEL_EMULATION_STREAMS=fifo same_bytes 'and 2 codec ranks' "$both" 5 --codec-ranks 2
equal 'the first of either reads' 'some/0 0/some 0/some some/0 0/some' "$(bytes_of_ranks 5)"
same_bytes 'without NCCL each reads' 'read by each of 2 denoise ranks \(no NCCL between them\)' 3 --transport mpi
equal 'none is given any' '- - -' "$(bytes_of_ranks 3)"
same_bytes 'streamed weights are not shared' 'read by each of 2 denoise ranks \(expanded at every use\)' 3 \
    --weights stream

# ---- hosts ---------------------------------------------------------------------------------------------------------

printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$PWD/$BUILD/emulation/lib/hosts.so" "$RINGREEL" >"$work/on_hosts"
chmod +x "$work/on_hosts"
RINGREEL=$work/on_hosts RINGREEL_EMULATION_HOST_RANKS=2 \
    same_bytes '3 hosts' 'read by 2 of 4 denoise ranks, broadcast over NCCL to 2' 5
equal 'one of each host reads' 'some/0 0/some some/0 0/some -' "$(bytes_of_ranks 5)"

# ---- what a rank touches -------------------------------------------------------------------------------------------

# Pages of the checkpoint that a process has mapped, in KiB.
touched() { # rank
    awk -v file="$checkpoint" '$NF == file { ours = 1; next } /^[0-9a-f]+-/ { ours = 0 } ours && $1 == "Rss:" { kib += $2 } END { print kib }' \
        "/proc/$(process_of_rank "$1")/smaps"
}
start() { # words
    launch/ringreel-mpi -n 3 render "$job" "${size[@]}" --backend cuda -o "$work/failed.mkv" \
        "$@" >"$work/out" 2>"$work/err" &
    launcher=$!
}

rm -f "$work/events"*
start --num-inference-steps 1000
if wait_until grep -qs '"event":"step"' "$work/events"; then
    all=$(sed -n 's/.*"read_bytes":\([0-9]*\).*/\1/p' "$work/events") first=$(touched 0) second=$(touched 1)
    signal_and_wait TERM "$launcher"
    if ((first - second > all * 3 / 4096)); then
        ok 'the other rank has not touched the pages'
    else
        not_ok 'the other rank has not touched the pages' "KiB: $first and $second, $((all / 1024)) in tensors"
    fi
else
    not_ok 'the other rank has not touched the pages' "$(cat "$work/err")"
fi

# ---- what fails ----------------------------------------------------------------------------------------------------

# Rank 1 is in two communicators and tries each out with three messages.
RINGREEL_EMULATION_FAIL=nccl-hang:12@1 ringreel 3 render "$job" "${size[@]}" --backend cuda --timeout 5 \
    -o "$work/failed.mkv"
equal 'a tensor that does not come: exit code' 1 "$code"
has_line 'a tensor that does not come: it is named' "$work/err" \
    '"denoise": broadcast from rank 0, asked for during loading [a-z0-9_.]+\.transformer_blocks\.0\.[a-z0-9_.]+: nothing has happened for 5 s \(timeout\)'

export RINGREEL_EMULATION_FAIL=nccl-hang:12@1
start
wait_until grep -qs 'weights: read by 1 of 2' "$work/err" || true
sleep 1
signal_and_wait KILL "$(process_of_rank 0)"
unset RINGREEL_EMULATION_FAIL
equal 'kill -9 of the rank that reads: exit code' 1 "$((code != 0))"
equal 'kill -9 of the rank that reads: no rank is left' '' "$left"
has_line 'kill -9 of the rank that reads: it is named' "$work/err" 'rank 0 .* signal 9'
has_line 'kill -9 of the rank that reads: others say what they were doing' "$work/err" \
    '^ringreel: rank 1 on .* ended by SIGTERM .*, during loading [a-z0-9_.]+$'
equal 'no file is left' '' "$(compgen -G "$work/failed*" || true)"

head -c -4096 "$checkpoint" >"$work/short.safetensors"
refused 'a truncated checkpoint' 3 "$work/short.safetensors: tensor [^ ]+: .* \(file truncated\?\)\$" \
    render "$job" "${size[@]}" --backend cuda --checkpoint-path "$work/short.safetensors" -o "$work/videos/no.mkv"

finish
