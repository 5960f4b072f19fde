# shellcheck shell=bash
# For the shell tests of long and large clips: rendered in one step, measured, checked. After tests/support/cases.sh,
# where work and code come from.
# shellcheck disable=SC2154

MODEL=${MODEL:-$PWD/models/tiny}
peaks=$work/peaks
mkdir -p "$peaks"
printf '#!/usr/bin/env bash\nexec "%s" "%s" "%s" "$@"\n' \
    "$(realpath "$BUILD/tests/mpi/peak_memory")" "$peaks" "$(realpath "$RINGREEL")" >"$work/measured"
chmod +x "$work/measured"
# The first .safetensors in the folder is the model; the folder is its text encoder too.
checkpoints=("$MODEL"/*.safetensors)

stage() { # name: its seconds, the longest of any rank
    cat "$work/events"* | sed -n "s/.*\"name\":\"$1\".*\"seconds\":\([0-9.]*\).*/\1/p" | sort -n | tail -n 1
}

# Renders $work/clip.mp4 and says what it took: "#" lines. The file must hold what was asked for, and no process may have
# taken more than `most` MiB.
clip() { # name, ranks, most, width, height, frames, words
    local name=$1 ranks=$2 most=$3 width=$4 height=$5 frames=$6 largest
    shift 6
    rm -f "$peaks"/* "$work/events"*
    RINGREEL=$work/measured ringreel "$ranks" render --checkpoint-path "${checkpoints[0]}" \
        --text-encoder-model-name-or-path "$MODEL" --prompt 'a red ball rolls over a blue floor' -o "$work/clip.mp4" \
        --width "$width" --height "$height" --num-frames "$frames" --frame-rate 24 --num-inference-steps 1 \
        --guidance-scale 1 --stg-scale 0 --log-json "$work/events" "$@"
    equal "$name: exit code" 0 "$code"
    ((code == 0)) || sed 's/^/#   /' "$work/err" | tail -n 20
    echo "# $name: ${width}x$height, $frames frames, $ranks ranks (0: without mpirun), $(nproc) processors"
    sed -n 's/^ringreel: \(memory of .*\)/#   planned, \1/p' "$work/err"
    for rank in "$peaks"/*; do
        read -r mib seconds <"$rank"
        echo "#   rank ${rank##*/}: $mib MiB at most, $seconds s"
    done
    echo "#   denoise $(stage denoise) s, decode $(stage decode) s, write $(stage write) s"
    largest=$(sort -n "$peaks"/* | tail -n 1 | cut -d ' ' -f 1)
    if ((largest > 0 && largest <= most)); then
        ok "$name: at most $most MiB a process"
    else
        not_ok "$name: at most $most MiB a process" "$largest MiB"
    fi
    ringreel 0 compare "$work/clip.mp4" "$work/clip.mp4" # reads it to its end
    equal "$name: what the file holds" "$frames frames of ${width}x$height: identical" "$(cat "$work/out")"
}
