#!/usr/bin/env bash
# `make gpu-check`: what a machine with a GPU says of the CUDA backend, in at most eight minutes. Every kernel and op
# against the CPU, renders end to end, then timings beside the device's own ceilings and PyTorch. A section that fails
# or takes too long stops no other. Ends with one table, also in out/gpu-check/table.txt and, for docs/SPEED.md, in
# rows.md; exit code 1 if a check failed, 2 if nothing could be run.
#
# Where the libraries that ringreel is built with are missing, it takes the programs of `make gpu-bundle` from
# out/gpu-bundle.tar.* or GPU_BUNDLE=FILE (docs/GPU.md).
#
#   GPU_CHECK_OUT=FOLDER    in place of out/gpu-check
#   GPU_CHECK_SECONDS=480   all of it together; GPU_CHECK_LIMIT=N: and each program of a section, at most
#   GPU_CHECK_ONLY='a b'    only these sections: kernels ops tiny nccl ceilings linear attention conv rows step vae
#                           render step13b torch
#   GPU_CHECK_REHEARSAL=1   no GPU: RINGREEL_CUDA_LIBRARY is an emulated one; sizes are tiny and nothing is a speed
#   GPU_CHECK_TESTS='…'     the kernels' test programs, in place of those that are built here or packed
#   GPU_CHECK_ARCH=90a      what to compile for, in place of what the card says
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
. launch/gpu-sections.sh

export BUILD=${BUILD:-build} CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
rehearsal=${GPU_CHECK_REHEARSAL:-0}
results=${GPU_CHECK_OUT:-out/gpu-check}
deadline=$((SECONDS + ${GPU_CHECK_SECONDS:-480}))
unpacked=build-gpu-bundle
sizes=()
[[ $rehearsal == 0 ]] || sizes=(--small)

# ---- what is here --------------------------------------------------------------------------------------------------

stop() {
    printf 'gpu-check: %s\n' "$*" >&2
    exit 2
}

has_gpu() {
    [[ $rehearsal == 1 || -e /dev/nvidia0 || -e /dev/dxg ]] || nvidia-smi -L >/dev/null 2>&1
}

# nvidia-smi's word, or nothing.
gpu_says() { nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null | sed -n '1p'; }

# What CUDA_ARCHS takes for this device; nothing if it cannot be told.
find_arch() {
    local capability=${GPU_CHECK_ARCH:-}
    [[ -n $capability ]] || capability=$(gpu_says compute_cap | tr -d .)
    [[ -n $capability ]] || capability=$("$CUDA_HOME/bin/__nvcc_device_query" 2>/dev/null | sed 's/[^0-9].*//')
    [[ $capability != 90 ]] || capability=90a
    printf '%s' "$capability"
}

# The toolkit in PATH where CUDA_HOME has none; its libraries, and last those that Python's packages bring.
find_cuda() {
    local compiler folder packaged
    compiler=$(command -v nvcc)
    [[ -x $CUDA_HOME/bin/nvcc || -z $compiler ]] || CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$compiler")")")
    packaged=$(python3 -c 'import glob, nvidia
print(*(f for p in nvidia.__path__ for f in sorted(glob.glob(p + "/*/lib"))))' 2>/dev/null)
    for folder in "$CUDA_HOME"/{lib64,lib,targets/x86_64-linux/lib} $packaged; do
        [[ ! -d $folder ]] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
    done
}

cuda_major() { "$CUDA_HOME/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\).*/\1/p'; }

find_bundle() {
    local file
    for file in "${GPU_BUNDLE:-}" out/gpu-bundle.tar.xz out/gpu-bundle.tar.gz out/gpu-bundle.tar; do
        [[ -z $file || ! -f $file ]] || { printf '%s' "$file" && return; }
    done
}

can_build() { pkg-config --exists ompi-c yaml-0.1 jansson libavformat libavcodec libavutil libswscale 2>/dev/null; }

# ---- programs ------------------------------------------------------------------------------------------------------

make_here() { # time limit, targets
    local limit=$1
    shift
    limited "$limit" make -j"$(nproc)" CUDA=1 CUDA_HOME="$CUDA_HOME" ${archs:+CUDA_ARCHS="$archs"} "$@" \
        >"$results/build.log" 2>&1
}

unpack() { # file
    rm -rf "$unpacked"
    mkdir -p "$unpacked"
    case $1 in
    *.xz) xz -dc "$1" 2>/dev/null || python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1" ;;
    *.gz) gzip -dc "$1" ;;
    *) cat "$1" ;;
    esac | tar -x -C "$unpacked"
}

stamp() { sed -n "s/^$1 //p" "$unpacked/stamp"; }

# The packed programs, with CUDA's part made anew where this machine has other libraries or another card.
use_bundle() { # file
    local line
    say "unpacking $1"
    unpack "$1" || stop "$1 cannot be unpacked (needs xz or python3, and tar)"
    bin=$unpacked/bin cuda_tests=("$unpacked"/tests/test_*)
    export PATH=$PWD/$unpacked/bin:$PATH
    ldconfig -p 2>/dev/null | grep 'libgomp\.so\.1 ' >/dev/null ||
        ln -sf ../spare/libgomp.so.1 "$unpacked/lib/libgomp.so.1"
    if ! line=$("$bin/ringreel" --version 2>&1); then
        stop "the packed programs do not start here (they were built with glibc $(stamp glibc)): ${line%%$'\n'*}"
    fi
    fact 'programs' "packed $(stamp made), $(stamp commit)"
    launch/gpu-bundle.sh --digest core | grep -qx "$(stamp core)" ||
        fact 'warning' 'the bundle was made from other sources of the core than those here'
    if [[ $(stamp cuda_major) == "$(cuda_major)" && " $(stamp archs) " == *" $arch "* ]] &&
        launch/gpu-bundle.sh --digest cuda | grep -qx "$(stamp cuda)"; then
        return
    fi
    say "compiling the CUDA sources for sm_$arch, CUDA $(cuda_major)"
    if make_here 240 libringreel_cuda.so gpu-tests; then
        cp libringreel_cuda.so "$unpacked/libexec/"
        mapfile -t cuda_tests < <(launch/gpu-bundle.sh --tests)
        fact 'CUDA sources' "compiled here for sm_$arch"
    else
        check 'CUDA sources compile' failed "see $results/build.log"
    fi
}

prepare() {
    local bundle
    arch=$(find_arch)
    archs=$(cat "$BUILD/cuda/archs" 2>/dev/null) # what was compiled before will do, if it has this device's
    [[ " $archs " == *" $arch "* ]] || archs=$arch
    bundle=$(find_bundle)
    if [[ $rehearsal == 1 && -z ${GPU_BUNDLE:-} ]]; then
        bin=$BUILD/tests/gpu
    elif can_build && [[ -z ${GPU_BUNDLE:-} ]]; then
        say "building for sm_$arch"
        make_here 300 gpu-programs || stop "the build failed: $(tail -n 1 "$results/build.log") ($results/build.log)"
        bin=$BUILD/tests/gpu
        mapfile -t cuda_tests < <(launch/gpu-bundle.sh --tests)
        fact 'programs' "built here, $(git describe --always --dirty 2>/dev/null)"
    elif [[ -n $bundle ]]; then
        use_bundle "$bundle"
    else
        stop 'the libraries to build with are missing (launch/install-deps.sh installs them), and so is' \
            "out/gpu-bundle.tar.xz: run 'make gpu-bundle' where they are, and bring the file (git ignores out/)," \
            'or set GPU_BUNDLE'
    fi
    [[ -z ${GPU_CHECK_TESTS+set} ]] || read -ra cuda_tests <<<"$GPU_CHECK_TESTS"
    [[ -z $bundle || ! -x $bin/ringreel ]] || export RINGREEL=$PWD/$bin/ringreel
    export RINGREEL=${RINGREEL:-$PWD/ringreel}
}

device_facts() {
    local isa emulated=''
    [[ $rehearsal == 0 ]] || emulated=' (emulated: nothing below is a speed)'
    isa=$(limited 60 "$bin/bench_gpu" "${sizes[@]}" device 2>"$results/device.log") ||
        stop "no device: $(tail -n 1 "$results/device.log")"
    fact 'device' "$(gpu_says name) ${isa##*$'\t'}$emulated"
    [[ -z $(gpu_says name) ]] || fact 'memory, driver' "$(gpu_says memory.total) MiB, $(gpu_says driver_version)"
    fact 'CUDA' "$("$CUDA_HOME/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\), \(.*\)/\1 (\2)/p')"
    fact 'processors' "$(nproc), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | sed -n 1p)"
    fact 'date' "$(date -u '+%Y-%m-%d %H:%M UTC')"
}

main() {
    has_gpu || stop 'no GPU here (no /dev/nvidia0, and nvidia-smi lists none): nothing was run'
    rm -rf "$results"
    mkdir -p "$results"
    : >"$results/results.tsv"
    work=$(mktemp -d "$(roomy_folder)/gpu-check.XXXXXX") || stop 'no room for temporary files'
    trap 'rm -rf "$work"' EXIT
    ((EUID != 0)) || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    system_libraries=${LD_LIBRARY_PATH:-}
    [[ $rehearsal == 1 ]] || find_cuda
    prepare
    device_facts
    local section
    for section in kernels ops tiny nccl ceilings linear attention conv rows step vae render step13b torch; do
        [[ -z ${GPU_CHECK_ONLY:-} || " $GPU_CHECK_ONLY " == *" $section "* ]] || continue
        say "$section ($((deadline - SECONDS)) s left)"
        "section_$section"
    done
    say 'done'
    awk -f launch/gpu-table.awk tests/gpu/targets.tsv "$results/results.tsv" >"$results/table.txt"
    awk -v markdown=1 -f launch/gpu-table.awk tests/gpu/targets.tsv "$results/results.tsv" >"$results/rows.md"
    cat "$results/table.txt"
    ! grep -q $'^check\t[^\t]*\tfailed' "$results/results.tsv"
}

main
