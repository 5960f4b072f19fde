#!/usr/bin/env bash
# When nothing is left to denoise, all ranks decode the last shot together: the bytes are those of one rank, and who has
# no memory for it does not.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

job=$work/job.yaml
trace=$work/trace.json

digests() { grep '^digest ' "$work/out" | sort || true; }

# Ranks that decoded a shot (counted from 0), in the trace: "0 1 2 "
decoders() { # shot
    sed -n "s/.*\"tid\":\([0-9]*\),.*\"name\":\"decode\",.*\"shot\":$1,.*/\1/p" "$trace" |
        awk '{ print $1 / 2 }' | sort -n | uniq | tr '\n' ' '
}

write_job "$job" 'shots:' "  - {output: $work/1.mp4, num_frames: 9}" \
    "  - {output: $work/2.mp4, width: 150, height: 90, num_frames: 41, prompt: a green ball}"
steps=(--num-inference-steps $((${SANITIZE:-0} == 1 ? 1 : 3)))
ringreel 0 render "$job" --digest --quiet "${steps[@]}"
reference=$(digests)
same_bytes() { # name, ranks, who decodes the last shot, flags
    local name=$1 ranks=$2 who=$3
    shift 3
    ringreel "$ranks" render "$job" --digest --trace "$trace" "${steps[@]}" "$@"
    equal "$name: exit code, bytes, who decoded" "0 $reference $who" "$code $(digests) $(decoders 1)"
}
if [[ ${SANITIZE:-0} == 1 ]]; then # every rank is thirty times slower then, and needs all addresses
    same_bytes '3 ranks' 3 '0 1 2 '
    finish
    exit
fi
same_bytes '1 rank' 1 '0 '
same_bytes '2 ranks' 2 '0 1 '
same_bytes '3 ranks' 3 '0 1 2 '
same_bytes '4 ranks, 2 of them codec ranks' 4 '0 1 2 3 ' --codec-ranks 2
equal '4 ranks: the first shot is left to the codec ranks' '2 3 ' "$(decoders 0)"
same_bytes 'more ranks than lines of the picture, weights streamed' 7 '0 1 2 3 4 5 6 ' --codec-ranks 1 --weights stream
same_bytes 'idle ranks' 5 '0 1 2 3 4 ' --denoise-ranks 1 --codec-ranks 2
same_bytes '3 ranks, not asked to' 3 '2 ' --codec-ranks 1 --last-decode codec
same_bytes '4 ranks, not asked to' 4 '2 3 ' --codec-ranks 2 --last-decode codec

# Where the decoder takes more than the transformer gives back, that is planned.
plan_of() { sed -n "s/^rank $1, [a-z+]*, on [^:]*: \([0-9.]*\) MiB.*/\1/p" "$work/out"; } # rank, in MiB
write_job "$work/large.yaml" "output: $work/3.mp4"
large=(--width 512 --height 512 --num-frames 9 --num-inference-steps 1)
ringreel 3 render "$work/large.yaml" "${large[@]}" --dry-run
helping=$(plan_of 0)
has_line 'the plan of a denoise rank that decodes' "$work/out" "^rank 0, .*decoding, beyond the transformer's [0-9.]+ MiB"
ringreel 3 render "$work/large.yaml" "${large[@]}" --dry-run --last-decode codec
alone=$(plan_of 0)
equal 'else it takes less' 1 "$(awk -v a="$alone" -v b="$helping" 'BEGIN { print (0 < a && a < b) }')"

# Rank 0 has no room for it, and all ranks know.
large=(--width 1536 --height 1536 --num-frames 1 --num-inference-steps 1)
cat >"$work/limited" <<END
#!/usr/bin/env bash
[[ \${OMPI_COMM_WORLD_RANK:-} != 0 ]] || ulimit -v 700000
exec "$(realpath "$RINGREEL")" "\$@"
END
chmod +x "$work/limited"
RINGREEL=$work/limited ringreel 3 render "$work/large.yaml" "${large[@]}" --trace "$trace"
equal 'no room: exit code, who decoded' '0 2 ' "$code $(decoders 0)"
has_line 'no room: it is said' "$work/err" '^ringreel: too little memory for all ranks to decode the last shot'

finish
