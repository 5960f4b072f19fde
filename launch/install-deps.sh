#!/usr/bin/env bash
# Installs the Debian packages that ringreel is built and tested with, and only those that are missing.
# RINGREEL_NO_INSTALL=1: changes nothing (for machines whose compilers and libraries come from elsewhere).
set -euo pipefail

packages=(
    gcc g++ make pkg-config
    libopenmpi-dev openmpi-bin                                    # ranks
    libyaml-dev libjansson-dev                                    # job files, safetensors headers
    libsentencepiece-dev                                          # tokenizer
    libavcodec-dev libavformat-dev libavutil-dev libswscale-dev   # video files
    libcmocka-dev                                                 # tests
)

say() { printf 'install-deps: %s\n' "$*"; }

fail() {
    printf 'install-deps: error: %s\n' "$*" >&2
    exit 1
}

list_missing() {
    local package
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || printf '%s\n' "$package"
    done
}

# Sets `as_root` to what has to stand in front of a command that needs root.
find_root() {
    if ((EUID == 0)); then
        as_root=()
    elif command -v sudo >/dev/null; then
        as_root=(sudo)
        [[ -t 0 ]] || as_root+=(-n) # nobody is there to type a password: fail at once
    else
        fail "not root and there is no sudo; as root run: apt-get install --no-install-recommends $*"
    fi
}

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" # the lock: automatic upgrades after boot hold it
}

install_once() { apt update && apt install --no-install-recommends "$@"; }

main() {
    if [[ ${RINGREEL_NO_INSTALL:-0} == 1 ]]; then
        say 'RINGREEL_NO_INSTALL=1, nothing is installed'
        return
    fi
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        fail "this machine has no apt. Install what these Debian packages hold (${packages[*]})," \
             "then set RINGREEL_NO_INSTALL=1"
    fi
    local missing
    mapfile -t missing < <(list_missing)
    if ((${#missing[@]} == 0)); then
        say "all ${#packages[@]} packages are here"
        return
    fi
    local as_root
    find_root "${missing[@]}"
    say "installing ${missing[*]}"
    if ! install_once "${missing[@]}"; then
        say 'apt-get failed, trying once more' # mirrors are sometimes in the middle of an update
        sleep 5
        install_once "${missing[@]}" || fail "apt-get could not install ${missing[*]} (its messages are above)"
    fi
    mapfile -t missing < <(list_missing)
    ((${#missing[@]} == 0)) || fail "still missing after apt-get: ${missing[*]}"
    say 'done'
}

main
