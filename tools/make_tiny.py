#!/usr/bin/env python
"""Writes models/tiny: a complete LTX-Video model, a few megabytes, with random weights.

    python tools/make_tiny.py
"""

import copy
import io
import json
import pydoc_data.topics
import random
import zlib

import torch

from fixtures.common import TINY, import_reference, spread, write_safetensors
from fixtures.scenes import scenes
from fixtures.text import t5_config, t5_load, t5_shapes
from fixtures.transformer import PREFIX, config as transformer_config
from fixtures.vae import config as vae_config, decoder_095, empty as empty_vae, encoder_095

SEED = 2024
VOCAB, CAPTION = 2000, 64
VAE_BASE = 4
ENCODER_LAYERS = (2, 2, 2, 1, 1)
DECODER_LAYERS = (5, 5, 5, 5)
CONFIG = {
    "_class_name": "LTXVideo",
    "transformer": transformer_config(layers=4, heads=4, head_dim=32, caption=CAPTION),
    "vae": vae_config(encoder_095(ENCODER_LAYERS), decoder_095(DECODER_LAYERS), True, VAE_BASE, 128),
    "scheduler": {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000,
                  "sampler": "LinearQuadratic", "shifting": None, "base_resolution": None,
                  "target_shift_terminal": None}}


def weights(shapes):
    """{name: shape} -> {name: float32 tensor}; a tensor depends on its name and SEED only."""
    out = {}
    for name, shape in shapes.items():
        scale, offset = spread(name, shape)
        generator = torch.Generator().manual_seed(SEED + zlib.crc32(name.encode()))
        exact = name.endswith("timestep_scale_multiplier")
        out[name] = torch.randn(shape, generator=generator) * (0.0 if exact else scale) + offset
    return out


def smooth(weight, group, own=0.24):
    """A convolution that mostly blurs, with `group` consecutive output channels nearly alike: without
    it a random decoder paints confetti."""
    tap = torch.tensor([1.0, 2.0, 1.0])
    blur = tap[:, None, None] * tap[:, None] * tap
    gain = weight.mean(dim=(2, 3, 4), keepdim=True) * 27 ** 0.5       # one number per channel pair
    out = 0.97 * gain * blur / blur.norm() + 0.24 * weight
    rows = out.unflatten(0, (-1, group))
    return ((1 - own ** 2) ** 0.5 * rows[:, :1] + own * rows).flatten(0, 1)


def transformer():
    from ltx_video.models.transformers.transformer3d import Transformer3DModel
    with torch.device("meta"):
        model = Transformer3DModel.from_config(CONFIG["transformer"])
    return weights({PREFIX + name: tuple(t.shape) for name, t in model.state_dict().items()})


def vae():
    """Random, but smooth, and with the decoder's output stretched to the range of pixels."""
    from ltx_video.models.autoencoders.vae_encode import vae_decode
    model, shapes = empty_vae(CONFIG["vae"])
    state = weights(shapes)
    for name in state:
        if name.startswith("vae.decoder") and name.endswith("conv.weight"):
            if "conv_out" in name:
                state[name] = smooth(state[name], 16, own=0.1)
            else:
                state[name] = smooth(state[name], 8 if name.endswith("conv.conv.weight") else 1)
    model.load_state_dict(state)
    latents = torch.randn(1, 128, 3, 3, 4, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        video = vae_decode(latents, model, True, vae_per_channel_normalize=True,
                           timestep=torch.tensor([0.05]))
    scale = 0.45 / video.std()
    colour = video.mean(dim=(0, 2, 3, 4))
    state["vae.decoder.conv_out.conv.weight"] *= scale
    bias = state["vae.decoder.conv_out.conv.bias"].unflatten(0, (3, 16))
    bias = 0.1 * (bias - bias.mean(1, keepdim=True)) + (bias.mean(1) - colour)[:, None]
    state["vae.decoder.conv_out.conv.bias"] = (bias * scale).flatten()
    return state


def write(file, state, metadata):
    write_safetensors(file, {name: t.to(torch.bfloat16) for name, t in state.items()}, metadata)


def text_encoder(folder):
    from transformers import T5EncoderModel
    cfg = t5_config(d_model=CAPTION, d_kv=16, heads=4, d_ff=128, layers=2, vocab=VOCAB + 128)
    model = T5EncoderModel(cfg)
    state = weights(t5_shapes(model))
    t5_load(model, state)
    write(folder / "model.safetensors", state, {"format": "pt"})
    keys = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size", "feed_forward_proj",
            "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon",
            "dropout_rate", "pad_token_id", "eos_token_id", "decoder_start_token_id",
            "is_encoder_decoder", "use_cache", "tie_word_embeddings")
    card = {"architectures": ["T5EncoderModel"], "model_type": "t5", "dtype": "bfloat16"}
    card |= {key: getattr(cfg, key) for key in keys}
    (folder / "config.json").write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def tokenizer(folder):
    """Unigram with T5's options, from English that ships with Python and from scene descriptions."""
    import sentencepiece
    prose = "\n".join(pydoc_data.topics.topics[key] for key in sorted(pydoc_data.topics.topics))
    lines = [line.strip() for line in prose.splitlines() if line.strip()] + scenes(random.Random(SEED), 6000)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=VOCAB,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>",
        normalization_rule_name="nmt_nfkc", byte_fallback=False, num_threads=1, minloglevel=2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())


def main():
    torch.set_num_threads(1)
    import_reference()
    config = copy.deepcopy(CONFIG)
    write(TINY / "ltxv-tiny.safetensors", transformer() | vae(), {"config": json.dumps(config)})
    text_encoder(TINY / "text_encoder")
    tokenizer(TINY / "tokenizer")
    for file in sorted(TINY.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size:9}  {file.relative_to(TINY)}")


if __name__ == "__main__":
    main()
