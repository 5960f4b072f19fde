#!/usr/bin/env bash
# The VAE on the emulated device, its clips in bf16: a clip decoded or encoded by several ranks, each a share of its rows
# or columns, in chunks of several sizes, is the same bytes as by one, and close to what the CPU makes of it in fp32. Small
# models with shortcuts, whose channels are no whole vectors, and a released structure with noise between the layers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tests/support/cases.sh
. tests/support/emulated.sh

RINGREEL=$BUILD/tests/mpi/vae_shares

shares() { # ranks (0: without mpirun), clips compared with the CPU's, clips compared with the whole, models
    local ranks=$1 close=$2 same=$3
    shift 3
    ringreel "$ranks" cuda "${@/%/.manifest.json}"
    equal "$ranks ranks: exit code" 0 "$code"
    equal "$ranks ranks: clips that are close to the CPU's" "$close" "$(grep -c '^close - ' "$work/out" || true)"
    equal "$ranks ranks: clips that are the same" "$same" "$(grep -c '^same - ' "$work/out" || true)"
    sed -n 's/^close/# close/p' "$work/out"
    ((code == 0)) || grep -hv '^same' "$work/out" "$work/err" | sed 's/^/#   /' | head -n 20
}

# Lines of 45 values in the encoder, which end in the middle of a float.
sed -E '/vae\.encoder\./{s/\[4([],])/[5\1/; s/, 4, 3/, 5, 3/; s/\[12([],])/[15\1/; s/, 12, 3/, 15, 3/}' \
    tests/parity/data/vae_constant.manifest.json >"$work/odd.manifest.json"

shares 3 2 12 "$work/odd"
shares 0 2 12 tests/parity/data/vae_per_channel # in chunks alone
[[ ${SANITIZE:-0} == 1 ]] || shares 0 1 2 tests/parity/data/vae_091 # the emulator is twenty times slower then

finish
