#!/usr/bin/env bash
# The same seed gives the same latents and frames, to the byte, on any number of ranks and threads.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
flags=()     # of the scenario
scenario=''  # its name
reference='' # its digests

digests() { grep '^digest ' "$work/out" | sort || true; } # codec ranks print their shots as they are done

# One process without mpirun is what all others are compared with.
begin() { # scenario, flags
    scenario=$1
    shift
    flags=("$@")
    ringreel 0 render "$job" --digest --quiet --threads 1 "${flags[@]}"
    reference=$(digests)
    if [[ -n $reference && $code == 0 ]]; then
        ok "$scenario, one process"
    else
        not_ok "$scenario, one process" "exit code $code"$'\n'"$(cat "$work/err")"
    fi
}

same_bytes() { # name, ranks, more flags
    local name="$scenario, $1" ranks=$2
    shift 2
    ringreel "$ranks" render "$job" --digest --quiet "${flags[@]}" "$@"
    if ((code == 0)); then
        equal "$name" "$reference" "$(digests)"
    else
        not_ok "$name" "exit code $code"$'\n'"$(cat "$work/err")"
    fi
}

all_rank_counts() {
    local ranks
    for ranks in 1 2 3 4 5 8; do
        same_bytes "$ranks ranks" "$ranks"
    done
}

# The rank's own block first instead of block 0 first: the same sums in another order.
ring_order() { # limit: fp32 rounding over 3 steps, far below what a lost or doubled block would change
    local order
    for order in canonical ring; do
        ringreel 4 render "$job" --quiet "${flags[@]}" --attention-order "$order" --dump "$work/$order"
        ((code == 0)) || not_ok "$scenario, dump in $order order" "$(cat "$work/err")"
    done
    if "$BUILD/tests/mpi/tensor_diff" "$work"/{canonical,ring}/shot-0001/latents.safetensors latents 1e-5 >"$work/diff" 2>&1
    then
        ok "$scenario, ring order: $(cat "$work/diff")"
    else
        not_ok "$scenario, ring order" "$(cat "$work/diff")"
    fi
}

# 18 tokens in 2 granules: of 8 ranks most have nothing to denoise.
write_job "$job" "output: $work/out.mp4"
begin 'a small shot'
all_rank_counts
same_bytes '2 threads' 0 --threads 2
same_bytes '3 ranks with 2 threads' 3 --threads 2

# 75 tokens: the last granule is short, ranks have different shares, the picture is padded and cropped, and every kind of
# guidance sums over all tokens.
begin 'an uneven shot with all guidance' --width 150 --height 90 --num-frames 30 --stg-scale 1 --skip-block-list 1,2 \
    --stg-mode attention_skip --cfg-star-rescale --rescaling-scale 0.7
all_rank_counts
ring_order

# Operands in bf16, sums in fp32: a rounding is a row's own affair.
begin 'bf16' --precision bfloat16 --width 150 --height 90 --num-frames 30
same_bytes '3 ranks' 3
same_bytes '5 ranks with weights streamed' 5 --weights stream

# The image is 25 of 75 tokens: one and a half granules, on one or two ranks. Strength 0.8 freezes it at 1 and 0.5 and
# frees it at 0.15; every rank draws from both streams of random numbers.
image=$PWD/tests/parity/data/conditioning_wide.png
begin 'begun from an image' --image "$image" --image-strength 0.8 --timesteps 1,0.5,0.15 --stochastic-sampling \
    --width 150 --height 150
all_rank_counts

# Longer and shorter shots by turns, and two codec ranks that take them by turns.
write_job "$job" 'shots:' \
    "  - {output: $work/1.mp4, prompt: a red ball, seed: 3}" \
    "  - {output: $work/2.mp4, prompt: a green ball, num_frames: 9, width: 128}" \
    "  - {output: $work/3.mp4, prompt: a blue ball, seed: 5, guidance_scale: 1}" \
    "  - {output: $work/4.mp4, prompt: a yellow ball, num_frames: 25}"
begin 'four shots' --num-inference-steps 2
same_bytes '1 denoise and 1 codec rank' 2
leaks=1 same_bytes '3 denoise and 2 codec ranks' 5 --codec-ranks 2
same_bytes '1 denoise and 3 codec ranks' 4 --codec-ranks 3

# Some with an image, which the codec rank of that shot encodes between texts and latents of others.
write_job "$job" 'conditioning_crf: 0' 'shots:' \
    "  - {output: $work/1.mp4, image: $image, image_cond_noise_scale: 0.5}" \
    "  - {output: $work/2.mp4, num_frames: 9, width: 128}" \
    "  - {output: $work/3.mp4, num_frames: 25, conditioning: [{media: $image, strength: 0.4}], conditioning_crf: 29}" \
    "  - {output: $work/4.mp4, num_frames: 1, image: $image}" \
    "  - {output: $work/5.mp4, num_frames: 9}" \
    "  - {output: $work/6.mp4, image: $image, stochastic_sampling: true, seed: 3}"
begin 'six shots, some begun from an image' --num-inference-steps 2
same_bytes '1 denoise and 1 codec rank' 2
leaks=1 same_bytes '3 denoise and 2 codec ranks' 5 --codec-ranks 2
same_bytes '2 denoise and 2 codec ranks, weights streamed' 4 --codec-ranks 2 --weights stream

finish
