#!/usr/bin/env bash
# Images to begin from that are missing, cut short, or none; and conditioning that cannot be meant.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
good=$PWD/tests/parity/data/conditioning_wide.png
one() { refused "$1" 0 "${@:2}"; }

# A good job with one bad line, which is line 12: function of the case, name, pattern, line.
with_line() {
    write_job "$job" "$4"
    "$1" "$2" "$3" render "$job" -o "$work/videos/clip.mp4"
}

with_line refused_by_all 'conditioning that is no list' "$job:12:15: conditioning: must be a list of maps.*'a.png'" \
    'conditioning: a.png'
with_line one 'an item that is no map' "$job:12:16: conditioning: every item must be a map" 'conditioning: [a.png]'
with_line one 'an item without media' "$job:12:16: conditioning: media: missing" 'conditioning: [{strength: 1}]'
with_line one 'an unknown key in an item' "$job:12:33: conditioning: 'strenght': unknown; .*strength" \
    'conditioning: [{media: a.png,   strenght: 1}]'
with_line refused_by_all 'a strength above 1' "$job:12:41: conditioning: strength: must be a number from 0 to 1.*1.5" \
    'conditioning: [{media: a.png, strength: 1.5}]'
with_line one 'a frame before the first' "$job:12:38: conditioning: frame: must be a whole number from 0.*-1" \
    'conditioning: [{media: a.png, frame: -1}]'
with_line one 'a frame after the last' "$job:12:15: conditioning: item 1: frame 17 is outside.*0 to 16" \
    'conditioning: [{media: a.png, frame: 17}]'
with_line one 'a frame that is not supported yet' "$job:12:15: conditioning: frame 8: only frame 0 is supported" \
    'conditioning: [{media: a.png, frame: 8}]'
with_line one 'two items' "$job:12:15: conditioning: more than one item is not supported yet" \
    'conditioning: [{media: a.png}, {media: b.png}]'
with_line one 'a video' "$job:12:8: image: .*a.mov.*a video is not supported yet" 'image: a.mov'
with_line one 'image and conditioning' "$job:13:1: conditioning: image in the same map" \
    $'image: a.png\nconditioning: [{media: a.png}]'
with_line one 'a crf that x264 does not have' "$job:12:19: conditioning_crf: .*0 to 51.*52" 'conditioning_crf: 52'

write_job "$job" "output: $work/videos/clip.mp4"
refused_by_all 'a strength on the command line' 'command line: --image-strength: .*0 to 1.*-1' \
    render "$job" --image "$good" --image-strength=-1
one 'a strength without an image' 'command line: image_strength: there is no image' render "$job" --image-strength 0.5
one 'official lists' "command line: --conditioning_media_paths: write 'image'" \
    render "$job" --conditioning_media_paths "$good"

# What only reading the image can tell.
image() { "$1" "$2" "$3" render "$job" --image "$4"; }

image_files() {
    image refused_by_all 'no image there' "$work/none.png: No such file" "$work/none.png"
    image refused_by_all 'a folder as image' "$work: not a regular file" "$work"
    : >"$work/empty.png"
    image one 'an empty image' "$work/empty.png: the file is empty" "$work/empty.png"
    echo 'this is no picture' >"$work/text.png"
    image refused_by_all 'a text file as image' "$work/text.png: not an image or a video" "$work/text.png"
    head -c 9000 "$good" >"$work/cut.png"
    image refused_by_all 'a truncated PNG' "$work/cut.png: damaged" "$work/cut.png"
    # 100000 x 100000 pixels of 8-bit RGB, and no data
    printf '\211PNG\r\n\032\n\0\0\0\rIHDR\0\1\206\240\0\1\206\240\10\2\0\0\0\047\060\234\237\0\0\0\0IDAT\065\257\006\036' \
        >"$work/huge.png"
    image refused_by_all 'an image that declares an absurd size' "$work/huge.png: a picture of 100000x100000 .*at most" \
        "$work/huge.png"
    printf 'P6\n1 500\n255\n' >"$work/thin.ppm"
    head -c 1500 /dev/zero >>"$work/thin.ppm"
    image one 'an image of one column' "$work/thin.ppm: of 1x500 only 1x0 has the shape" "$work/thin.ppm"
    write_job "$job" "output: $work/videos/clip.mp4" 'image: none.png'
    one 'an image beside the job file' "$work/none.png: No such file" render "$job"
}
image_files

finish
