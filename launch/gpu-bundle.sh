#!/usr/bin/env bash
# `make gpu-bundle`: the programs of gpu-check.sh with all shared libraries they need, for machines that have a GPU and
# the CUDA toolkit but neither MPI nor FFmpeg nor a way to fetch them: out/gpu-bundle.tar.xz, which a checkout of this
# repository takes beside itself. Not packed: the C library and the compiler's (the other machine's must be as new), the
# NVIDIA driver and the CUDA toolkit.
#
#   gpu-bundle.sh --digest core|cuda    of the sources that a part is made of
#   gpu-bundle.sh --tests               those of the kernels that nvcc has compiled
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD=${BUILD:-build} CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
most_bytes=60000000
archive=out/gpu-bundle.tar.xz

fail() {
    printf 'gpu-bundle: error: %s\n' "$*" >&2
    exit 1
}

digest() { # core or cuda
    local folders=(src kernels/*.[ch] kernels/cpu tests/gpu tests/support)
    [[ $1 == core ]] || folders=(src/base kernels tests/emulation/*.cu tests/emulation/*.h)
    find "${folders[@]}" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

built_tests() { find "$BUILD/cuda/tests/emulation" -name 'test_*' -type f -perm -u+x | sort; }

mpi_folder() { ompi_info --path "$1" --parsable | sed -n "1s/^path:$1://p"; }

# What a machine with a compiler has, and what comes with the GPU.
belongs_to_machine() {
    case $1 in
    ld-linux* | libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libutil.so.* | libresolv.so.* | \
        libanl.so.* | libstdc++.so.* | libgcc_s.so.* | libcuda.so.* | libcudart.so.* | \
        libcublas*.so.* | libnccl.so.* | libnvidia-*) return 0 ;;
    esac
    return 1
}

# Large ones that libavcodec wants to be there, for formats that no check uses (ICU's data: for alphabets): in place of
# each a library of the same name whose every function returns 0.
is_stubbed() {
    case $1 in
    libaom.so.* | libcodec2.so.* | libicudata.so.* | libopenmpt.so.* | librav1e.so.* | librsvg-2.so.* | \
        libSvtAv1Enc.so.* | libvpx.so.* | libx265.so.*) return 0 ;;
    esac
    return 1
}

# Copies every library that files need, and that those need; one that is not found ends it.
pack_libraries() { # folder, files
    local folder=$1 file name todo paths
    shift
    paths=$(ldd "$@" 2>/dev/null | awk '/=>/ { print $1, $3 }' | sort -u)
    todo=("$@")
    while ((${#todo[@]} > 0)); do
        file=${todo[0]} todo=("${todo[@]:1}")
        while read -r name; do
            if belongs_to_machine "$name" || is_stubbed "$name" || [[ -e $folder/$name ]]; then continue; fi
            cp -L "$(awk -v name="$name" '$1 == name { print $2; exit }' <<<"$paths")" "$folder/$name" || fail "no $name"
            todo+=("$folder/$name")
        done < <(objdump -p "$file" | awk '$1 == "NEEDED" { print $2 }')
    done
    while read -r name file; do
        ! is_stubbed "$name" || write_stub "$folder" "$name" "$file"
    done <<<"$paths"
}

write_stub() { # folder, name, the library itself
    comm -12 <(nm -D --defined-only --format=posix "$3" | sed 's/[@ ].*//' | sort -u) \
        <(nm -D --undefined-only --format=posix "$1"/*.so* | sed 's/[@ ].*//' | sort -u) |
        awk 'BEGIN { print ".text" } { printf ".globl %s\n%s:\n", $1, $1 }
            END { print "xor %eax, %eax\nret\n.section .note.GNU-stack,\"\",@progbits" }' |
        gcc -shared -nostdlib -Wl,-soname,"$2" -x assembler -o "$1/$2" -
}

# Components of MPI whose libraries are packed already: those for networks need many more.
pack_components() { # folder, packed libraries
    local component needs
    for component in "$components_from"/*.so; do
        needs=$(ldd "$component" | awk '/=>/ { print $1 }' | while read -r name; do
            belongs_to_machine "$name" || [[ -e $2/$name ]] || echo "$name"
        done)
        [[ -n $needs ]] || cp "$component" "$1"
    done
    [[ -e $1/mca_pml_ob1.so && -e $1/mca_btl_vader.so ]] ||
        fail "MPI's components are not where ompi_info says, $components_from"
}

# Starts a program with the libraries beside it; those that LD_LIBRARY_PATH names come after.
write_wrapper() { # file
    cat >"$1" <<'WRAPPER'
#!/bin/sh
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
export LD_LIBRARY_PATH="$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export OPAL_PREFIX="$root" OPAL_BINDIR="$root/bin" OPAL_LIBDIR="$root/lib" OPAL_PKGLIBDIR="$root/lib/openmpi"
export OPAL_PKGDATADIR="$root/share/openmpi" OPAL_SYSCONFDIR="$root/share/openmpi"
export OMPI_MCA_mca_base_component_path="$root/lib/openmpi" OMPI_MCA_plm=isolated
# Whatever the machine has of its own for these is of another version.
export PMIX_MCA_mca_base_component_disable_dlopen=1 HWLOC_PLUGINS_PATH="$root/lib/hwloc"
exec "$root/libexec/$(basename "$0")" "$@"
WRAPPER
    chmod +x "$1"
}

main() {
    local stage extra file version bytes
    local programs=(ringreel "$BUILD"/tests/gpu/{bench_gpu,check_ops,random_checkpoint})
    local tests
    mapfile -t tests < <(built_tests)
    command -v mpirun ompi_info >/dev/null || fail 'mpirun and ompi_info are needed here'
    components_from=$(mpi_folder pkglibdir)
    stage=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$stage'" EXIT
    mkdir -p "$stage"/{bin,lib/{openmpi,hwloc},libexec,spare,share,tests}

    cp "${programs[@]}" libringreel_cuda.so "$stage/libexec"
    cp "$(readlink -f "$(command -v mpirun)")" "$stage/libexec/mpirun"
    cp "${tests[@]}" "$stage/tests"
    cp -rL "$(mpi_folder pkgdatadir)" "$stage/share/openmpi"
    cp -L /etc/openmpi/openmpi-mca-params.conf "$stage/share/openmpi" 2>/dev/null || true
    extra=$(find "$components_from" -name 'mca_pmix_ext*.so') # how ranks find each other; has libraries of its own
    # shellcheck disable=SC2086 # none, or one word
    pack_libraries "$stage/lib" "$stage"/libexec/* $extra
    mv "$stage"/lib/libgomp.so.1 "$stage/spare" # the compiler's: only where there is none
    pack_components "$stage/lib/openmpi" "$stage/lib"
    strip --strip-unneeded "$stage"/{lib,lib/openmpi,libexec,tests}/* 2>/dev/null || true
    for file in "$stage"/libexec/*; do
        [[ $file == *.so ]] || write_wrapper "$stage/bin/$(basename "$file")"
    done

    version=$("$CUDA_HOME/bin/nvcc" --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
    cat >"$stage/stamp" <<STAMP
made $(date -u '+%Y-%m-%d %H:%M UTC')
commit $(git describe --always --dirty 2>/dev/null || echo unknown)
glibc $(ldd --version | sed -n '1s/.* //p')
cuda_major $version
archs $(cat "$BUILD/cuda/archs")
core $(digest core)
cuda $(digest cuda)
STAMP
    mkdir -p "$(dirname "$archive")"
    tar -c --owner=0 --group=0 -C "$stage" . | xz -T0 --lzma2=preset=6,dict=64MiB >"$archive.part-$$"
    mv "$archive.part-$$" "$archive"
    bytes=$(stat -c %s "$archive")
    printf '%s: %d bytes, %d libraries, %d components of MPI, %d tests of kernels\n' "$archive" "$bytes" \
        "$(find "$stage/lib" -maxdepth 1 -type f | wc -l)" "$(find "$stage/lib/openmpi" -type f | wc -l)" "${#tests[@]}"
    ((bytes <= most_bytes)) || fail "that is more than $most_bytes bytes; fewer CUDA_ARCHS make it smaller"
}

case ${1:-} in
--digest) digest "$2" ;;
--tests) built_tests ;;
*) main ;;
esac
