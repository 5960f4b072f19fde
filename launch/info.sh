#!/usr/bin/env bash
# What `make info` shows: the compiler, the libraries, MPI, CUDA, and what the program finds on this machine.
# CUDA_HOME is empty where the build does without the CUDA compiler.
set -euo pipefail

program=${1:-./ringreel}

row() { printf '%-18s %s\n' "$1" "$2"; }

# The first line a command prints, or "not found".
first_line() { { "$@" 2>/dev/null || true; } | sed -n '1{p;q;}'; }

library() {
    local version
    version=$(first_line pkg-config --modversion "$2")
    row "$1" "${version:-not found}"
}

# For libraries without a pkg-config file.
debian_library() {
    local version
    # shellcheck disable=SC2016 # the braces are dpkg-query's
    version=$(first_line dpkg-query -W -f '${Version}\n' "$2")
    row "$1" "${version:-not known (no Debian package $2)}"
}

compiler=$(first_line "${CC:-gcc}" --version)
launcher=$(first_line mpirun --version)
row 'C compiler' "${compiler:-not found}"
row 'MPI' "${launcher:-not found}"
library 'MPI library' ompi-c
library libyaml yaml-0.1
library jansson jansson
library sentencepiece sentencepiece
for name in libavcodec libavformat libavutil libswscale; do
    library "$name" "$name"
done
library cmocka cmocka
if [[ -n ${CUDA_HOME:-} ]]; then
    release=$("$CUDA_HOME/bin/nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    row 'CUDA' "${release:-version unknown} in $CUDA_HOME, for compute capabilities ${CUDA_ARCHS:-?}"
    nccl='no nccl.h: messages between GPUs go through the host'
    for header in "$CUDA_HOME/include/nccl.h" /usr/include/nccl.h; do
        [[ ! -e $header ]] || nccl=$(awk '/define NCCL_(MAJOR|MINOR|PATCH)/ { v = v (v ? "." : "") $3 } END { print v }' "$header")
    done
    row 'NCCL' "$nccl"
else
    row 'CUDA' 'not found, or not wanted (CUDA=auto, CUDA_HOME)'
fi
row 'processors' "$(nproc)"
echo
"$program" info
