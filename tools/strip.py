#!/usr/bin/env python
"""Joins some frames of a PNG sequence side by side: the strips in README.md and the model card.

    ./ringreel render configs/tiny.yaml -o out/frames/%04d.png
    python tools/strip.py out/frames docs/demo.png --frames 0 8 16 24 32
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="a row for each, then the picture to write")
    parser.add_argument("--frames", type=int, nargs="+", default=[0, 8, 16, 24, 32], help="numbers in the file names")
    parser.add_argument("--gap", type=int, default=4, help="white pixels between the frames")
    args = parser.parse_args()
    *folders, picture = args.folders
    rows = []
    for folder in folders:
        files = {int(f.stem): f for f in folder.glob("*.png")}
        frames = [np.asarray(Image.open(files[n]).convert("RGB")) for n in args.frames]
        gap = np.full((frames[0].shape[0], args.gap, 3), 255, np.uint8)
        rows += [np.concatenate([v for f in frames for v in (gap, f)][1:], 1)]
    lines = [np.full((args.gap, rows[0].shape[1], 3), 255, np.uint8)] * len(rows)
    Image.fromarray(np.concatenate([v for pair in zip(lines, rows) for v in pair][1:])).save(picture, optimize=True)


if __name__ == "__main__":
    main()
