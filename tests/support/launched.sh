# shellcheck shell=bash
# For shell tests that send signals to the ranks of a run in the background: `launcher` is mpirun's process id.

children_of() { cat /proc/"$1"/task/*/children; }

process_of_rank() {
    local child
    for child in $(children_of "$launcher"); do
        if grep -zqx "OMPI_COMM_WORLD_RANK=$1" "/proc/$child/environ"; then
            echo "$child"
            return
        fi
    done
    return 1
}

# Those of the processes that still run. Zombies have ended; whose parent mpirun was waits for process 1 to look.
running() {
    local process
    for process in "$@"; do
        ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$process/status" || printf '%s ' "$process"
    done
}

# Waits for a condition; false when the run ends before.
wait_until() { # command
    until "$@"; do
        kill -0 "$launcher" 2>/dev/null || return 1
        sleep 0.01
    done
}

# Sends a signal and waits; sets code, seconds, and `left`, the ranks that are still there afterwards.
signal_and_wait() { # signal, process
    local ranks begun=$EPOCHREALTIME
    ranks=$(children_of "$launcher")
    code=0
    kill -s "$1" "$2"
    wait "$launcher" || code=$?
    seconds=$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    # shellcheck disable=SC2086 # a list of numbers
    left=$(running $ranks)
}
