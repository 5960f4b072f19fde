# shellcheck shell=bash
# For the shell tests: cases, a folder for their files, runs of ringreel and what is expected of them.
# Sourced from the repository root; RINGREEL and BUILD come from tests/run.sh.

RINGREEL=${RINGREEL:-./ringreel}
BUILD=${BUILD:-build}
export RINGREEL
code=0 # of the last run
leaks=0
work=$(mktemp -d /tmp/ringreel-test.XXXXXX)
cases_failed=0
trap 'rm -rf "$work"' EXIT

ok() { printf 'ok - %s\n' "$1"; }

skip() { printf 'ok - %s # skip %s\n' "$1" "$2"; }

# name, and what was seen instead
not_ok() {
    printf 'not ok - %s\n' "$1"
    [[ $# -lt 2 ]] || printf '%s\n' "$2" | sed 's/^/#   /'
    cases_failed=$((cases_failed + 1))
}

# name, wanted, got
equal() {
    if [[ $2 == "$3" ]]; then ok "$1"; else not_ok "$1" "wanted: $2"$'\n'"got:    $3"; fi
}

# name, file, extended regular expression
has_line() {
    if grep -Eq -- "$3" "$2"; then ok "$1"; else not_ok "$1" "no line like: $3"$'\n'"$(tail -n 20 "$2")"; fi
}

finish() { ((cases_failed == 0)); }

# Runs ringreel; the exit code goes to `code`, output to $work/out and $work/err. ranks: 0 = without mpirun.
# With the sanitizers, leaks are looked for without mpirun and where `leaks` is 1: sorting out the MPI library's own
# takes a rank several seconds.
ringreel() { # ranks, words
    local ranks=$1 sanitizer=${ASAN_OPTIONS:-}
    shift
    code=0
    if ((ranks == 0)); then
        "$RINGREEL" "$@" >"$work/out" 2>"$work/err" || code=$?
    else
        ((leaks == 1)) || sanitizer+=:detect_leaks=0:fast_unwind_on_malloc=1
        ASAN_OPTIONS=$sanitizer launch/ringreel-mpi -n "$ranks" "$@" >"$work/out" 2>"$work/err" || code=$?
    fi
}

# Every file below a folder.
files_in() { find "$1" -type f | sort; }

# Renders on a disk of SIZE at $work/disk that only the run sees: exit code 2 and one error line, which matches LINE.
# $work/out then lists what is left there. Fails where mounting is not permitted.
on_full_disk() { # name, size, ranks (0: without mpirun), line, words
    local name=$1 size=$2 ranks=$3 line=$4 start=("$RINGREEL")
    shift 4
    ((ranks == 0)) || start=(launch/ringreel-mpi -n "$ranks")
    mkdir -p "$work/disk"
    # shellcheck disable=SC2016 # the inner shell expands
    if ! unshare --map-root-user --mount sh -c 'mount -t tmpfs -o size="$2" none "$1"' sh "$work/disk" "$size" \
        2>/dev/null; then
        skip "$name" 'mounting is not permitted here'
        return 1
    fi
    code=0
    # shellcheck disable=SC2016 # the inner shell expands
    unshare --map-root-user --mount sh -c '
        disk=$1 size=$2
        shift 2
        mount -t tmpfs -o size="$size" none "$disk" || exit 9
        "$@"
        code=$?
        ls "$disk"
        exit $code' sh "$work/disk" "$size" "${start[@]}" render "$@" >"$work/out" 2>"$work/err" || code=$?
    equal "$name: exit code" 2 "$code"
    equal "$name: one error line" 1 "$(grep -c '^ringreel: error: ' "$work/err" || true)"
    has_line "$name: it is named" "$work/err" "^ringreel: error: $work/disk/$line"
}

# A job of the tiny model with small pictures: file, then extra lines.
write_job() {
    local file=$1
    shift
    cat >"$file" <<JOB
checkpoint_path: $PWD/models/tiny/ltxv-tiny.safetensors
text_encoder_model_name_or_path: $PWD/models/tiny
width: 96
height: 64
num_frames: 17
frame_rate: 25
num_inference_steps: 3
guidance_scale: 3
stg_scale: 0
rescaling_scale: 1
prompt: a red ball rolls over a blue floor
JOB
    (($# == 0)) || printf '%s\n' "$@" >>"$file"
}

# What is wrong with the input is said in one line by one rank, all ranks leave with exit code 2, and no file appears.
# The outputs of the run must go to $work/videos.
refused() { # name, ranks, extended regular expression for the line, words
    local name=$1 ranks=$2 pattern=$3 lines
    shift 3
    ((ranks == 0)) || name+=", $ranks ranks"
    mkdir -p "$work/videos"
    ringreel "$ranks" "$@"
    lines=$(grep -c '^ringreel: error: ' "$work/err" || true)
    if ((code != 2)); then
        not_ok "$name" "exit code $code instead of 2"$'\n'"$(tail -n 20 "$work/err")"
    elif ((lines != 1)); then
        not_ok "$name" "$lines error lines instead of 1"$'\n'"$(tail -n 20 "$work/err")"
    elif ! grep -Eq -- "^ringreel: error: $pattern" "$work/err"; then
        not_ok "$name" "wanted: $pattern"$'\n'"$(grep '^ringreel: error: ' "$work/err")"
    elif grep -q 'Sanitizer' "$work/err"; then
        not_ok "$name" "$(cat "$work/err")"
    elif grep -q '^ringreel: rank .* ended by' "$work/err"; then
        not_ok "$name" "a rank calls itself killed"$'\n'"$(tail -n 20 "$work/err")"
    elif [[ -n $(files_in "$work/videos") ]]; then
        not_ok "$name" "left behind:"$'\n'"$(files_in "$work/videos")"
    else
        ok "$name"
    fi
    rm -rf "$work/videos"
}

# The same without mpirun and on several ranks.
refused_by_all() { # name, regular expression, words
    local name=$1
    shift
    refused "$name" 0 "$@"
    refused "$name" 3 "$@"
}
