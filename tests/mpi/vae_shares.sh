#!/usr/bin/env bash
# A clip decoded or encoded by several ranks, each a share of its rows or columns, is the same bytes as by one: three
# generations of the VAE, shares of one latent, uneven ones and none, chunks of 1, 2 and 5 latent frames and whole clips,
# some frames from the middle of one.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

shares() { # ranks, generations
    local ranks=$1
    shift
    RINGREEL=$BUILD/tests/mpi/vae_shares ringreel "$ranks" cpu "${@/%/.manifest.json}"
    equal "$ranks ranks: exit code" 0 "$code"
    equal "$ranks ranks: clips that are the same" $((48 * $#)) "$(grep -c "^same - " "$work/out" || true)"
    ((code == 0)) || grep -v '^same' "$work/out" "$work/err" | sed 's/^/#   /' | head -n 20
}

if [[ ${SANITIZE:-0} == 1 ]]; then # every rank is thirty times slower then
    shares 3 tests/parity/data/vae_095
    finish
    exit
fi
for ranks in 1 2 3 4 7; do
    shares "$ranks" tests/parity/data/vae_{090,091,095}
done
export RINGREEL_GUARD=1 # lines travel from and to memory that MPI cannot touch (kernels/ops.h)
shares 3 tests/parity/data/vae_{090,091,095}

finish
