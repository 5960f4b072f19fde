# shellcheck shell=bash
# For the shell tests of the CUDA backend on the emulated device (tests/emulation); sourced after cases.sh.

export RINGREEL_CUDA_LIBRARY=$PWD/$BUILD/emulation/libringreel_cuda.so
export OMP_NUM_THREADS=1 RINGREEL_EMULATION_DEVICES=1

# With the sanitizers the emulator is twenty times slower. More than half of that are stack frames that are kept after
# their return, of every thread of a kernel, and the call stack of every malloc, for the search for leaks. The kernels' own
# tests do the former; runs with ASAN_OPTIONS=$thorough do both.
thorough=${ASAN_OPTIONS:-}
export ASAN_OPTIONS=$thorough:detect_leaks=0:fast_unwind_on_malloc=1:detect_stack_use_after_return=0

# Renders $job, "${size[@]}" of it, to $work/cuda.mkv: the digest of its only shot.
size=()
render_cuda() { # ranks, words
    local ranks=$1
    shift
    ringreel "$ranks" render "$job" "${size[@]}" --backend cuda --digest -o "$work/cuda.mkv" --encoder ffv1 "$@"
    sed -n 's/^digest shot 1 //p' "$work/out"
    ((code == 0)) || echo "exit code $code of $ranks $* $RANDOM" # equal to nothing
}
