#!/usr/bin/env bash
# Model files that are missing, cut short, or not what they should be. The message names the file and the tensor.
set -euo pipefail
# shellcheck source=tests/support/cases.sh
. tests/support/cases.sh

good=models/tiny/ltxv-tiny.safetensors
bad=$work/bad.safetensors
write_job "$work/job.yaml" "output: $work/videos/clip.mp4"

# Replaces text in the header by as many other bytes: offsets and lengths stay right.
change_header() { LC_ALL=C sed "s/$1/$2/" "$good" >"$bad"; }

with_checkpoint() { # function of the case, name, pattern
    "$1" "$2" "$3" render "$work/job.yaml" --checkpoint-path "$bad"
}
one() { refused "$1" 0 "${@:2}"; }

head -c 200000 "$good" >"$bad"
with_checkpoint refused_by_all 'a truncated checkpoint' "$bad: .*past the"

head -c 5 "$good" >"$bad"
with_checkpoint one 'a checkpoint of 5 bytes' "$bad: not a safetensors file"

printf '\377\377\377\377\377\377\377\177{}' >"$bad"
with_checkpoint one 'a header of 2^63 bytes' "$bad: not a safetensors file"

{ printf '\0\0\100\1\0\0\0\0{"a":"'; head -c 20971520 /dev/zero | tr '\0' x; } >"$bad" # 20 MiB
with_checkpoint refused_by_all 'a header of 20 MiB' "$bad: not a safetensors file.* 16 MiB"

# 3 n + 7 bytes: n empty objects, each of which takes a parser hundreds of bytes.
n=2000000
{ printf '\207\215\133\0\0\0\0\0{"a":[{}'; awk "BEGIN { for (i = 1; i < $n; i++) printf \",{}\" }"; printf ']}'; } >"$bad"
with_checkpoint one 'a header of millions of values' "$bad: .*more than 1000000 values"

printf '\100\0\0\0\0\0\0\0{}' >"$bad"
with_checkpoint one 'a header length past the end' "$bad: truncated"

printf '\2\0\0\0\0\0\0\0{]' >"$bad"
with_checkpoint one 'a header that is not JSON' "$bad: .*JSON"

# The first rank that sees it is a denoise rank, a codec rank, and every rank.
name=transformer_blocks.0.attn1.to_q.weight
change_header "$name" "${name/to_q/to_x}"
leaks=1 with_checkpoint refused_by_all 'a transformer without one tensor' "$bad: tensor .*$name.* is missing"

name=decoder.conv_in.conv.weight
change_header "$name" "${name/conv_in/conv_xx}"
with_checkpoint refused_by_all 'a VAE without one tensor' "$bad: tensor .*$name.* is missing"

name=patchify_proj.weight
change_header "$name" "${name/patch/xxxxx}"
with_checkpoint refused_by_all 'a checkpoint without its first layer' "$bad: .*$name"

change_header '"BF16"' '"BX16"'
with_checkpoint one 'an unknown dtype' "$bad: tensor .*: unknown dtype \"BX16\""

rm "$bad"
with_checkpoint refused_by_all 'no checkpoint there' "$bad: No such file"
mkdir "$bad"
with_checkpoint one 'an empty folder as checkpoint' "$bad: "
mkdir "$bad/transformer" "$bad/vae"
with_checkpoint refused_by_all 'a folder without index or weights' "$bad/[a-z]+.*: "

encoder=$work/encoder
cp -r models/tiny "$encoder"
rm "$encoder/ltxv-tiny.safetensors"
with_encoder() { "$1" "$2" "$3" render "$work/job.yaml" --text-encoder-model-name-or-path "$encoder"; }

head -c 1000 models/tiny/tokenizer/spiece.model >"$encoder/tokenizer/spiece.model"
with_encoder refused_by_all 'a truncated tokenizer' "$encoder/tokenizer/spiece.model: not a usable SentencePiece model"
echo 'not a model' >"$encoder/tokenizer/spiece.model"
with_encoder one 'a tokenizer that is text' "$encoder/tokenizer/spiece.model: not a usable SentencePiece model"
rm "$encoder/tokenizer/spiece.model"
with_encoder one 'no tokenizer' "$encoder.*spiece.model"
cp models/tiny/tokenizer/spiece.model "$encoder/tokenizer/"
head -c 3000 models/tiny/text_encoder/model.safetensors >"$encoder/text_encoder/model.safetensors"
with_encoder one 'a truncated text encoder' "$encoder/text_encoder/model.safetensors: "
rm -r "$encoder"
with_encoder refused_by_all 'no text encoder there' "$encoder: No such file"

finish
