#!/usr/bin/env bash
# Nothing but ops touches the memory of the device: with it out of the host's reach (RINGREEL_GUARD=1, kernels/ops.h)
# every way through the program ends, and in the same bytes. A stray access would end the job instead (unit/test_guard).
# Lines of the VAE's pictures in all its generations: mpi/vae_shares.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
image=$PWD/tests/parity/data/conditioning_wide.png

digests() { grep '^digest ' "$work/out" | sort || true; }

# Both runs print digests; the guarded one says in its header that it is one.
same_guarded() { # name, ranks, flags
    local name=$1 ranks=$2 free
    shift 2
    ringreel "$ranks" render "$job" --digest --quiet "$@"
    free="$code $(digests)"
    RINGREEL_GUARD=1 ringreel "$ranks" render "$job" --digest "$@"
    equal "$name, $ranks ranks" "$free" "$code $(digests)"
    has_line "$name, $ranks ranks: the guard was there" "$work/err" '; guarded cpu \('
}

# CFG, STG and its sums; tokens in an uneven number for the ranks; padded and cropped.
write_job "$job" "output: $work/out.mp4"
guidance=(--width 150 --height 90 --num-frames 30 --num-inference-steps 2 --stg-scale 1 --skip-block-list 1,2
    --stg-mode attention_skip --cfg-star-rescale --rescaling-scale 0.7)
same_guarded 'guidance' 0 "${guidance[@]}"
same_guarded 'guidance' 3 "${guidance[@]}"
if [[ ${SANITIZE:-0} == 1 ]]; then # every rank is thirty times slower then
    finish
    exit
fi
same_guarded 'ring order' 3 "${guidance[@]}" --attention-order ring
same_guarded 'bf16, weights streamed, noise in the order of diffusers' 3 "${guidance[@]}" --precision bfloat16 \
    --weights stream --rng diffusers

# An image on one rank and a half, frozen and freed; noise at every step.
begun=(--image "$image" --image-strength 0.8 --timesteps 1,0.5,0.15 --stochastic-sampling --width 150 --height 150)
same_guarded 'an image, stochastic sampling' 0 "${begun[@]}"
same_guarded 'an image, stochastic sampling' 3 "${begun[@]}"

# Two codec ranks share each picture, all ranks the last one; images between shots; words in place of bytes.
write_job "$job" 'shots:' "  - {output: $work/1.mp4, image: $image, image_cond_noise_scale: 0.5, guidance_scale: 1}" \
    "  - {output: $work/2.mp4, num_frames: 9, width: 128}" \
    "  - {output: $work/3/%04d.png, bit_depth: 16, num_frames: 25, image: $image, stochastic_sampling: true}"
same_guarded 'three shots' 0 --num-inference-steps 2
same_guarded 'three shots' 5 --num-inference-steps 2 --codec-ranks 2
same_guarded 'three shots, the last decoded by codec ranks' 4 --num-inference-steps 2 --codec-ranks 2 --last-decode codec

# What is dumped, decoded again and encoded again: whole files.
write_job "$job" "output: $work/whole.mkv" 'encoder: ffv1' "image: $image"
for guard in 0 1; do
    export RINGREEL_GUARD=$guard
    for ranks in 0 3; do
        at=$work/$guard.$ranks
        ringreel "$ranks" render "$job" --quiet --num-inference-steps 2 -o "$at.mkv" --dump "$at"
        equal "dump, guard $guard, $ranks ranks: exit code" 0 "$code"
        ringreel "$ranks" decode "$at/shot-0001/latents.safetensors" --config "$job" -o "$at.again.mkv" --quiet --digest
        digests >"$at/decoded"
        ringreel "$ranks" encode "$at.again.mkv" --config "$job" -o "$at/encoded.safetensors" --quiet
        equal "encoded, guard $guard, $ranks ranks: exit code" 0 "$code"
    done
done
unset RINGREEL_GUARD
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); } # folder
for ranks in 0 3; do
    equal "dumped, decoded, encoded on $ranks ranks: files" "$(sums "$work/0.$ranks")" "$(sums "$work/1.$ranks")"
done
equal 'dumped files' 8 "$(files_in "$work/1.3" | wc -l)"

finish
