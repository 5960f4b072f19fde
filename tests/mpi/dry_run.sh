#!/usr/bin/env bash
# --dry-run on a model of the released sizes (2B, its VAE of 0.9.5 and later, T5-XXL), whose files are headers before a
# hole: every rank's memory is printed without any of it being taken, for pictures up to 3840x2176.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

model=$work/model
mkdir -p "$model/text_encoder" "$model/tokenizer" "$work/peaks"
cp models/tiny/tokenizer/spiece.model "$model/tokenizer"
"$BUILD/tests/mpi/hollow_checkpoint" "$model" >"$work/bytes"
# What the parameters of the released models take in BF16.
equal 'the tensors of the 2B and its VAE' "ltxv-2b.safetensors $((2 * (1923385472 + 1246913522 + 256)))" "$(sed -n 1p "$work/bytes")"
equal 'the tensors of T5-XXL' "text_encoder/model.safetensors $((2 * 4762310656))" "$(sed -n 2p "$work/bytes")"

program=$(realpath "$RINGREEL")
printf '#!/usr/bin/env bash\nexec "%s" "%s" "%s" "$@"\n' \
    "$(realpath "$BUILD/tests/mpi/peak_memory")" "$work/peaks" "$program" >"$work/measured"
chmod +x "$work/measured"
RINGREEL=$work/measured

plan() { # ranks, codec ranks, width, height, frames
    local layout=()
    (($1 == 0)) || layout=(--codec-ranks "$2" --last-decode codec)
    rm -f "$work/peaks"/*
    ringreel "$1" render --dry-run --prompt 'a red ball' --checkpoint-path "$model/ltxv-2b.safetensors" \
        --text-encoder-model-name-or-path "$model" --width "$3" --height "$4" --num-frames "$5" "${layout[@]}"
}

# MiB of a part on the rank that needs most of it; 0 without one.
part() { # name
    { grep -oE "[:,] $1 [0-9.]+ [GM]iB" "$work/out" || true; } |
        awk '{ x = $(NF - 1) * ($NF == "GiB" ? 1024 : 1) } x > most { most = x } END { printf "%.1f\n", most }'
}

below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

most_taken=0 # MiB, of any process
for size in '768 512' '1920 1088' '3840 2176'; do
    read -r width height <<<"$size"
    picture=${width}x$height
    previous=''
    for layout in '0 1' '3 1' '6 2' '9 4'; do
        read -r ranks codecs <<<"$layout"
        plan "$ranks" "$codecs" "$width" "$height" 121
        all=$((ranks ? ranks : 1))
        equal "$picture on $all ranks: exit code, lines" "0 $all" "$code $(grep -Ec '^rank [0-9]+, .* [0-9.]+ GiB: ' "$work/out" || true)"
        vae=$(part VAE)
        if ((ranks > 3)); then # twice the codec ranks of the layout before
            if below "$vae" "$(awk -v a="$previous" 'BEGIN { print a * 0.65 }')"; then
                ok "$picture: $codecs codec ranks share the VAE's memory"
            else
                not_ok "$picture: $codecs codec ranks share the VAE's memory" "half as many: $previous MiB, now: $vae MiB"
            fi
        fi
        previous=$vae
        taken=$(cat "$work/peaks"/* | awk '$1 > most { most = $1 } END { print most + 0 }')
        most_taken=$((taken > most_taken ? taken : most_taken))
    done
    plan 9 4 "$width" "$height" 1441
    equal "$picture: a minute takes the VAE no more than five seconds" "$vae" "$(part VAE)"
    has_line "$picture: the VAE is in the plan" "$work/out" '[:,] VAE [0-9.]+ [GM]iB'
done

if ((most_taken > 0 && most_taken < 256)); then
    ok 'no dry run took gigabytes'
else
    not_ok 'no dry run took gigabytes' "the largest process: $most_taken MiB"
fi

finish
