#!/usr/bin/env bash
# A C program that was linked with NVIDIA's libraries (where they are installed) runs on the emulated ones; what is
# wrong with it is found.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

plain() { # ranks, words
    LD_LIBRARY_PATH=$PWD/$BUILD/emulation/lib RINGREEL=$BUILD/tests/emulation/runtime/plain ringreel "$@"
}
count() { grep -c "$1" "$work/out" || true; }

export RINGREEL_EMULATION_GUARD=1
for n in 1 2 4; do
    for order in eager fifo random:1; do
        export RINGREEL_EMULATION_STREAMS=$order
        plain "$n" ordered
        equal "$n ranks, $order: exit code" 0 "$code"
        equal "$n ranks, $order: right products" "$n" "$(count '^good$')"
        ((code == 0)) || sed 's/^/#   /' "$work/err"
    done
done

export RINGREEL_EMULATION_STREAMS=eager
plain 2 unordered
equal 'a missing event passes in the eager order' 2 "$(count '^good$')"
export RINGREEL_EMULATION_STREAMS=fifo
plain 2 unordered
equal 'a missing event is found in the fifo order' 2 "$(count '^wrong$')"
plain 1 unguarded
has_line 'the host reading device memory is found' "$work/err" 'the host touched device memory'
RINGREEL_EMULATION_GUARD=0 plain 1 unguarded
equal 'without the guard it passes' 0 "$code"

finish
