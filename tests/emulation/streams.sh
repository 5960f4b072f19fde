#!/usr/bin/env bash
# What the CUDA backend does beside its ops (kernels/cuda/copies.c, recording.c), in every order of streams: frames on their
# way out, weights and uploads on their way in, recordings. And the mistakes it could make there are seen: waits of
# one stream for the other are left out, and the bytes must be wrong in some order.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh
# shellcheck source=tests/support/emulated.sh
. tests/support/emulated.sh

program=$BUILD/tests/mpi/device_streams
orders=(eager fifo random:1 random:2 random:3)
[[ ${SANITIZE:-0} != 1 ]] || orders=(fifo)

for order in "${orders[@]}"; do
    for what in frames weights uploads recordings; do
        for guard in 0 1; do
            code=0
            RINGREEL_EMULATION_STREAMS=$order RINGREEL_EMULATION_GUARD=$guard "$program" "$what" \
                >"$work/out" 2>"$work/err" || code=$?
            equal "$what, streams in order $order, guard $guard" '0 ' "$code $(cat "$work/out")"
        done
    done
done
has_line 'what cannot be recorded is told' "$work/err" '^ringreel: CUDA graphs are not used: a download$'

# The waits of one use of a relay are two: for the other stream to have emptied it (once it has been filled before), and
# to have filled it.
found() { # which wait is left out, case: in how many orders that shows
    local order count=0
    for order in fifo random:1 random:2 random:3 random:4; do
        RINGREEL_EMULATION_FAIL=no-wait:$1 RINGREEL_EMULATION_STREAMS=$order "$program" "$2" \
            >"$work/out" 2>"$work/err" || count=$((count + 1))
    done
    echo "$count"
}
noticed() { # name, wait, case
    local count
    count=$(found "$2" "$3")
    if ((count > 0)); then ok "$1 is noticed, in $count of 5 orders"; else not_ok "$1" 'in no order'; fi
}
# (That a frame waits for its relay to be emptied shows in none of them: a copy would have to lag by four frames.)
noticed 'a copy of a frame that does not wait for it' 8 frames
noticed 'a product that does not wait for its weights' 44 weights
noticed 'weights that do not wait for the product before' 47 weights

finish
