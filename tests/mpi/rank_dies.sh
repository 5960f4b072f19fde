#!/usr/bin/env bash
# A rank that is killed, and a run that is told to stop: everything ends soon, says why, and leaves no half video.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh
# shellcheck source=tests/support/launched.sh
. tests/support/launched.sh

limit_s=10 # from the signal until mpirun has ended; mpirun itself waits 1 s between its signals
folder=$work/videos
mkdir "$folder"

# Starts a run of 3 ranks, two that denoise and one codec rank; `launcher` becomes mpirun's process id.
start() { # flags
    rm -rf "${folder:?}"/* "$work"/events*
    launch/ringreel-mpi -n 3 render "$work/job.yaml" -o "$folder/clip.mp4" --log-json "$work/events" "$@" \
        >"$work/out" 2>"$work/err" &
    launcher=$!
}

has_steps() { grep -qs '"event":"step"' "$work/events"; }
is_writing() { has_steps && compgen -G "$folder/*.part-*" >/dev/null; }

ended_well() { # name
    if awk -v s="$seconds" -v limit="$limit_s" 'BEGIN { exit !(s < limit) }' && [[ -z $left ]]; then
        ok "$1: all ranks ended, after $seconds s"
    else
        not_ok "$1: all ranks ended" "after $seconds s, limit $limit_s s; still there: ${left:-none}"
    fi
    if ((code != 0)); then ok "$1: exit code $code"; else not_ok "$1: exit code" "0"; fi
    equal "$1: nothing under the final name" '' "$(files_in "$folder" | grep -v '\.part-' || true)"
}

kill_rank() { # name, rank, condition to wait for, flags
    local name=$1 rank=$2 condition=$3
    shift 3
    start "$@"
    if ! wait_until "$condition"; then
        not_ok "$name" "it did not come to $condition"$'\n'"$(cat "$work/err")"
        return
    fi
    signal_and_wait KILL "$(process_of_rank "$rank")"
    ended_well "$name"
    has_line "$name: mpirun names the lost rank" "$work/err" "rank $rank .* signal 9"
}

stop_run() { # name, condition to wait for, pattern of the phase, flags
    local name=$1 condition=$2 phase=$3
    shift 3
    start "$@"
    if ! wait_until "$condition"; then
        not_ok "$name" "it did not come to $condition"$'\n'"$(cat "$work/err")"
        return
    fi
    signal_and_wait TERM "$launcher"
    ended_well "$name"
    has_line "$name: our line names rank and phase" "$work/err" "^ringreel: rank [0-9] on .* SIGTERM.*during $phase"
    equal "$name: no partial file is left" '' "$(files_in "$folder")"
}

write_job "$work/job.yaml"
kill_rank 'kill -9 of a denoise rank' 1 has_steps --num-inference-steps 1000
kill_rank 'kill -9 of the codec rank' 2 has_steps --num-inference-steps 1000
slow_decode=(--width 256 --height 160 --num-frames 257 --num-inference-steps 1 --encoder libx264 --encoder-options preset=placebo)
kill_rank 'kill -9 of a denoise rank that decodes' 1 is_writing "${slow_decode[@]}"
has_line 'kill -9 of a denoise rank that decodes: so did the others' "$work/err" 'rank [02] .* during shot 1 decode'
stop_run 'SIGTERM while denoising' has_steps 'shot 1 step [0-9]+' --num-inference-steps 1000
stop_run 'SIGTERM while the video is written' is_writing 'shot 1 (decode|finish video)' \
    --width 256 --height 160 --num-frames 65 --num-inference-steps 1 --encoder libx264 --encoder-options preset=placebo

finish
