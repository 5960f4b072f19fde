#!/usr/bin/env python
"""Writes the reference outputs in tests/parity/data. See tools/README.md.

    python tools/oracle.py --all
    python tools/oracle.py --only transformer_small
"""

import argparse
import importlib
import time

import torch

# fixture -> module of tools/fixtures that has a function of this name
FIXTURES = {
    "transformer_small": "transformer", "block_2b": "transformer",
    "vae_090": "vae", "vae_091": "vae", "vae_095": "vae", "vae_encode": "vae",
    "schedules": "schedules", "t5_small": "text", "rng": "rng",
    "tokenizer": "text", "pipeline_tiny": "pipeline", "pipeline_image": "pipeline",
    "conditioning": "conditioning",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--all", action="store_true")
    group.add_argument("--only", action="append", choices=FIXTURES, metavar="NAME",
                       help=", ".join(FIXTURES))
    args = parser.parse_args()
    torch.set_num_threads(1)  # one thread: the same bits every time
    for name in FIXTURES if args.all else args.only:
        start = time.time()
        getattr(importlib.import_module(f"fixtures.{FIXTURES[name]}"), name)()
        print(f"{name:20} {time.time() - start:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
