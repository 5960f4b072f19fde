"""What every stage of training shares: its clock and learning rate, saved state, averaged weights, curves."""

import csv
import math
import os
import queue
import threading
import time
from pathlib import Path

import numpy as np
import torch

from .muon import Muon

# Not for Muon: what is no matrix of a hidden layer, and T5, whose scores have neither a scale nor a norm. Muon's large
# steps make them so large that the places of words no longer count.
ADAM_ONLY = ("shared", "embed", "scale_shift_table", "SelfAttention", "DenseReluDense", "glance", "answers", "floor",
             "proj_out", "patchify_proj", "time_embedder", "adaln_single")


def save(value, file):
    """Whole or not at all: a killed run leaves the file before."""
    part = Path(f"{file}.part")
    torch.save(value, part)
    os.replace(part, file)


def rounded(state):
    """Weights as bf16 will store them, in float32."""
    return {name: t.to(torch.bfloat16).float() if t.is_floating_point() else t.clone() for name, t in state.items()}


def products(device):
    """The type in which a device multiplies fast: bf16 where it has instructions for it. Weights and sums stay fp32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.bfloat16 if fast else torch.float32


class Feed:
    """make(step) for step, step + 1, … computed ahead in a thread. A step's data depend on its number only."""

    def __init__(self, make, step, depth=6):
        self.queue = queue.Queue(depth)
        self.over = False
        self.thread = threading.Thread(target=self.run, args=(make, step), daemon=True)
        self.thread.start()

    def run(self, make, step):
        while not self.over:
            item = make(step)
            step += 1
            while not self.over:
                try:
                    self.queue.put(item, timeout=0.5)
                    break
                except queue.Full:
                    pass

    def __next__(self):
        return self.queue.get()

    def close(self):
        self.over = True
        self.thread.join()


class Stage:
    """One training loop: `modules` {name: module} learn from loss(step, data) until `steps` or `minutes` are over.

    `kind`: what Muon computes in. After each kept interval WORK/NAME.state.pt holds everything needed to go on;
    WORK/NAME.csv the curve."""

    def __init__(self, name, work, modules, rate, adam_rate, steps, minutes, device, keep_seconds=180, decay=0.0,
                 average=0.999, warm=200, kind=torch.float32):
        self.name, self.file, self.curve = name, work / f"{name}.state.pt", work / f"{name}.csv"
        self.modules, self.steps, self.minutes, self.device = modules, steps, minutes, device
        self.keep_seconds, self.average, self.warm = keep_seconds, average, warm
        named = [(key, p) for m in modules.values() for key, p in m.named_parameters() if p.requires_grad]
        self.weights = [p for _, p in named]
        matrix = [p.ndim > 1 and not any(word in key for word in ADAM_ONLY) for key, p in named]
        self.rates = (rate, adam_rate)
        self.optimizers = (
            Muon([p for p, m in zip(self.weights, matrix) if m], rate, weight_decay=decay, kind=kind),
            torch.optim.AdamW([p for p, m in zip(self.weights, matrix) if not m], lr=adam_rate, betas=(0.9, 0.98),
                              weight_decay=0.0, fused=True))
        self.mean = [p.detach().clone() for p in self.weights]
        self.step, self.seconds, self.extra = 0, 0.0, {}
        if self.file.exists():
            self.load()

    def load(self):
        saved = torch.load(self.file, map_location=self.device, weights_only=False)
        for name, module in self.modules.items():
            module.load_state_dict(saved["modules"][name])
        for optimizer, state in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        self.mean = [t.to(self.device) for t in saved["mean"]]
        self.step, self.seconds, self.extra = saved["step"], saved["seconds"], saved["extra"]
        print(f"{self.name}: goes on at step {self.step}, {self.seconds / 60:.1f} minutes done", flush=True)

    def keep(self):
        save({"modules": {name: m.state_dict() for name, m in self.modules.items()},
              "optimizers": [o.state_dict() for o in self.optimizers], "mean": self.mean, "step": self.step,
              "seconds": self.seconds, "extra": self.extra}, self.file)

    @property
    def done(self):
        """The share of the stage that is over, 0…1."""
        share = self.step / self.steps if self.steps else 0.0
        return min(1.0, max(share, self.seconds / (60 * self.minutes) if self.minutes else 0.0))

    def learning_rate(self):
        """As a share of its peak."""
        return min(1, (self.step + 1) / self.warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.done)))

    def update(self, loss):
        """False where the step was left out because the loss or its gradient is not finite."""
        for p in self.weights:
            p.grad = None
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        if not torch.isfinite(norm):
            return False
        for optimizer, rate in zip(self.optimizers, self.rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * self.learning_rate()
            optimizer.step()
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.weights],
                             1 - min(self.average, (self.step + 1) / (self.step + 10)))
        return True

    def swap(self):
        """Exchanges the weights and their running mean."""
        with torch.no_grad():
            for p, m in zip(self.weights, self.mean):
                kept = p.detach().clone()
                p.copy_(m)
                m.copy_(kept)

    def write(self, row):
        new = not self.curve.exists()
        with open(self.curve, "a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(row)
            writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])

    def run(self, make, loss, every=50, look=None, look_every=0):
        """loss(data, step) -> (scalar, {name: number}); look(step) -> {name: number} on the averaged weights."""
        feed = Feed(make, self.step)
        sums, count, begun, kept = {}, 0, time.time(), time.time()
        while self.done < 1:
            at = time.time()
            total, parts = loss(next(feed), self.step)
            if not self.update(total):
                print(f"{self.name}: step {self.step} left out, not finite", flush=True)
            self.step += 1
            self.seconds += time.time() - at
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + float(value)
            count += 1
            over = self.done >= 1
            if count == every or over:
                row = {"step": self.step, "minutes": self.seconds / 60, "rate": self.learning_rate()}
                row |= {key: value / count for key, value in sums.items()}
                row["seconds_per_step"] = (time.time() - begun) / count
                self.write(row)
                print(f"{self.name}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
                sums, count, begun = {}, 0, time.time()
            if look and look_every and (self.step % look_every == 0 or over):
                self.swap()
                seen = look(self.step)
                self.swap()
                print(f"{self.name}: seen at step {self.step}: "
                      + ", ".join(f"{k} {v:.4g}" for k, v in seen.items()), flush=True)
                with open(self.curve.with_suffix(".seen.csv"), "a") as file:
                    file.write(f"{self.step}," + ",".join(f"{k}={v:.5g}" for k, v in seen.items()) + "\n")
                begun = time.time()
            if over or time.time() - kept > self.keep_seconds:
                self.keep()
                kept = time.time()
        feed.close()
        return self


# ---- curves ------------------------------------------------------------------------------------


def read_curve(file):
    with open(file) as f:
        rows = list(csv.DictReader(f))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def smooth(values, span):
    weight = np.exp(-np.arange(4 * span) / span)
    padded = np.concatenate([np.full(len(weight) - 1, values[0]), values])
    return np.convolve(padded, weight / weight.sum(), "valid")


def plot(panels, file, size=(460, 300)):
    """panels: [(title, unit of x, x, {name: y})], each in a box of its own, logarithmic upwards."""
    from PIL import Image, ImageDraw
    inks = ((31, 98, 176), (207, 84, 28), (40, 140, 70), (130, 60, 160))
    width, height = size
    picture = Image.new("RGB", (width * len(panels), height), "white")
    draw = ImageDraw.Draw(picture)
    for k, (title, unit, x, lines) in enumerate(panels):
        left, right, top, bottom = k * width + 62, (k + 1) * width - 14, 34, height - 36
        every = np.concatenate([np.log10(np.maximum(y, 1e-9)) for y in lines.values()])
        low, high = every.min() - 0.05, every.max() + 0.05
        draw.rectangle((left, top, right, bottom), outline=(150, 150, 150))
        draw.text((left, 8), title, fill="black")
        draw.text((right - 6 * len(unit), bottom + 18), unit, fill=(90, 90, 90))
        for tick in range(5):
            value = low + (high - low) * tick / 4
            y = bottom - (bottom - top) * tick / 4
            draw.line((left, y, right, y), fill=(228, 228, 228))
            draw.text((left - 54, y - 6), f"{10 ** value:.3g}", fill=(90, 90, 90))
            at = left + (right - left) * tick / 4
            draw.text((at - 10, bottom + 4), f"{x[0] + (x[-1] - x[0]) * tick / 4:.3g}", fill=(90, 90, 90))
        for ink, (name, values) in zip(inks, lines.items()):
            logs = np.log10(np.maximum(values, 1e-9))
            px = left + (x - x[0]) / max(x[-1] - x[0], 1e-9) * (right - left)
            py = bottom - (logs - low) / (high - low) * (bottom - top)
            draw.line([*zip(px.tolist(), py.tolist())], fill=ink, width=2)
            draw.text((right - 110, top + 6 + 14 * inks.index(ink)), name, fill=ink)
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)
