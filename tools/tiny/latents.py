"""The stage "encode": many clips become latents once, so that the transformer never waits for the VAE."""

import json

import numpy as np
import torch

from fixtures.common import import_reference

from . import autoencoder, progress, world

SHARD = 200
LONG, LONG_SIZES = 65, ((64, 64), (96, 64), (64, 96), (96, 96))    # every eighth clip: few tokens, late positions


def scene_of(seed, i):
    pick = np.random.default_rng([seed, 4, i])
    if i % 8 == 7:
        return world.draw_scene(pick, LONG_SIZES[pick.integers(len(LONG_SIZES))], LONG, two=0.0)
    return world.draw_scene(pick, two=0.35)


def shard(vae, seed, numbers):
    """[(scene as JSON, fp16 latent as the encoder gives it)] of these clips."""
    rows = []
    for i in numbers:
        scene = scene_of(seed, i)
        rows.append((json.dumps(scene), autoencoder.encode(vae, world.render(scene)).half().cpu()))
    return rows


def make(vae, folder, count, seed, deadline, processes):
    """FOLDER/NNNN.pt: shards of clips. `deadline` () -> bool. Small convolutions gain little from a second
    thread, so each shard is made by one thread of its own process; on another device than the CPU by this one."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {k: range(k * SHARD, min(count, (k + 1) * SHARD)) for k in range((count + SHARD - 1) // SHARD)}
    wanted = [k for k in numbers if not (folder / f"{k:04}.pt").exists()]
    done = len(numbers) - len(wanted)
    with Workers(vae, processes) as workers:
        while wanted and not (done and deadline()):
            now, wanted = wanted[:workers.count], wanted[workers.count:]
            for k, rows in zip(now, workers.map(seed, [numbers[k] for k in now])):
                progress.save(rows, folder / f"{k:04}.pt")
            done += len(now)
            print(f"encode: {done} of {len(numbers)} shards", flush=True)


class Workers:
    """Processes with a copy of the VAE and one thread each; none of them for processes = 1."""

    def __init__(self, vae, processes):
        self.vae, self.count, self.pool = vae, processes, None

    def __enter__(self):
        if self.count > 1:
            self.pool = torch.multiprocessing.get_context("spawn").Pool(self.count, start, (self.vae.state_dict(),))
        return self

    def __exit__(self, *_):
        if self.pool:
            self.pool.terminate()

    def map(self, seed, lots):
        if not self.pool:
            return [shard(self.vae, seed, lot) for lot in lots]
        return self.pool.starmap(work, [(seed, lot) for lot in lots])


def start(weights):
    """In a new process."""
    global copy
    torch.set_num_threads(1)
    import_reference()
    copy = autoencoder.build()
    copy.load_state_dict(weights)
    copy.eval()


def work(seed, numbers):
    return shard(copy, seed, numbers)


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


def normalised(z, stats):
    """Latents [..., 128] as the transformer sees them."""
    return (z - stats["mean"].to(z.device)) / stats["std"].to(z.device)


class Library:
    """All latents in memory, normalised, by grid."""

    def __init__(self, work, stats):
        self.grids = {}
        for file in sorted((work / "latents").glob("*.pt")):
            for scene, latent in torch.load(file):
                z = normalised(latent.float(), stats)
                self.grids.setdefault(tuple(z.shape[:3]), []).append((json.loads(scene), z.flatten(0, 2).half()))
        self.names = sorted(self.grids)
        print(f"library: {sum(map(len, self.grids.values()))} clips on {len(self.names)} grids", flush=True)

    def odds(self, longest):
        """How often each grid is drawn: as often as it was made, and only up to `longest` tokens."""
        odds = np.array([len(self.grids[g]) * (np.prod(g) <= longest) for g in self.names], float)
        if not odds.any():
            odds[np.argmin([np.prod(g) for g in self.names])] = 1
        return odds / odds.sum()
