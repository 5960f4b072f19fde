#!/usr/bin/env bash
# `ringreel compare`: what it says of renders, and files and command lines that it refuses.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
write_job "$job"
one() { refused "$1" 0 "$2" compare "${@:3}"; }

compared() { # name, exit code, words
    local name=$1 wanted=$2
    shift 2
    ringreel 0 compare "$@"
    equal "$name: exit code" "$wanted" "$code"
    equal "$name: no complaint" '' "$(cat "$work/err")"
}
said() { has_line "$1" "$work/out" "$2"; }

rendered() { # output, words
    local output=$1
    shift
    ringreel 0 render "$job" --quiet -o "$work/$output" "$@"
    ((code == 0)) || not_ok "rendering $output" "$(tail -n 5 "$work/err")"
}
rendered one.mkv --encoder ffv1 --dump "$work/one"
rendered two.mkv --encoder ffv1 --dump "$work/two" --seed 5
rendered one/%06d.png
rendered one.mp4
rendered short.mkv --encoder ffv1 --num-frames 9
rendered wide.mkv --encoder ffv1 --num-frames 1 --width 128
frames=$work/one/shot-0001/frames.safetensors
latents=$work/one/shot-0001/latents.safetensors
other_latents=$work/two/shot-0001/latents.safetensors

videos() {
    compared 'a video and itself' 0 "$work/one.mkv" "$work/one.mkv"
    equal 'a video and itself: said' '17 frames of 96x64: identical' "$(cat "$work/out")"
    # Both keep RGB: FFV1 as bgr0, PNG as rgb24. H.264 halves the colour's resolution and quantizes.
    compared 'FFV1 and PNGs of one render' 0 "$work/one.mkv" "$work/one/%06d.png"
    said 'FFV1 and PNGs: said' '^17 frames of 96x64: identical$'
    compared 'FFV1 and the frames of --dump' 0 "$frames" "$work/one.mkv"
    compared 'FFV1 and H.264 of one render' 1 "$work/one.mkv" "$work/one.mp4"
    compared 'FFV1 and H.264, all tolerated' 0 "$work/one.mkv" "$work/one.mp4" --tolerance 255
    said 'FFV1 and H.264, all tolerated: said' '^within the tolerance of 255$'
    compared 'FFV1 and H.264, little tolerated' 1 --tolerance=1 "$work/one.mkv" "$work/one.mp4"
    said 'FFV1 and H.264, little tolerated: said' '^not within the tolerance of 1$'
    compared 'two seeds' 1 "$work/one.mkv" "$work/two.mkv"
    said 'two seeds: the first frame' '^17 of 17 frames differ, the first is frame 0 \(counted from 0\); [0-9]+ of 313344 bytes$'
    said 'two seeds: the largest' '^largest difference [0-9]+ of 255, in frame [0-9]+$'
    said 'two seeds: PSNR and SSIM' '^PSNR [0-9.]+ dB, mean SSIM 0\.[0-9]{6}$'
    said 'two seeds: the worst' '^worst frame [0-9]+: PSNR [0-9.]+ dB, SSIM 0\.[0-9]{6}$'
    compared 'two sizes' 1 "$work/one.mkv" "$work/wide.mkv" --tolerance 255
    said 'two sizes: said' '^sizes differ, .*A is 96x64 \(17 frames\), B is 128x64 \(1 frames\)$'
    compared 'two lengths' 1 "$work/short.mkv" "$work/one.mkv" --tolerance 255
    said 'two lengths: said' '^A has 9 frames, B has 17; the first 9 of each were compared$'
    compared 'without words' 1 --quiet "$work/one.mkv" "$work/two.mkv"
    equal 'without words: nothing said' '' "$(cat "$work/out")"
}
videos

# Frame 3 of a sequence is that of another render, and frame 5 is missing.
sequences() {
    mkdir "$work/mixed"
    cp "$work"/one/00000[0-4].png "$work/one/000006.png" "$work/mixed"
    compared 'a missing frame ends a sequence' 1 "$work/mixed/%06d.png" "$work/one.mkv"
    said 'a missing frame ends a sequence: said' '^A has 5 frames, B has 17; the first 5 of each were compared$'
    said 'those before are the same' '^5 frames of 96x64: identical$'
    cp "$work/one/000009.png" "$work/mixed/000003.png"
    compared 'one wrong frame' 1 "$work/mixed/%06d.png" "$work/one.mkv" --frames
    said 'one wrong frame: named' '^1 of 5 frames differ, the first is frame 3 '
    said 'one wrong frame: a line for every frame' '^ +2 +0 +identical +1\.000000 +0$'
    said 'one wrong frame: its line' '^ +3 +[0-9]+ +[0-9.]+ dB +0\.[0-9]{6} +[1-9][0-9]*$'
    equal 'one wrong frame: lines' 11 "$(wc -l <"$work/out")"
    compared 'two images' 1 "$work/one/000000.png" "$work/one/000009.png"
    head -c 2000 "$work/one/000002.png" >"$work/mixed/000002.png"
    one 'a truncated PNG of a sequence' "$work/mixed/000002.png: damaged" "$work/one.mkv" "$work/mixed/%06d.png"
    ringreel 0 render "$job" --quiet -o "$work/mixed/000002.png" --num-frames 1 --width 128
    one 'a PNG of another size' "$work/mixed/000002.png: 128x64, those before are 96x64" "$work/mixed/%06d.png" \
        "$work/one.mkv"
}
sequences

# A sequence begins with the smallest number there is; other names in the folder do not count.
ranges() {
    mkdir "$work/range" "$work/zero"
    for i in 0 1 2; do
        cp "$work/one/00000$((i + 4)).png" "$work/range/$((i + 98)).png"
        cp "$work/one/00000$((i + 4)).png" "$work/zero/00000$i.png"
    done
    cp "$work/one/000000.png" "$work/range/0097.png"
    cp "$work/one/000000.png" "$work/range/97.png.part"
    compared 'a sequence that does not begin at 0' 0 "$work/range/%d.png" "$work/zero/%06d.png"
}
ranges

tensors() {
    compared 'latents and themselves' 0 "$latents" "$latents"
    said 'latents and themselves: said' '^latents: F32 \[128,3,2,3\]: identical$'
    compared 'latents of two seeds' 1 "$latents" "$other_latents"
    said 'latents of two seeds: said' \
        '^latents: F32 \[128,3,2,3\]: [0-9]+ of 2304 elements differ, the first at \[0,0,0,[0-2]\]; largest .* RMS '
    compared 'frames of two seeds' 1 "$frames" "${frames/one/two}"
    said 'frames of two seeds: said' '^frames: U8 \[17,64,96,3\]: '
    compared 'another name' 0 "$latents" "$(cp "$latents" "$work/latents.mp4" && echo "$work/latents.mp4")"
    compared 'tensors of other names' 1 "$latents" "$frames"
    said 'tensors of other names: said' '^latents: only in A$'
    said 'tensors of other names: said of B' '^frames: only in B$'
}
tensors

refusals() {
    one 'latents and a video' "$latents: holds tensors; .*'frames'" "$latents" "$work/one.mkv"
    one 'a video and latents' "$latents: holds tensors; .*'frames'" "$work/one.mkv" "$latents"
    one '--frames of tensors' 'command line: --frames: .*tensors' --frames "$latents" "$latents"
    one 'a missing file' "$work/none.mkv: No such file" "$work/one.mkv" "$work/none.mkv"
    one 'a missing sequence' "$work/none/0.png: No such file" "$work/none/%d.png" "$work/one.mkv"
    one 'a bad pattern' "$work/%s.png: .*%06d.png" "$work/%s.png" "$work/one.mkv"
    one 'a folder' "$work: not a regular file" "$work" "$work/one.mkv"
    echo 'this is no picture' >"$work/text.mkv"
    one 'a text file' "$work/text.mkv: not an image or a video" "$work/one.mkv" "$work/text.mkv"
    head -c 20000 "$work/one.mkv" >"$work/cut.mkv"
    one 'a truncated video' "$work/cut.mkv: damaged" "$work/one.mkv" "$work/cut.mkv"
    one 'a truncated video of another size' "$work/cut.mkv: damaged" "$work/wide.mkv" "$work/cut.mkv"
    head -c 3000 "$latents" >"$work/cut.safetensors"
    one 'truncated latents' "$work/cut.safetensors: .*truncated" "$latents" "$work/cut.safetensors"
    one 'no files' 'command line: compare takes two files, not 0'
    one 'three files' 'command line: compare takes two files, not 3' "$latents" "$latents" "$latents"
    one 'an unknown flag' 'command line: --tolerence: unknown' "$latents" "$latents" --tolerence 1
    one 'a negative tolerance' 'command line: --tolerance: must be a number' "$latents" "$latents" --tolerance -1
    one 'no tolerance' 'command line: --tolerance: must be a number' "$latents" "$latents" --tolerance
    one 'a NaN as tolerance' 'command line: --tolerance: must be a number' "$latents" "$latents" --tolerance nan
    one '--quiet and --frames' 'command line: --quiet and --frames' "$work/one.mkv" "$work/one.mkv" --quiet --frames
}
refusals

cp "$latents" "$work/--help"
program=$(realpath "$RINGREEL")
(cd "$work" && "$program" compare -- --help --help) >"$work/out" 2>&1 || true
said 'files after --' '^1 tensor identical$'

code=0
"$RINGREEL" compare "$latents" "$latents" >/dev/full 2>"$work/err" || code=$?
equal 'an output that is full' 2 "$code"
has_line 'an output that is full: said' "$work/err" '^ringreel: error: the output cannot be written: No space left'

compared 'help' 0 --help
said 'help: said' '^usage: ringreel compare A B'

ringreel 3 compare "$latents" "$latents"
equal '3 ranks: exit code' 0 "$code"
equal '3 ranks: one speaks' 1 "$(grep -c '^1 tensor identical$' "$work/out")"

finish
