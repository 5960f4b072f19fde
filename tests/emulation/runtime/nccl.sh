#!/usr/bin/env bash
# NCCL over MPI: 1, 2 and 4 ranks, three orders of the streams, device memory guarded; calls that do not match, calls
# that never complete.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

# Goes to `code`, $work/out and $work/err.
ranks() { # ranks, words
    RINGREEL=$BUILD/tests/emulation/runtime/ranks_nccl ringreel "$@"
}

good() { # ranks, cases
    local case name
    ranks "$@"
    for case in "${@:2}"; do
        name="$1 ranks: $case ${RINGREEL_EMULATION_STREAMS:-}"
        if ((code == 0)) && grep -q "^good $case\$" "$work/out"; then
            ok "$name"
        else
            not_ok "$name" "exit code $code"$'\n'"$(tail -n 20 "$work/err")"
        fi
    done
}

ends() { # ranks, regular expression for stderr, words
    local n=$1 pattern=$2
    shift 2
    ranks "$n" "$@"
    if ((code == 0)); then
        not_ok "$n ranks: $* ends the job" "exit code 0"
    else
        has_line "$n ranks: $* ends the job" "$work/err" "$pattern"
    fi
}

export RINGREEL_EMULATION_GUARD=1
sizes=(1 2 4) orders=(eager fifo random:1)
[[ ${SANITIZE:-0} == 0 ]] || sizes=(2) orders=(fifo)
for n in "${sizes[@]}"; do
    for order in "${orders[@]}"; do
        [[ $n != 1 || $order == fifo ]] || continue
        export RINGREEL_EMULATION_STREAMS=$order
        good "$n" ring collectives streams graph host_goes_on
    done
    unset RINGREEL_EMULATION_STREAMS
    good "$n" refused starting not_blocking one_device own_hosts
done
RINGREEL_EMULATION_BUS_RANK1=0 good 2 one_place

both='rank [0-9] does nccl.*; rank [0-9] does nccl'
ends 2 "$both" mismatch-count
ends 2 "$both" mismatch-type
ends 2 "$both" mismatch-reduction
ends 2 "$both" mismatch-root
ends 2 "$both" mismatch-kind

export RINGREEL_EMULATION_STALL=2
ends 2 'ncclSend, then' sends_first
RINGREEL_EMULATION_FAIL=nccl:2 good 2 error
RINGREEL_EMULATION_FAIL=nccl-hang:2 good 2 hang

finish
