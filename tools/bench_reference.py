#!/usr/bin/env python
"""Decoding: PyTorch running the official VAE against `ringreel decode`, same weights, latents, machine and threads.

    LTX_VIDEO=/path/to/LTX-Video python tools/bench_reference.py

Both sides decode the same latents to bytes, in turns, each in a process of its own. Prints the median time of a decode
(opening the model and encoding the video are left out on both sides), the largest resident set of the process, both
ratios, and by how much the frames differ at most. The weights are random, in the structure of 0.9.5 with --base
channels (the released VAE has 128), or those of --checkpoint FILE.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Nothing large is imported here: a process begins with the resident set of the one that starts it.

ROOT = Path(__file__).resolve().parents[1]
TIMESTEP = 0.05


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", type=int, default=32, help="channels of the finest level (default 32)")
    p.add_argument("--checkpoint", help="an official file with a VAE instead")
    p.add_argument("--size", default="512x320x49", help="WIDTHxHEIGHTxFRAMES (default 512x320x49)")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--runs", type=int, default=5, help="of each side (default 5)")
    p.add_argument("--ringreel", default=str(ROOT / "ringreel"))
    p.add_argument("--step", choices=("prepare", "reference", "difference"), help=argparse.SUPPRESS)
    p.add_argument("--folder", help=argparse.SUPPRESS)
    return p.parse_args()


# ---- steps: in processes of their own ----------------------------------------------------------


def latent_shape(size):
    """[f, h, w]; sizes are rounded down to whole latents."""
    width, height, frames = (int(n) for n in size.split("x"))
    return (frames - 1) // 8 + 1, height // 32, width // 32


def prepare(args, folder):
    from fixtures.common import load_manifest, noise, write_safetensors
    from fixtures.vae import config, decoder_095, encoder_095, synthesise
    channels = 128
    if not args.checkpoint:
        cfg = config(encoder_095(), decoder_095(), True, args.base, channels)
        state = load_manifest(synthesise(cfg, 70_000)[1])
        # Frames in the middle of the range, so that a difference cannot hide behind clipping.
        for part in ("weight", "bias"):
            state[f"vae.decoder.conv_out.conv.{part}"] *= 0.3
        write_safetensors(folder / "vae.safetensors", state, {"config": json.dumps({"vae": cfg})})
    write_safetensors(folder / "latents.safetensors", {"latents": noise(5, channels, *latent_shape(args.size))}, {})


def reference(args, folder):
    """Prints seconds, MiB before the decode, MiB at most; writes the frames as bytes once."""
    import resource
    import time
    import torch
    from fixtures.common import import_reference
    import_reference()
    from ltx_video.models.autoencoders.causal_video_autoencoder import CausalVideoAutoencoder
    from ltx_video.models.autoencoders.vae_encode import vae_decode
    from safetensors.torch import load_file
    torch.set_num_threads(args.threads)
    vae = CausalVideoAutoencoder.from_pretrained(args.checkpoint or folder / "vae.safetensors").float().eval()
    vae.encoder.to("meta")  # its weights are not needed, and not held
    latents = load_file(folder / "latents.safetensors")["latents"][None]
    before = resident_mib()
    start = time.monotonic()
    with torch.inference_mode():
        video = vae_decode(latents, vae, True, vae_per_channel_normalize=True, timestep=torch.tensor([TIMESTEP]))[0]
        frames = (video.mul(0.5).add(0.5).clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous()
    seconds = time.monotonic() - start
    print(seconds, before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    file = folder / "reference.bytes"
    if not file.exists():
        file.write_bytes(frames.numpy().tobytes())


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2 ** 20


def difference(_, folder):
    """Prints the largest difference of a byte, and the share of bytes that differ."""
    import numpy
    from safetensors.numpy import load_file
    ours = load_file(folder / "shot-0001" / "frames.safetensors")["frames"].astype(int).ravel()
    theirs = numpy.frombuffer((folder / "reference.bytes").read_bytes(), numpy.uint8).astype(int)
    apart = abs(ours - theirs)
    print(apart.max(), (apart > 0).mean())


# ---- measuring ---------------------------------------------------------------------------------


def run(command):
    """(standard output, MiB at most); ends this program when the command fails."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True,
                                   env=os.environ | {"OMP_WAIT_POLICY": "passive"})
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}\n{errors.read()}")
    return out, usage.ru_maxrss / 1024


def step(name, args, folder):
    """The numbers that a step prints."""
    words = [sys.executable, __file__, "--step", name, "--folder", str(folder), "--size", args.size,
             "--base", str(args.base), "--threads", str(args.threads)]
    out, _ = run(words + (["--checkpoint", args.checkpoint] if args.checkpoint else []))
    return [float(n) for n in out.split()]


def decode_ours(args, folder, *words):
    """(seconds, MiB at most). The video goes into a lossless file and is not part of the seconds."""
    f, h, w = latent_shape(args.size)
    video = folder / "ours.mkv"
    _, most = run([args.ringreel, "decode", str(folder / "latents.safetensors"), "-o", str(video),
                   "--encoder", "ffv1", "--checkpoint-path", args.checkpoint or str(folder / "vae.safetensors"),
                   "--text-encoder-model-name-or-path", str(folder),  # not used
                   "--width", str(32 * w), "--height", str(32 * h), "--num-frames", str(8 * (f - 1) + 1),
                   "--decode-timestep", str(TIMESTEP), "--decode-noise-scale", "0",
                   "--prompt", "-", "--threads", str(args.threads), *words])
    return json.loads(Path(f"{video}.json").read_text())["decode_seconds"], most


def show(name, theirs, ours, unit, ratio, target, met):
    print(f"{name:12} PyTorch {theirs:9.2f} {unit}   ringreel {ours:9.2f} {unit}   {ratio:5.2f}x"
          f"   target {target}: {'met' if met else 'missed'}")


def compare(args, folder):
    step("prepare", args, folder)
    theirs, ours = [], []
    for _ in range(args.runs):
        theirs.append(step("reference", args, folder))
        ours.append(decode_ours(args, folder))
    decode_ours(args, folder, "--dump", str(folder))  # holds all frames, so it is not measured
    most, share = step("difference", args, folder)
    (their_s, before, their_mib), (our_s, our_mib) = (
        [statistics.median(column) for column in zip(*rows)] for rows in (theirs, ours))
    print(f"{args.size}, {args.checkpoint or f'0.9.5 with {args.base} channels'}, {args.threads} threads, "
          f"medians of {args.runs}")
    show("decode", their_s, our_s, "s  ", their_s / our_s, "1.5x faster", their_s >= 1.5 * our_s)
    show("peak memory", their_mib, our_mib, "MiB", our_mib / their_mib, "at most 0.5x", our_mib <= 0.5 * their_mib)
    print(f"             PyTorch holds {before:.0f} MiB before it decodes: its libraries, and the model")
    print(f"bytes        {100 * share:.3f} % differ, by {most:.0f} at most")
    for name, rows in ("PyTorch", theirs), ("ringreel", ours):
        print(f"{name:12} runs of {', '.join(f'{row[0]:.2f}' for row in rows)} s")


def main():
    args = arguments()
    if args.step:
        {"prepare": prepare, "reference": reference, "difference": difference}[args.step](args, Path(args.folder))
        return
    with tempfile.TemporaryDirectory(prefix="ringreel-bench-") as folder:
        compare(args, Path(folder))


if __name__ == "__main__":
    main()
