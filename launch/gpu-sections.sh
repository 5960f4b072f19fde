# shellcheck shell=bash disable=SC2154
# The sections of gpu-check.sh, and how they report: lines of results.tsv, separated by tabs,
#
#     fact    name  text
#     check   name  passed|failed|not run  detail
#     timing  name  seconds  TFLOP  GB  by   (ringreel, or torch)

say() { printf 'gpu-check: %4d s: %s\n' "$SECONDS" "$*"; }

fact() { printf 'fact\t%s\t%s\n' "$1" "$2" >>"$results/results.tsv"; }

check() { # name, passed|failed|not run, detail
    printf 'check\t%s\t%s\t%s\n' "$1" "$2" "$(tr '\t\n' '  ' <<<"$3")" >>"$results/results.tsv"
    [[ $2 == passed ]] || say "$1: $2: $3"
}

timing() { # name, seconds, TFLOP
    printf 'timing\t%s\t%s\t%s\t0\tringreel\n' "$1" "$2" "$3" >>"$results/results.tsv"
}

no_time=99
# At most so many seconds, and not beyond the end of all. 124, 137: it took too long; $no_time: it was not begun.
limited() { # seconds, words
    local limit=$1 left=$((deadline - SECONDS))
    shift
    ((left > 1)) || return $no_time
    ((limit < left)) || limit=$left
    ((limit < ${GPU_CHECK_LIMIT:-limit + 1})) || limit=$GPU_CHECK_LIMIT
    timeout --kill-after=5 "$limit" "$@"
}

# Why it ended with this code; its last words are in this file.
reason() { # code, log
    case $1 in
    124 | 137) printf 'took too long' ;;
    *) printf 'exit code %s: %s' "$1" "$(grep -v '^$' "$2" | tail -n 1)" ;;
    esac
}

# What did not end well.
ended() { # name, code, log, more words
    if (($2 == no_time)); then
        check "$1" 'not run' 'no time was left'
    else
        check "$1" failed "$(reason "$2" "$3")${4:-}"
    fi
}

# Where large files go: memory, if there is enough of it.
roomy_folder() {
    local free
    free=$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)
    if ((${free:-0} > 36000000)); then echo /dev/shm; else echo "${TMPDIR:-/tmp}"; fi
}

free_gb() { df --output=avail -k "$work" | awk 'NR == 2 { print int($1 / 1e6) }'; }

# A program that speaks TAP.
run_tap() { # name, seconds, words
    local name=$1 limit=$2 log=$results/${1// /-}.log code=0 good bad
    shift 2
    limited "$limit" "$@" >"$log" 2>&1 </dev/null || code=$?
    good=$(grep -c '^ok ' "$log") bad=$(grep -c '^not ok ' "$log")
    if ((code == 0 && bad == 0 && good > 0)); then
        check "$name" passed "$good cases"
    elif ((bad > 0)); then
        check "$name" failed "$bad of $((good + bad)) cases: $(sed -n 's/^not ok - //p' "$log" | sed -n 1p)"
    else
        ended "$name" "$code" "$log" " after $good cases"
    fi
}

# bench_gpu, whose lines of timing become ours; those that were there before it was stopped count.
run_bench() { # name, seconds, words of bench_gpu
    local name=$1 limit=$2 log=$results/bench-$3.log code=0
    shift 2
    limited "$limit" "$bin/bench_gpu" "${sizes[@]}" "$@" >"$log" 2>&1 </dev/null || code=$?
    sed -n $'s/^timing\t.*/&\tringreel/p' "$log" >>"$results/results.tsv"
    if ((code == 0)); then check "$name" passed ''; else ended "$name" "$code" "$log"; fi
}

# ---- checks --------------------------------------------------------------------------------------------------------

# test_ptx, test_wgmma, test_tma and test_language are the emulator's model of the hardware.
section_kernels() {
    local program name
    ((${#cuda_tests[@]} > 0)) || check 'kernels' 'not run' 'no test programs'
    for program in "${cuda_tests[@]}"; do
        name=$(basename "$program")
        (run_tap "kernels: ${name#test_}" 90 "$program") &
        while (($(jobs -rp | wc -l) >= 4)); do wait -n; done
    done
    wait
}

section_ops() { run_tap 'ops against the CPU' 90 "$bin/check_ops" "${sizes[@]}"; }

tiny_job() {
    cat <<JOB
checkpoint_path: $PWD/models/tiny/ltxv-tiny.safetensors
text_encoder_model_name_or_path: $PWD/models/tiny
width: $1
height: $2
num_frames: $3
num_inference_steps: $4
guidance_scale: 3
stg_scale: 0
rescaling_scale: 1
prompt: a red ball rolls from left to right over a blue floor
JOB
}

# Renders the tiny model; prints the digest. The log is $results/$1.log.
render_tiny() { # name, ranks (0: without mpirun), words
    local name=$1 start=("$RINGREEL")
    (($2 == 0)) || start=(launch/ringreel-mpi -n "$2")
    shift 2
    limited 60 "${start[@]}" render "$work/tiny.yaml" --encoder ffv1 --digest -o "$work/$name.mkv" "$@" \
        >"$results/$name.out" 2>"$results/$name.log" </dev/null || return
    sed -n 's/^digest shot 1 //p' "$results/$name.out"
}

same_bytes() { # name, wanted digest, exit code, digest, log
    if (($3 != 0)); then
        ended "$1" "$3" "$results/$5.log"
    elif [[ -n $2 && $2 == "$4" ]]; then
        check "$1" passed 'the same bytes'
    else
        check "$1" failed 'other bytes'
    fi
}

section_tiny() {
    local one again code=0 psnr size=(256 160 33 8)
    [[ $rehearsal == 0 ]] || size=(32 32 1 1)
    tiny_job "${size[@]}" >"$work/tiny.yaml"
    one=$(render_tiny tiny-cuda 0 --backend cuda) || code=$?
    if ((code != 0)); then
        ended 'tiny render' "$code" "$results/tiny-cuda.log"
        return
    fi
    render_tiny tiny-cpu 0 --backend cpu --precision float32 >/dev/null || true
    psnr=$({ limited 30 "$RINGREEL" compare "$work/tiny-cpu.mkv" "$work/tiny-cuda.mkv" 2>&1 || true; } |
        sed -n 's/^PSNR \([0-9]*\)\..*/\1/p')
    if ((${psnr:-0} >= 40)); then
        check 'tiny render, bf16 against the CPU in fp32' passed "$psnr dB"
    else
        check 'tiny render, bf16 against the CPU in fp32' failed "PSNR ${psnr:-none}, wanted 40 dB"
    fi
    again=$(render_tiny tiny-again 0 --backend cuda) || code=$?
    same_bytes 'tiny render, once more' "$one" "$code" "$again" tiny-again
    code=0
    again=$(render_tiny tiny-ranks 3 --backend cuda) || code=$?
    same_bytes 'tiny render, three ranks on the device' "$one" "$code" "$again" tiny-ranks
    tiny_digest=$one
}

# What a run said of NCCL when it ended early, or how it ended.
nccl_refusal() { # code, log
    local line
    line=$(sed -nE 's/^ringreel: (fatal|error): (.*NCCL.*)/\2/p' "$2" | sed -n 1p)
    printf '%s' "${line:-$(reason "$1" "$2")}"
}

# Three, of which two denoise. NCCL wants a device for each rank of a host, so each has a host's name of its own, and
# they go through sockets. That is more than NCCL promises: what comes of it is told, and fails nothing.
section_nccl() {
    local code=0 digest name='three ranks on the device through NCCL'
    if ! "$RINGREEL" render --help 2>/dev/null | grep -e --transport >/dev/null; then
        check "$name" 'not run' 'this program has no --transport'
        return
    elif [[ -z ${tiny_digest:-} ]]; then
        check "$name" 'not run' 'the tiny render gave nothing to compare with'
        return
    fi
    # shellcheck disable=SC2016 # the ranks expand it
    printf '#!/bin/sh\nNCCL_HOSTID=gpu-check-$OMPI_COMM_WORLD_RANK exec "%s" "$@"\n' "$RINGREEL" >"$work/own-host"
    chmod +x "$work/own-host"
    digest=$(NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 NCCL_MAX_CTAS=1 RINGREEL=$work/own-host \
        render_tiny tiny-nccl 3 --backend cuda --transport nccl --timeout 30) || code=$?
    if ((code == no_time)); then
        check "$name" 'not run' 'no time was left'
    elif ((code != 0)); then
        check "$name" 'not run' "not allowed by this NCCL: $(nccl_refusal "$code" "$results/tiny-nccl.log")"
    elif [[ $digest == "$tiny_digest" ]]; then
        check "$name" passed 'the same bytes'
    else
        check "$name" 'not run' 'OTHER BYTES, in a use that NCCL does not promise'
    fi
}

# ---- timings -------------------------------------------------------------------------------------------------------

section_ceilings() { run_bench 'ceilings' 40 ceilings; }
section_linear() { run_bench 'linear layers' 40 linear; }
section_attention() { run_bench 'attention' 60 attention; }
section_conv() { run_bench 'convolutions' 40 conv; }
section_rows() { run_bench 'rows' 20 rows; }

tiny_text_width() { sed -nE 's/.*"d_model": ([0-9]+).*/\1/p' models/tiny/text_encoder/config.json; }

# A model with random weights, its caption as wide as the tiny text encoder's.
random_model() { # file, width, blocks, heads, channels of the VAE, GB
    local code=0
    [[ ! -f $1 ]] || return 0
    if (($(free_gb) < $6)); then
        no_model="$6 GB are not free in $work"
        return 1
    fi
    limited 90 "$bin/random_checkpoint" "$1.part" "$2" "$3" "$4" "$(tiny_text_width)" "$5" \
        >"$results/random-model.log" 2>&1 || code=$?
    case $code in
    0) mv "$1.part" "$1" && return ;;
    "$no_time") no_model='no time was left' ;;
    *) no_model="random weights: $(reason "$code" "$results/random-model.log")" ;;
    esac
    rm -f "$1.part"
    return 1
}

# Latents of 768x512x121; picture and frames for the program.
set_sizes() {
    latents=(16 16 24) picture=(768 512 121) counts=(8 20)
    two_b=(2048 28 32 1024 6) thirteen_b=(4096 48 32 1024 30)
    if [[ $rehearsal == 1 ]]; then
        latents=(1 2 2) picture=(32 32 1) counts=(1 2)
        two_b=(128 2 4 32 0) thirteen_b=(256 2 4 32 0)
    fi
}

with_model() { # name of the section, which: 2b or 13b; false with a line if there is none
    set_sizes
    local shape=("${two_b[@]}")
    [[ $2 == 2b ]] || shape=("${thirteen_b[@]}")
    model=$work/$2.safetensors
    random_model "$model" "${shape[@]}" || {
        check "$1" 'not run' "$no_model"
        return 1
    }
}

section_step() {
    with_model 'step, 2B' 2b || return 0
    run_bench 'step, 2B' 60 step "$model" 'step 2B, 6144 tokens' "${latents[@]}"
}

section_vae() {
    with_model 'VAE decode' 2b || return 0
    run_bench 'VAE decode' 60 vae "$model" 'VAE decode 768x512x121' "${latents[@]}"
}

section_step13b() {
    local device_mb
    device_mb=$(gpu_says memory.total)
    if [[ $rehearsal == 0 ]] && ((${device_mb:-0} < 36000)); then
        check 'step, 13B' 'not run' "its weights take 26 GB, the device has ${device_mb:-unknown} MiB"
        return
    fi
    rm -f "$work/2b.safetensors"
    with_model 'step, 13B' 13b || return 0
    run_bench 'step, 13B' 90 step "$model" 'step 13B, 6144 tokens' "${latents[@]}"
}

# Of a render by one rank: one after the other, from a prompt to a file, the models being there.
stages=(encode denoise decode write)
# Seconds of a stage of the program's own log.
stage() { # log, stage
    sed -n "s/.*\"event\":\"stage\".*\"name\":\"$2\".*\"seconds\":\([0-9.]*\).*/\1/p" "$1" | sed -n 1p
}

render_real() { # steps, name, words
    local steps=$1 name=$2 code=0 log=$results/${2//[ ,]/-}.log events=$work/events.json from=$EPOCHREALTIME each
    shift 2
    limited 90 "$RINGREEL" render --prompt 'waves roll onto a black beach' --checkpoint-path "$model" \
        --text-encoder-model-name-or-path models/tiny --width "${picture[0]}" --height "${picture[1]}" \
        --num-frames "${picture[2]}" --num-inference-steps "$steps" --backend cuda --log-json "$events" \
        -o "$work/render.mp4" "$@" >"$log" 2>&1 </dev/null || code=$?
    if ((code != 0)); then
        ended "$name" "$code" "$log"
        return
    fi
    check "$name" passed ''
    for each in "${stages[@]}"; do timing "$name: $each" "$(stage "$events" "$each")" 0; done
    timing "$name: prompt to file" "$(for each in "${stages[@]}"; do stage "$events" "$each"; done |
        awk -v all=${#stages[@]} '{ sum += $1 } END { if (NR == all) print sum }')" 0
    timing "$name: start to end" "$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')" 0
}

section_render() {
    with_model 'render 768x512x121' 2b || return 0
    local none=(--guidance-scale 1 --stg-scale 0)
    render_real "${counts[0]}" 'render 768x512x121, 8 steps, no guidance' "${none[@]}"
    render_real "${counts[1]}" 'render 768x512x121, 20 steps, no guidance' "${none[@]}"
    render_real "${counts[1]}" 'render 768x512x121, 20 steps, guidance of both kinds' \
        --guidance-scale 3 --stg-scale 1 --skip-block-list $((two_b[1] < 20 ? 1 : 19))
}

section_torch() {
    local code=0 log=$results/torch.log
    limited 90 env LD_LIBRARY_PATH="$system_libraries" python3 tools/bench_gpu_reference.py "${sizes[@]}" \
        >"$log" 2>&1 </dev/null || code=$?
    sed -n $'s/^timing\t.*/&\ttorch/p' "$log" >>"$results/results.tsv"
    case $code in
    0) check 'PyTorch, for comparison' passed '' ;;
    3) check 'PyTorch, for comparison' 'not run' "$(tail -n 1 "$log")" ;;
    127) check 'PyTorch, for comparison' 'not run' 'no python3' ;;
    *) ended 'PyTorch, for comparison' "$code" "$log" ;;
    esac
}
