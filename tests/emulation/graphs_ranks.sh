#!/usr/bin/env bash
# CUDA graphs where several ranks share a sequence: passes are recorded in parts, with messages in between. The same bytes
# as without, in every order of streams and in both orders of attention; and mistakes that parts make possible are seen.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh

export RINGREEL_EMULATION_DEVICES=4

made() { sed -n 's/.*: made \(.*\), [0-9]* launches of graphs$/\1/p' "$work/err" | sort; }
launches() { sed -n 's/.*, \([0-9]*\) launches of graphs$/\1/p' "$work/err" | sort -n | tr '\n' ' '; }

# ---- attention -----------------------------------------------------------------------------------------------------

passes() { RINGREEL=$BUILD/tests/mpi/device_passes ringreel "$@"; } # ranks, order, steps, mistake

# A part begins where a message does: as many in a block as there are ranks. Two steps of three are replayed.
same() { # ranks, order of attention, order of streams
    local parts=1
    (($1 == 1)) || parts=$((3 * $1 + 1))
    RINGREEL_EMULATION_STREAMS=$3 passes "$1" "$2" 3
    equal "$1 ranks, $2, streams in order $3: the same bytes" "0 $((2 * 2 * parts)) parts" "$code $(cat "$work/out")"
}
if [[ ${SANITIZE:-0} == 1 ]]; then # the emulator is twenty times slower then
    same 2 canonical fifo
    finish
    exit
fi
for order in canonical ring; do
    same 1 "$order" eager
    same 2 "$order" fifo
    same 3 "$order" random:1
    same 4 "$order" random:2
done
RINGREEL_EMULATION_GUARD=1 same 3 ring fifo

RINGREEL_EMULATION_FAIL=capture:3@1 same 3 canonical fifo
equal 'a rank whose capture fails goes on without' 1 "$(grep -c '^ringreel: CUDA graphs are not used: ' "$work/err")"

export RINGREEL_EMULATION_COUNT=1
passes 3 canonical 3
few=$(made)
passes 3 canonical 6
equal 'more steps allocate no more' "$few" "$(made)"
unset RINGREEL_EMULATION_COUNT

noticed() { # name, mistake
    local order count=0
    for order in fifo random:1 random:2; do
        RINGREEL_EMULATION_STREAMS=$order passes 3 canonical 4 "$2"
        ! grep -q 'what was replayed differs' "$work/err" || count=$((count + 1))
    done
    if ((count > 0)); then ok "$1 is noticed, in $count of 3 orders"; else not_ok "$1" 'in no order'; fi
}
noticed 'a part that does not wait for the message before it' wait
noticed 'a message that does not wait for the part before it' late
passes 2 canonical 4 other
equal 'other ops than were recorded: exit code' 1 "$code"
has_line 'other ops than were recorded: they are told' "$work/err" 'a replay asks for other ops than were recorded'

# ---- the program ---------------------------------------------------------------------------------------------------

job=$work/job.yaml
write_job "$job"
size=(--width 96 --height 192 --num-frames 1 --num-inference-steps 3 --stg-scale 1 --skip-block-list 1)
export RINGREEL_EMULATION_COUNT=1

alone=$(render_cuda 0 --graphs off)
equal 'a render of two denoise ranks, the same bytes' "$alone" \
    "$(RINGREEL_EMULATION_STREAMS=fifo render_cuda 3 --transport nccl)"
# Two parts in each of six blocks and one more, three passes in each of two steps, of which one leaves out an attention.
equal 'a render of two denoise ranks, parts' '0 74 74 ' "$(launches)"
render_cuda 3 --transport mpi --num-inference-steps 2 --stg-scale 0 --guidance-scale 1 >/dev/null
equal 'by way of the host, no graphs' '0 0 0 ' "$(launches)"
equal 'by way of the host, no graphs: it is told once' 1 "$(grep -c '^ringreel: graphs are not used: ' "$work/err")"
alone=$(render_cuda 4 --transport nccl --attention-order ring --graphs off)
equal 'without graphs, none' '0 0 0 0 ' "$(launches)"
equal 'order ring on three denoise ranks, the same bytes' "$alone" \
    "$(RINGREEL_EMULATION_STREAMS=random:3 render_cuda 4 --transport nccl --attention-order ring)"

finish
