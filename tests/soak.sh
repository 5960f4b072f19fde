#!/usr/bin/env bash
# Clips too large for every run of the tests, rendered for real: `make soak`, or some of them: `make soak SOAK=large`.
#
#   large         3840x2176, 49 frames (two seconds), on 4 ranks and on 1
#   hd            1920x1088, 49 frames, on 4 ranks
#   ten-minutes   64x64, 14401 frames, on 4 ranks; and one minute, which must take the codec ranks as much memory
#
# One step without guidance. MODEL=FOLDER takes another model than models/tiny. Needs 8 GiB of memory.
# Says what each rank took in memory and time; docs/SPEED.md keeps figures. The exit code says whether all was right.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh
# shellcheck source=tests/support/soak.sh
. tests/support/soak.sh

export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 # threads that wait do not take time from whatever else runs here
layout=(--denoise-ranks 2 --codec-ranks 2)

large() {
    clip '3840x2176 on 4 ranks' 4 8192 3840 2176 49 "${layout[@]}"
    clip '3840x2176 on 1 rank' 0 8192 3840 2176 49
}

hd() { clip '1920x1088 on 4 ranks' 4 1536 1920 1088 49 "${layout[@]}"; }

codec_peak() { cut -d ' ' -f 1 "$peaks/2"; }

ten_minutes() {
    local minute
    clip 'a minute' 4 512 64 64 1441 "${layout[@]}"
    minute=$(codec_peak)
    clip 'ten minutes' 4 512 64 64 14401 "${layout[@]}"
    if (($(codec_peak) <= minute + 32)); then # the latents of the clip, and what the file's index takes
        ok 'ten minutes take a codec rank as much memory as one'
    else
        not_ok 'ten minutes take a codec rank as much memory as one' "$minute MiB and $(codec_peak) MiB"
    fi
}

for which in "${@:-large hd ten-minutes}"; do
    for name in $which; do
        case $name in
        large | hd) "$name" ;;
        ten-minutes) ten_minutes ;;
        *)
            echo "soak.sh: no '$name'; there are: large hd ten-minutes" >&2
            exit 2
            ;;
        esac
    done
done

finish
