#!/usr/bin/env bash
# A clip decoded or encoded by several ranks, each a share of its rows or columns, is the same bytes as by one: three
# generations of the VAE, shares of one latent and uneven ones, several chunk sizes.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

shares() { # ranks, generation
    RINGREEL=$BUILD/tests/mpi/vae_shares ringreel "$1" "tests/parity/data/$2.manifest.json"
    equal "$2 on $1 ranks: exit code" 0 "$code"
    equal "$2 on $1 ranks: clips that are the same" 8 "$(grep -c "^same - " "$work/out" || true)"
    ((code == 0)) || sed 's/^/#   /' "$work/out" "$work/err" | head -n 20
}

if [[ ${SANITIZE:-0} == 1 ]]; then # every rank is thirty times slower then
    shares 3 vae_095
    finish
    exit
fi
for generation in vae_090 vae_091 vae_095; do
    for ranks in 1 2 3 4 7; do
        shares "$ranks" "$generation"
    done
done

finish
