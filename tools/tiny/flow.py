"""The stage "transformer": the official Transformer3DModel learns the flow from noise to latents, together
with the text encoder."""

import contextlib

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fixtures.transformer import config as transformer_config, coordinates

from . import captions, guides, text

LAYERS, HEADS, HEAD = 6, 8, 32
NO_TEXT, FROM_IMAGE = 0.12, 0.25
IMAGE_NOISE = 0.15                 # the pipeline's image_cond_noise_scale
# Rotary phases for small pictures: from a sixteenth of a turn and a half per token to half a turn, in space and, at
# 24 frames a second, in time. The released models' 20 s, 2048 pixels and theta 10000 leave most heads without a sense
# of where a token is.
POSITIONS = {"positional_embedding_theta": 16.0, "positional_embedding_max_pos": [5, 512, 512]}
GUIDANCE = 0.1                     # weight of guides.py at the full learning rate


def config(layers=LAYERS, heads=HEADS):
    return transformer_config(layers, heads, HEAD, text.WIDTH) | POSITIONS


def build(layers=LAYERS, heads=HEADS):
    """Fresh weights: every block begins as a small correction, the output as zero."""
    from ltx_video.models.transformers.transformer3d import Transformer3DModel
    model = Transformer3DModel.from_config(config(layers, heads))
    width = heads * HEAD
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(p)
        elif name.endswith(("to_out.0.weight", "ff.net.2.weight")):
            torch.nn.init.normal_(p, std=(2 * layers * p.shape[1]) ** -0.5)
        elif name == "adaln_single.linear.weight":
            torch.nn.init.normal_(p, std=0.3 * width ** -0.5)
        elif name == "proj_out.weight":
            torch.nn.init.zeros_(p)
        elif name.endswith("scale_shift_table"):
            torch.nn.init.zeros_(p)
            if p.shape[0] == 6:
                p.data[[2, 5]] = 1.0                                    # the gates stand open
        elif p.ndim == 2:
            torch.nn.init.normal_(p, std=p.shape[1] ** -0.5)
    return model


# ---- what a step learns from -------------------------------------------------------------------


def batch(library, tokens, seed, step, budget, longest):
    """Clips on one grid, about `budget` tokens, with captions worded anew."""
    pick = np.random.default_rng([seed, 5, step])
    grid = library.names[pick.choice(len(library.names), p=library.odds(longest))]
    shelf = library.grids[grid]
    count = max(1, min(budget // int(np.prod(grid)), 64))
    rows = [shelf[k] for k in pick.integers(0, len(shelf), count)]
    blank = pick.random(count) < NO_TEXT
    said = [captions.nothing(pick) if b else captions.caption(scene, pick) for b, (scene, _) in zip(blank, rows)]
    ids, mask = tokens(said)
    coords = torch.stack([coordinates(*grid, scene["rate"], True) for scene, _ in rows])
    return {"x": torch.stack([z for _, z in rows]).float(), "coords": coords, "ids": ids, "mask": mask,
            "labels": [captions.labels(scene) for scene, _ in rows], "from_image": pick.random() < FROM_IMAGE,
            "blank": blank.tolist(),
            "wanted": guides.answers([scene for scene, _ in rows], grid),
            "per_frame": grid[1] * grid[2], "seed": int(pick.integers(2 ** 31))}


def draw_times(count, pick):
    """Noise levels in 0…1: mostly where it is decided what stands where. With 128 numbers a token, that shows through
    a lot of noise: from 0.9 on downwards all is settled, and half of the sampler's steps lie above 0.97."""
    kind, even = torch.rand(2, count, generator=pick)
    bell = torch.sigmoid(2.2 + 1.3 * torch.randn(count, generator=pick))
    return torch.where(kind < 0.6, bell, torch.where(kind < 0.8, even, 1 - 0.04 * even))


def loss(model, t5, questions, guide, data, device, weight, kind=torch.float32):
    """weight: of the guides, as a share; kind: of the products. Attention in bf16 goes without PyTorch's fused kernel,
    whose way back takes four times as long on a processor as in fp32."""
    pick = torch.Generator().manual_seed(data["seed"])
    x, per_frame = data["x"], data["per_frame"]
    count, tokens = x.shape[:2]
    noise = torch.randn(x.shape, generator=pick)
    t = draw_times(count, pick)[:, None]
    noisy = (1 - t[..., None]) * x + t[..., None] * noise
    first = per_frame if data["from_image"] else 0
    if first:
        shaky = IMAGE_NOISE * torch.rand(count, 1, 1, generator=pick) * t[..., None] ** 2 * noise
        noisy[:, :first] = (x + shaky)[:, :first]
        t = t.repeat(1, tokens)                 # a level for each token costs a tenth of the step
        t[:, :first] = 0.0
    x, noise, noisy, t = (v.to(device) for v in (x, noise, noisy, t))
    ids, mask = data["ids"].to(device), data["mask"].to(device)
    half = kind != torch.float32
    plain = sdpa_kernel(SDPBackend.MATH) if half and device.type == "cpu" else contextlib.nullcontext()
    with torch.autocast(device.type, kind, enabled=half), plain:
        said = t5(ids, attention_mask=mask)[0]
        velocity = model(noisy, indices_grid=data["coords"].to(device), encoder_hidden_states=said,
                         encoder_attention_mask=mask, timestep=t, return_dict=False)[0]
    said, velocity = said.float(), velocity.float()
    error = (velocity - (noise - x)).square().mean(-1)
    flow = error[:, first:].mean()
    heard = torch.tensor([not b for b in data["blank"]], device=device)
    asked, right = torch.zeros((), device=device), torch.zeros((), device=device)
    if heard.any():
        labels = text.stack_labels([row for row, b in zip(data["labels"], data["blank"]) if not b], device)
        asked, right = questions(said[heard], mask[heard], labels)
    guided, seen = guide(data["wanted"])
    return flow + 0.05 * asked + GUIDANCE * weight * guided, {"flow": flow.detach(), "asked": asked.detach(),
                                                              "right": right} | seen


# ---- sampling ----------------------------------------------------------------------------------


@torch.no_grad()
def sample(model, t5, tokens, prompts, grid, rate, levels, guidance, seed, image=None):
    """Normalised latents [B, 128, f, h, w], as the official pipeline computes them; image [B, h*w, 128] at frame 0."""
    device = next(model.parameters()).device
    count, per_frame = len(prompts), grid[1] * grid[2]
    x = torch.randn(count, int(np.prod(grid)), 128, generator=torch.Generator().manual_seed(seed)).to(device)
    ids, mask = (v.to(device) for v in tokens(list(prompts) + [captions.NEGATIVE] * count))
    said = t5(ids, attention_mask=mask)[0]
    coords = coordinates(*grid, rate, True)[None].expand(2 * count, -1, -1).to(device)
    rows = 2 * count if guidance != 1 else count
    if image is not None:
        x[:, :per_frame] = image.to(device)
    for level, following in zip(levels, [*levels[1:], 0.0]):
        t = torch.full(x.shape[:2], float(level), device=device)
        if image is not None:
            t[:, :per_frame] = 0
        v = model(torch.cat([x, x])[:rows], indices_grid=coords[:rows], encoder_hidden_states=said[:rows],
                  encoder_attention_mask=mask[:rows], timestep=torch.cat([t, t])[:rows], return_dict=False)[0]
        if guidance != 1:
            with_text, without = v.chunk(2)
            v = without + guidance * (with_text - without)
        step = v * (float(level) - float(following))
        if image is not None:
            step[:, :per_frame] = 0
        x = x - step
    return x.transpose(1, 2).unflatten(2, grid)


def levels(steps):
    from ltx_video.schedulers.rf import linear_quadratic_schedule
    return linear_quadratic_schedule(steps).tolist()
