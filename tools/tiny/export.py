"""The stage "export": a folder like any LTX-Video checkpoint's, in bf16."""

import json

import torch

from fixtures.common import write_safetensors
from fixtures.transformer import PREFIX

from . import autoencoder, flow, text

SCHEDULER = {"_class_name": "RectifiedFlowScheduler", "num_train_timesteps": 1000, "sampler": "LinearQuadratic",
             "shifting": None, "base_resolution": None, "target_shift_terminal": None}


def write(folder, vae, statistics, transformer, t5, tokenizer):
    """States and models -> FOLDER/ltxv-tiny.safetensors, text_encoder/, tokenizer/."""
    state = {PREFIX + name: t for name, t in transformer.state_dict().items()}
    state |= {f"vae.{name}": t for name, t in vae.state_dict().items()}
    state |= {"vae.per_channel_statistics.mean-of-means": statistics["mean"],
              "vae.per_channel_statistics.std-of-means": statistics["std"]}
    heads, layers = transformer.config.num_attention_heads, transformer.config.num_layers
    config = {"_class_name": "LTXVideo", "transformer": flow.config(layers, heads), "vae": autoencoder.config(),
              "scheduler": SCHEDULER}
    bf16 = {name: t.detach().cpu().to(torch.bfloat16) for name, t in state.items()}
    write_safetensors(folder / "ltxv-tiny.safetensors", bf16, {"config": json.dumps(config), "learnt": "shapes"})
    encoder = {name: t.detach().cpu().to(torch.bfloat16) for name, t in text.stored(t5).items()}
    write_safetensors(folder / "text_encoder" / "model.safetensors", encoder, {"format": "pt"})
    text.write_config(folder / "text_encoder", t5.config)
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "spiece.model").write_bytes((tokenizer / "spiece.model").read_bytes())
    sizes = {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
    print("export:", ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()),
          f"= {sum(sizes.values()) / 1e6:.2f} MB in {folder}", flush=True)
