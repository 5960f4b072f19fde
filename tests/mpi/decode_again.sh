#!/usr/bin/env bash
# `ringreel decode`: the latents of a render give the render's frames, on any number of ranks; others give what they show.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
latents=$work/dump/shot-0002/latents.safetensors

digest_of() { grep "^digest shot $1 " "$work/out" | cut -d' ' -f4-; } # latents ... frames ...

write_job "$job" 'shots:' "  - {output: $work/1.mp4, seed: 4}" \
    "  - {output: $work/2.mkv, encoder: ffv1, width: 150, height: 90, seed: 5, stochastic_sampling: true, image: $PWD/tests/parity/data/conditioning_wide.png}"
ringreel 3 render "$job" --digest --quiet --dump "$work/dump"
equal 'a render: exit code' 0 "$code"
rendered=$(digest_of 2)
for ranks in 0 1 2 3 5; do
    ringreel "$ranks" decode "$latents" --config "$job" --shot 2 -o "$work/again.mkv" --encoder ffv1 --digest --quiet
    equal "decoded again on $ranks ranks" "0 $rendered" "$code $(digest_of 1)"
done

# Some frames of a clip so long that no layer makes all of it: rendered and decoded, the files that all frames have.
sums() { (cd "$1" && sha256sum 00005[0-7].png); }
write_job "$work/long.yaml"
long=(--digest --quiet --num-frames 121 --num-inference-steps 1 --guidance-scale 1)
long_latents() { grep -o ' latents [0-9a-f]*' "$work/out"; }
ringreel 0 render "$work/long.yaml" "${long[@]}" --dump "$work/long" -o "$work/all/%06d.png"
whole="0 $(sums "$work/all")" latents_sum=$(long_latents)
some() { # command, ranks, words
    ringreel "$2" "$1" "${@:3}" "${long[@]}" --frames 50-57 -o "$work/some/%06d.png"
    equal "$1, some frames, $2 ranks" "$whole" "$code $(sums "$work/some")"
    equal "$1, some frames, $2 ranks: the digest is of all latents" "$latents_sum" "$(long_latents)"
    equal "$1, some frames, $2 ranks: no others" 8 "$(find "$work/some" -name '*.png' | wc -l)"
    rm -r "$work/some"
}
for ranks in 0 2 3 4; do some decode $ranks "$work/long/shot-0001/latents.safetensors" --config "$work/long.yaml"; done
for ranks in 0 4; do some render $ranks "$work/long.yaml"; done

ringreel 2 decode "$latents" --config "$job" -o "$work/other.mp4" --width 96 --height 64
has_line 'latents of another size than the job' "$work/err" "wrote $work/other.mp4 .17 frames, 160x96."

decode_refused() { # name, expression, words
    refused "$1" 0 "$2" decode "${@:3}" -o "$work/videos/x.mp4"
}
decode_refused 'no file of latents' 'command line: the first word must be a file' --config "$job"
decode_refused 'a file that is not there' "$work/none: " "$work/none" --config "$job"
decode_refused 'a file without latents' ".*noise.safetensors: there is no tensor 'latents'" \
    "$work/dump/shot-0002/noise.safetensors" --config "$job"
decode_refused 'a shot that the job does not have' '--shot 3: the job has 2 shots' "$latents" --config "$job" --shot 3
decode_refused 'a shot that is no number' "command line: --shot: .*'x'" "$latents" --config "$job" --shot=x
refused 'a job that is not there' 3 "$work/none.yaml: " decode "$latents" --config "$work/none.yaml" -o "$work/videos/x.mp4"
refused 'no name for the video' 0 'command line: -o FILE is missing' decode "$latents" --config "$job"

# ringreel encode: what was rendered, as latents again: the same on any number of ranks, and near what was decoded.
first=''
for ranks in 0 1 2 3 7; do
    ringreel "$ranks" encode "$work/2.mkv" --config "$job" -o "$work/latents.$ranks.safetensors"
    equal "encoded on $ranks ranks: exit code" 0 "$code"
    sum=$(sha256sum <"$work/latents.$ranks.safetensors")
    first=${first:-$sum}
    equal "encoded on $ranks ranks: bytes" "$first" "$sum"
done
has_line 'encoded: the shape' "$work/err" 'latents \[128,3,3,5\]'
ringreel 2 decode "$work/latents.0.safetensors" --config "$job" --shot 2 -o "$work/back.mkv" --encoder ffv1
equal 'decoded after encoding: exit code' 0 "$code"
encode_refused() { # name, expression, words
    refused "$1" 0 "$2" encode "${@:3}" --config "$job" -o "$work/videos/x.safetensors"
}
encode_refused 'no media there' "$work/none.mkv: No such file" "$work/none.mkv"
encode_refused 'text as media' "$job: not an image or a video" "$job"

finish
