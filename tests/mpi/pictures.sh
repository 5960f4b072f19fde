#!/usr/bin/env bash
# Files are the same to the byte on any number of ranks, threads and encoders; pictures of a sequence are written by all
# codec ranks, and what one of them cannot write ends all with one line.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
write_job "$job"

digest() { grep '^digest ' "$work/out"; }
sums() { (cd "$1" && sha256sum ./*.png); } # names and bytes

# A sequence: name, numbers of ranks, flags. One process is what the others are compared with.
sequence() {
    local name=$1 counts=$2 wanted frames ranks codec
    shift 2
    ringreel 0 render "$job" --digest --quiet -o "$work/0/%06d.png" --threads 1 "$@"
    wanted=$(digest) frames=$(sums "$work/0")
    equal "$name: exit code" 0 "$code"
    for ranks in $counts; do
        codec=$(((ranks + 1) / 2))
        ringreel "$ranks" render "$job" --digest --quiet --codec-ranks $codec -o "$work/$ranks/%06d.png" "$@"
        equal "$name, $codec codec ranks: digest" "0 $wanted" "$code $(digest)"
        equal "$name, $codec codec ranks: files" "$frames" "$(sums "$work/$ranks")"
        rm -r "${work:?}/$ranks"
    done
}

sequence '8 bits' '2 3 5'
equal '8 bits: all frames' 17 "$(find "$work/0" -name '0000*.png' | wc -l)"
sequence_digest=$(digest)
ringreel 3 render "$job" --digest --quiet --codec-ranks 2 -o "$work/whole.mkv" --encoder ffv1
equal 'a video has the same digest' "$sequence_digest" "$(digest)"
ringreel 0 compare "$work/0/%06d.png" "$work/whole.mkv"
equal 'a video has the same frames' 0 "$code"
rm -r "$work/0"

# Padded and cut, so that parts and pictures begin inside latents.
sequence '16 bits, frames 3 to 11' '3 5' --bit-depth 16 --frames 3-11 --width 150 --height 90
equal 'frames keep their numbers' "$(printf '%06d.png ' 3 4 5 6 7 8 9 10 11)" "$(cd "$work/0" && printf '%s ' *.png)"
has_line 'the sidecar counts what is written' <(tr -d ' \n' <"$work/0/_06d.png.json") '"shape":\[9,90,150,3\]'
rm -r "$work/0"

# Two frames for four ranks.
sequence 'two frames' 7 --frames 15-16
rm -r "$work/0"

# A video: what is in the file is not the machine's business.
video() { # name, file's ending, flags
    local name=$1 file=$work/video$2 wanted
    shift 2
    ringreel 0 render "$job" --quiet -o "$file" --threads 1 "$@"
    wanted="0 $(sha256sum <"$file")"
    ringreel 0 render "$job" --quiet -o "$file" --threads 7 "$@"
    equal "$name, 7 threads" "$wanted" "$code $(sha256sum <"$file")"
    ringreel 5 render "$job" --quiet -o "$file" --codec-ranks 3 --parallel-encoders 3 "$@"
    equal "$name, 5 ranks, 3 encoders" "$wanted" "$code $(sha256sum <"$file")"
}
video 'H.264' .mp4
video 'H.264 of 10 bits in segments' .mp4 --bit-depth 10 --segment-frames 4 --color-primaries bt2020 --color-transfer pq

# ---- errors ----------------------------------------------------------------------------------------------------------

: >"$work/file"
refused 'pictures below a file' 5 "$work/file/00000[0-4].png: $work/file is not a folder" render "$job" --codec-ranks 3 \
    -o "$work/file/%06d.png"
refused '16 bits of H.264' 3 "$work/videos/a.mp4: encoder libx264 cannot do bit_depth 16" render "$job" --bit-depth 16 \
    -o "$work/videos/a.mp4"
refused 'a frame behind the end' 0 'command line: frames: frame 17 is outside the video; it has frames 0 to 16' \
    render "$job" --frames 3-17 -o "$work/videos/a.mp4"
refused 'segments that cannot be joined' 0 "$work/videos/a.mp4: segment_frames 4: .*mpeg4" \
    render "$job" --encoder mpeg4 --segment-frames 4 -o "$work/videos/a.mp4"

# A disk with room for some of the pictures.
full_disk() { # ranks
    local name="a full disk, $1 ranks" line='0000[01][0-9].png: .*No space left on device'
    ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 on_full_disk "$name" 192k "$1" "$line" "$job" \
        --codec-ranks "$(($1 / 2))" --bit-depth 16 --width 160 --height 160 -o "$work/disk/%06d.png" || return 0
    equal "$name: only whole pictures are left" '' "$(grep -Ev '^0000[01][0-9].png$' "$work/out" || true)"
}
full_disk 0
full_disk 5

finish
