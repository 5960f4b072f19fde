#!/usr/bin/env bash
# Job files and command lines that cannot be meant. The message names the file, the line and the key, or the flag.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
one() { refused "$1" 0 "${@:2}"; }

# A good job with one bad line, which is line 12: function of the case, name, pattern, line.
with_line() {
    write_job "$job" "$4"
    "$1" "$2" "$3" render "$job" -o "$work/videos/clip.mp4"
}

leaks=1 with_line refused_by_all 'an unknown key' "$job:12:.*heigth.*height" 'heigth: 64'
with_line refused_by_all 'text where a number belongs' "$job:12:.*seed.*whole number.*many" 'seed: many'
with_line one 'a list where a number belongs' "$job:12:.*seed" 'seed: [1, 2]'
with_line one 'a number out of range' "$job:12:.*decode_timestep.*from 0 to 1.*1.5" 'decode_timestep: 1.5'
with_line one 'a number that is none' "$job:12:.*decode_timestep.*nan" 'decode_timestep: .nan'
with_line one 'a key twice' "$job:12:.*width" 'width: 64'
with_line one 'a tab' "$job:12:" $'\tseed: 1'
with_line one 'an anchor' "$job:12:.*anchor" 'negative_prompt: &a bad'
with_line one 'an alias' "$job:12:.*alias" 'negative_prompt: *a'
with_line one 'two documents' "$job:1[23]:.*document" $'---\nseed: 1'
with_line one 'bytes that are not UTF-8' "$job:(12:)?.*UTF-8" $'negative_prompt: \xff\xfe'
with_line one 'steps that ascend' "$job:12:.*timesteps" 'timesteps: [0.5, 0.9]'
with_line one 'a setting that is not supported yet' "$job:12:.*downscale_factor.*not supported" 'downscale_factor: 0.5'
with_line one 'a shot that is not a map' "$job:12:.*shot" 'shots: [1]'

: >"$job"
one 'an empty job file' "$job:1:" render "$job"
one 'no job file there' "$work/none.yaml: No such file" render "$work/none.yaml"
refused_by_all 'a folder as job file' "$work: not a (regular )?file" render "$work"
head -c 5000000 /dev/zero >"$job"
one 'a job file of 5 MB' "$job: .*at most" render "$job"

write_job "$job" "output: $work/videos/clip.mp4"
refused_by_all 'width 0' '.*--width.*from 32.*0' render "$job" --width 0
one 'a width that overflows' '.*--width.*99999999999999999999' render "$job" --width 99999999999999999999
refused_by_all 'a prompt that is not UTF-8' '.*prompt.*UTF-8' render "$job" --prompt $'caf\xe9'
one 'an unknown flag' '.*--stepz.*' render "$job" --stepz 3
one 'a flag without its value' '.*--seed' render "$job" --seed
one 'two job files' '.*job' render "$job" "$job"
one 'no prompt' '.*prompt' render --checkpoint-path models/tiny/ltxv-tiny.safetensors \
    --text-encoder-model-name-or-path models/tiny
one 'a block that the network does not have' '.*skip_block_list.*99' render "$job" --stg-scale 1 --skip-block-list 99
refused 'a block that the network does not have' 3 '.*skip_block_list.*99' render "$job" --stg-scale 1 --skip-block-list 99
one 'more denoise ranks than ranks' 'denoise_ranks 2.*1 rank' render "$job" --denoise-ranks 2
refused 'more denoise ranks than ranks' 3 'denoise_ranks 3.*3 ranks' render "$job" --denoise-ranks 3
refused 'more denoise and codec ranks than ranks' 3 'denoise_ranks 2 .* codec_ranks 2 .*3 ranks' render "$job" \
    --denoise-ranks 2 --codec-ranks 2
one 'a backend that is not built in' '.*cuda' render "$job" --backend cuda

odd=$work/$'caf\xe9' # such a name could not be recorded beside the video
if mkdir "$odd" 2>/dev/null; then
    write_job "$odd/job.yaml" "output: $work/videos/clip.mp4"
    refused_by_all 'a folder whose name is not UTF-8' 'command line: job file .*UTF-8' render "$odd/job.yaml"
else
    skip 'a folder whose name is not UTF-8' 'this file system takes only UTF-8'
fi

finish
