#!/usr/bin/env python
"""Trains the small LTX-Video model from nothing but its own synthetic world.

    python tools/tiny/train.py                       # every stage, goes on where it was stopped
    python tools/tiny/train.py --smoke               # the same with toy budgets, in two minutes
    python tools/tiny/train.py --device cuda
    python tools/tiny/train.py --stage vae --budget-minutes 60

Stages: tokenizer, text, vae, polish, encode, transformer, evaluate, export. What a stage learns is kept in --work;
the result is a checkpoint folder like any other, WORK/export.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")   # the default forgets the shapes of many grids

import numpy as np
import torch

from fixtures.common import import_reference
from tiny import autoencoder, export, flow, guides, latents, measure, progress, text, world

STAGES = ("tokenizer", "text", "vae", "polish", "encode", "transformer", "evaluate", "export")
SEED = 2024
STEPS = {"text": 1200, "vae": 10000, "polish": 2500, "transformer": 8000}
CLIPS = 8000
TOKENS = 2048                      # of latents in a step of the transformer
SHORT, LONG = 100, 200             # tokens of a clip, in the first half of that stage and after
TOY = {"text": 60, "vae": 25, "polish": 10, "transformer": 20}


class Recipe:
    def __init__(self, options):
        self.o, self.work, self.device = options, options.work, torch.device(options.device)
        self.steps = TOY if options.smoke else STEPS

    def stage(self, name, modules, rate, adam_rate, **more):
        minutes, steps = self.o.budget_minutes, self.o.steps or self.steps[name]
        return progress.Stage(name, self.work, modules, rate, adam_rate, None if minutes else steps, minutes, self.device, **more)

    def finish(self, stage, file):
        """Averaged weights, rounded as they will be stored."""
        stage.swap()
        progress.save({name: progress.rounded(m.state_dict()) for name, m in stage.modules.items()}, self.work / file)
        stage.swap()

    def finished(self, file, **modules):
        """Modules with the weights a stage left."""
        saved = torch.load(self.work / file, map_location="cpu")
        for name, module in modules.items():
            module.load_state_dict(saved[name])
            module.eval().to(self.device)
        return modules.values()

    # ---- the stages ----------------------------------------------------------------------------

    def tokenizer(self):
        if not (self.work / "tokenizer" / "spiece.model").exists():
            text.train_tokenizer(self.work / "tokenizer", self.o.seed)

    def tokens(self):
        return text.Tokens(self.work / "tokenizer")

    def text(self):
        torch.manual_seed(self.o.seed)
        t5, questions = text.build().to(self.device), text.Questions().to(self.device)
        tokens = self.tokens()
        stage = self.stage("text", {"t5": t5, "questions": questions}, 0.01, 1e-3, warm=100)
        stage.run(lambda step: text.batch(tokens, self.o.seed, step, 32),
                  lambda data, step: text.text_loss(t5, questions, data, self.device))
        self.finish(stage, "text.pt")

    def vae(self):
        torch.manual_seed(self.o.seed)
        vae, scale = autoencoder.build().to(self.device), autoencoder.Scale().to(self.device)
        first = [world.crop(np.random.default_rng([self.o.seed, 6, k]), 96, 96, 9) for k in range(12)]
        autoencoder.wake(vae, autoencoder.pixels(first, self.device))
        stage = self.stage("vae", {"vae": vae, "scale": scale}, 0.02, 1e-3, average=0.998, warm=100)
        clips = autoencoder.held_out(2 if self.o.smoke else 6)

        def loss(clip, step):
            torch.manual_seed(self.o.seed + step)
            return autoencoder.train_loss(vae, scale, autoencoder.pixels(clip, self.device))

        def look(step):
            values = autoencoder.psnr(vae, *scale.shape(), clips)
            return {"psnr": float(np.mean(values)), "worst": min(values)}

        stage.run(lambda step: autoencoder.batch(self.o.seed, step, self.o.smoke), loss, look=look,
                  look_every=1000)
        self.finish(stage, "vae.pt")

    def polish(self):
        """The decoder goes on alone: latents stay what they are, so this may as well be done last."""
        torch.manual_seed(self.o.seed)
        vae, scale = autoencoder.build(), autoencoder.Scale()
        self.finished("vae.pt", vae=vae, scale=scale)
        vae.encoder.requires_grad_(False)
        stage = self.stage("polish", {"vae": vae, "scale": scale}, 0.005, 2.5e-4, average=0.998, warm=100)
        stage.run(lambda step: autoencoder.batch(self.o.seed, self.steps["vae"] + step, self.o.smoke),
                  lambda clip, step: autoencoder.train_loss(vae, scale, autoencoder.pixels(clip, self.device)))
        self.finish(stage, "polished.pt")

    def encoded(self):
        """Where the latents of this very VAE are."""
        digest = hashlib.sha256((self.work / "vae.pt").read_bytes()).hexdigest()[:8]
        folder = self.work / f"encoded-{digest}"
        folder.mkdir(exist_ok=True)
        return folder

    def encode(self):
        vae, = self.finished("vae.pt", vae=autoencoder.build())
        begun, minutes = time.time(), self.o.budget_minutes
        folder = self.encoded()
        processes = self.o.threads if self.device.type == "cpu" else 1
        latents.make(vae, folder / "latents", 200 if self.o.smoke else self.o.clips, self.o.seed,
                     lambda: bool(minutes) and time.time() - begun > 60 * minutes, processes)
        if not (folder / "statistics.pt").exists():
            progress.save(progress.rounded(latents.statistics(folder)), folder / "statistics.pt")

    def statistics(self):
        return torch.load(self.encoded() / "statistics.pt")

    def transformer(self):
        torch.manual_seed(self.o.seed + 1)
        tokens, stats = self.tokens(), self.statistics()
        library = latents.Library(self.encoded(), stats)
        model = flow.build().to(self.device)
        t5, questions = text.build(), text.Questions()
        self.finished("text.pt", t5=t5, questions=questions)
        guide = guides.Guides(model.inner_dim).to(self.device).listen(model)
        modules = {"transformer": model.train(), "t5": t5.train(), "questions": questions.train(), "guides": guide}
        kind = progress.products(self.device)
        stage = self.stage("transformer", modules, 0.02, 1e-3, decay=0.02, kind=kind)
        vae, = self.finished("vae.pt", vae=autoencoder.build())

        def make(step):
            share = stage.done if self.o.budget_minutes else step / stage.steps
            return flow.batch(library, tokens, self.o.seed, step, TOKENS, SHORT if share < 0.5 else LONG)

        stage.run(make, lambda data, step: flow.loss(model, t5, questions, guide, data, self.device, stage.learning_rate(), kind),
                  look=lambda step: self.look(vae, model, t5, tokens, stats, f"step{step:06}", 8),
                  look_every=10 if self.o.smoke else 1000)
        self.finish(stage, "transformer.pt")

    # ---- what it shows -------------------------------------------------------------------------

    def look(self, vae, model, t5, tokens, stats, label, count, size=(128, 96), frames=25, rate=24, guidance=3.0,
             steps=None, two=0.0, image=False):
        """Renders `count` prompts, with `image` each from its scene's true first frame, and measures what they show; a
        picture of them goes to WORK/seen."""
        scenes = measure.questions(count, size, frames, rate, two=two)
        grid = ((frames - 1) // 8 + 1, size[1] // 32, size[0] // 32)
        noise = flow.levels(steps or (4 if self.o.smoke else 10))
        first = self.first_frames(vae, stats, scenes) if image else None
        z = flow.sample(model, t5, tokens, [measure.plain(s) for s in scenes], grid, rate, noise, guidance, 11, first)
        videos = autoencoder.decode(vae, stats, z)
        from PIL import Image
        rows = [np.concatenate(list(v[:: (frames - 1) // 4]), 1) for v in videos[:8]]
        (self.work / "seen").mkdir(exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(self.work / "seen" / f"{label}.png")
        return measure.tally([measure.judge(v, s) for v, s in zip(videos, scenes)])

    def first_frames(self, vae, stats, scenes):
        """Normalised latents [scenes, h*w, 128] of frame 0 alone."""
        stills = [autoencoder.encode(vae, world.render(scene, frames=[0])) for scene in scenes]
        return latents.normalised(torch.stack(stills).flatten(1, 3), stats)

    def evaluate(self):
        """Each part by itself, then all together: which one is to blame for a poor picture?"""
        vae, = self.finished("polished.pt", vae=autoencoder.build())
        model, t5 = self.finished("transformer.pt", transformer=flow.build(), t5=text.build())
        stats, tokens = self.statistics(), self.tokens()
        mean, std = (stats[k].to(self.device).view(1, -1, 1, 1, 1) for k in ("mean", "std"))
        few = self.o.smoke
        report = {}
        for name, size, frames in (("128x128x17", (128, 128), 17), ("256x160x33", (256, 160), 33)):
            values = autoencoder.psnr(vae, mean, std, autoencoder.held_out(2 if few else 12, frames, size))
            report[f"vae psnr {name}"] = {"mean": float(np.mean(values)), "worst": min(values)}
        scenes = measure.questions(4 if few else 36, (160, 128), 25, 24)
        truth = [world.render(scene) for scene in scenes]
        report["the measure on true clips"] = measure.tally([measure.judge(v, s) for v, s in zip(truth, scenes)])
        passed = []
        for clip in truth[:4 if few else 12]:
            z = latents.normalised(autoencoder.encode(vae, clip), stats)
            passed.append(autoencoder.decode(vae, stats, z.permute(3, 0, 1, 2)[None])[0])
        report["through the vae"] = measure.tally([measure.judge(v, s) for v, s in zip(passed, scenes)])
        common = (vae, model, t5, tokens, stats)
        for name, more in (("prompts", {}), ("no guidance", {"guidance": 1.0}), ("two things", {"two": 1.0}),
                           ("256x160x33", {"size": (256, 160), "frames": 33}),
                           ("three times as long", {"frames": 97}), ("twice as large", {"size": (320, 256)}),
                           ("from an image", {"image": True})):
            more = {"size": (160, 128), **more}
            report[name] = self.look(*common, name.replace(" ", "-"), 2 if few else 36 if name == "prompts" else 12, **more)
        for name, row in report.items():
            print(f"evaluate: {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()), flush=True)
        (self.work / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n")

    def export(self):
        vae, = self.finished("polished.pt", vae=autoencoder.build())
        model, t5 = self.finished("transformer.pt", transformer=flow.build(), t5=text.build())
        export.write(self.work / "export", vae, self.statistics(), model, t5, self.work / "tokenizer")
        self.curves()

    def curves(self):
        panels = []
        for name, keys in (("text", ("loss",)), ("vae", ("mse",)), ("transformer", ("flow",))):
            file = self.work / f"{name}.csv"
            if file.exists():
                curve = progress.read_curve(file)
                lines = {key: progress.smooth(curve[key], 3) for key in keys}
                panels.append((f"{name}: {', '.join(keys)}", "minutes", curve["minutes"], lines))
        progress.plot(panels, self.o.curves or self.work / "curves.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/ringreel-tiny"), help="where everything is kept")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage; may be repeated")
    parser.add_argument("--budget-minutes", type=float, help="of each stage, in place of its number of steps")
    parser.add_argument("--steps", type=int, help="of each stage that learns")
    parser.add_argument("--clips", type=int, default=CLIPS, help="that are encoded for the transformer")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--smoke", action="store_true", help="toy budgets, in WORK/smoke, from the beginning")
    parser.add_argument("--curves", type=Path, help="picture of the loss curves; default WORK/curves.png")
    options = parser.parse_args()
    if options.smoke:
        options.work = options.work / "smoke"
        import shutil
        shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    import_reference()
    recipe = Recipe(options)
    for stage in options.stage or STAGES:
        begun = time.time()
        getattr(recipe, stage)()
        print(f"{stage}: done in {(time.time() - begun) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
