#!/usr/bin/env bash
# Runs every test program and every shell test, prints a line for each, and ends with "N passed, N failed" (cases).
# Called by `make check`, from the repository root, with BUILD, RINGREEL, SANITIZE and EMULATION set (1: the tests of CUDA
# kernels on the emulator, and of the emulated libraries, were built). Arguments choose tests whose name contains one of them:
# BUILD=build RINGREEL=./ringreel tests/run.sh mpi/rank_dies
#
# Every test speaks TAP: "ok - name" or "not ok - name". Logs: $BUILD/test-logs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export BUILD=${BUILD:-build} RINGREEL=${RINGREEL:-./ringreel} SANITIZE=${SANITIZE:-0}
limit_s=600
logs=$BUILD/test-logs
passed=0 failed=0 skipped=0 child='' broken=()

if [[ $SANITIZE == 1 ]]; then
    # With the fast unwinder the call stacks of leaks inside the MPI library end too early for the suppressions.
    export ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0:detect_stack_use_after_return=1:strict_string_checks=1
    export LSAN_OPTIONS=suppressions=$PWD/tests/support/lsan.supp:print_suppressions=0
    export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
    # Their dlopen does not look where the library that calls it says: it would find NVIDIA's NCCL, not the emulated one.
    export LD_LIBRARY_PATH=$PWD/$BUILD/emulation/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
export CMOCKA_MESSAGE_OUTPUT=TAP
export RINGREEL_CUDA_LIBRARY= # these tests are for the CPU; emulation/program has a device of its own
export NCCL_MAX_CTAS=1 # emulated devices are small: room for what NCCL takes otherwise would be planned in vain
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 # threads that wait do not take time from whatever else runs here

stop() {
    [[ -z $child ]] || kill "$child" 2>/dev/null || true
    exit 130
}
trap stop INT TERM

chosen() { # name, patterns
    local name=$1 pattern
    shift
    (($# > 0)) || return 0
    for pattern in "$@"; do
        [[ $name != *"$pattern"* ]] || return 0
    done
    return 1
}

count() { grep -Ec "$1" "$2" || true; }

# One test program: the word "ok" needs exit code 0, at least one case, and no failed case.
run_one() {
    local name=$1 log status=0 start=$EPOCHREALTIME good bad left_out verdict
    shift
    log=$logs/${name//\//-}.log
    timeout --kill-after=20 "$limit_s" "$@" >"$log" 2>&1 </dev/null &
    child=$!
    wait "$child" || status=$?
    child=''
    left_out=$(count '^(not )?ok .*# (SKIP|skip)' "$log") # "not ok" is what cmocka 1.1.5 says
    good=$(($(count '^ok ' "$log") - $(count '^ok .*# (SKIP|skip)' "$log")))
    bad=$(($(count '^not ok ' "$log") - $(count '^not ok .*# SKIP' "$log")))
    if ((status == 124)); then
        echo "not ok - ended after $limit_s s" >>"$log"
        bad=$((bad + 1))
    elif ((status != 0 && bad == 0)) || ((good + bad + left_out == 0)); then # died between cases, or had none
        echo "not ok - exit code $status after $good cases" >>"$log"
        bad=$((bad + 1))
    fi
    passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + left_out))
    verdict=ok
    if ((bad > 0)); then
        verdict=FAILED
        broken+=("$name")
    fi
    printf '%-36s %4d cases %7.1f s  %s\n' "$name" $((good + bad)) \
        "$(awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')" "$verdict"
}

main() {
    local source name
    mkdir -p "$logs"
    if [[ $SANITIZE == 1 ]] && ! grep -q __asan_init "$RINGREEL"; then
        echo "SANITIZE=1, but $RINGREEL was built without the sanitizers"
        exit 1
    fi
    shopt -s nullglob
    for source in tests/unit/test_*.c tests/parity/test_*.c tests/semantic/test_*.c tests/mpi/*.sh tests/bad/*.sh; do
        name=${source#tests/} name=${name%.*}
        chosen "$name" "$@" || continue
        case $source in
        *.c) run_one "$name" "$BUILD/tests/$name" ;;
        *.sh) run_one "$name" "$source" ;;
        esac
    done
    for source in tests/emulation/{test_*.cu,*.sh} tests/emulation/runtime/{test_*.cpp,*.sh}; do
        name=${source#tests/} name=${name%.*}
        chosen "$name" "$@" || continue
        if [[ ${EMULATION:-1} == 0 ]]; then
            echo 'emulation/*                         skipped: no CUDA headers (make CUDA_HOME=... says where they are)'
            skipped=$((skipped + 1))
            break
        fi
        case $source in
        *.sh) run_one "$name" "$source" ;;
        *) run_one "$name" "$BUILD/tests/$name" ;;
        esac
    done
    for name in "${broken[@]}"; do
        printf '\n---- %s\n' "$name"
        cat "$logs/${name//\//-}.log"
    done
    ((passed + failed > 0)) || echo 'no test was run'
    ((skipped == 0)) || printf '\n%d skipped\n' "$skipped"
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0 && passed > 0))
}

main "$@"
