"""The stage "encode": many clips become latents once, so that the transformer never waits for the VAE."""

import json

import numpy as np
import torch

from . import autoencoder, progress, world

SHARD = 200
LONG, LONG_SIZES = 65, ((64, 64), (96, 64), (64, 96), (96, 96))    # every eighth clip: few tokens, late positions


def scene_of(seed, i):
    pick = np.random.default_rng([seed, 4, i])
    if i % 8 == 7:
        return world.draw_scene(pick, LONG_SIZES[pick.integers(len(LONG_SIZES))], LONG, two=0.0)
    return world.draw_scene(pick, two=0.35)


def make(vae, work, count, seed, deadline, device):
    """WORK/latents/NNNN.pt: lists of scenes and fp16 latents as the encoder gives them. `deadline` () -> bool."""
    folder = work / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    for k in range((count + SHARD - 1) // SHARD):
        file = folder / f"{k:04}.pt"
        if file.exists():
            continue
        if deadline() and k:
            break
        rows = []
        for i in range(k * SHARD, min(count, (k + 1) * SHARD)):
            scene = scene_of(seed, i)
            latent = autoencoder.encode(vae, world.render(scene)).half().cpu()
            rows.append((json.dumps(scene), latent))
        progress.save(rows, file)
        print(f"encode: {k * SHARD + len(rows)} clips", flush=True)


def statistics(work):
    """Mean and deviation of each channel, over clips so that every clip counts the same. A channel that
    hardly says anything gets a larger deviation than its own, so that it stays quiet."""
    total, square, count = 0.0, 0.0, 0
    for file in sorted((work / "latents").glob("*.pt"))[:10]:
        for _, latent in torch.load(file):
            z = latent.double().flatten(0, 2)
            total, square, count = total + z.mean(0), square + (z ** 2).mean(0), count + 1
    mean = total / count
    std = (square / count - mean ** 2).clamp(min=0).sqrt()
    return {"mean": mean.float(), "std": std.clamp(min=0.1 * float(std.median())).float()}


class Library:
    """All latents in memory, normalised, by grid."""

    def __init__(self, work, stats):
        self.grids = {}
        for file in sorted((work / "latents").glob("*.pt")):
            for scene, latent in torch.load(file):
                z = (latent.float() - stats["mean"]) / stats["std"]
                self.grids.setdefault(tuple(z.shape[:3]), []).append((json.loads(scene), z.flatten(0, 2).half()))
        self.names = sorted(self.grids)
        print(f"library: {sum(map(len, self.grids.values()))} clips on {len(self.names)} grids", flush=True)

    def odds(self, longest):
        """How often each grid is drawn: as often as it was made, and only up to `longest` tokens."""
        odds = np.array([len(self.grids[g]) * (np.prod(g) <= longest) for g in self.names], float)
        if not odds.any():
            odds[np.argmin([np.prod(g) for g in self.names])] = 1
        return odds / odds.sum()
