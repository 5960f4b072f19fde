#!/usr/bin/env bash
# A large picture and a long clip, small siblings of what `make soak` renders.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh
# shellcheck source=tests/support/soak.sh
. tests/support/soak.sh

if [[ ${SANITIZE:-0} == 1 ]]; then
    skip 'a large picture and a long clip' 'thirty times slower with the sanitizers, and their memory is not ours'
    exit
fi
clip 'a large picture' 4 1536 1920 1088 9 --denoise-ranks 2 --codec-ranks 2
clip 'ten minutes' 3 512 32 32 14401

finish
