"""Tokens per CPU second of training a GPT-2 here and in torch, alternating in one process.

    pip install -e '.[train,peers]'
    python benchmarks/train_speed.py [--json FILE] [--models 4x256,12x768] [--rounds 5]

Same shape, batch, float32, AdamW with clipping, one thread on one core for all. Each figure is the
median over the rounds; a ratio is the median of the ratios within a round, so that a machine that
slows down slows all of them. On a GPU: `train_speed_gpu.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import jax
import numpy as np
import torch
from train_peers import NanoGPT, theirs
from train_timing import alternate, ours, recipe_of, times_as_fast

from autoscale_jax.models import GPT2Config

SHAPES = {  # layers x width: (config, rows of a batch, steps of a measurement)
    "1x64": (GPT2Config(1024, 64, 1, 64, 4), 4, 100),
    "4x256": (GPT2Config(4096, 256, 4, 256, 8), 16, 2),
    "12x768": (GPT2Config(50257, 256, 12, 768, 12), 2, 4),
}


def measure(name: str, rounds: int) -> dict[str, float]:
    """Tokens per CPU second of each, and ours over each peer's."""
    config, rows, steps = SHAPES[name]
    torch.manual_seed(0)
    runs = {
        "jax": ours(recipe_of(config, rows)),
        "torch eager": theirs(NanoGPT(config), config, rows, "cpu", None),
        "torch compiled": theirs(NanoGPT(config), config, rows, "cpu", "default"),
    }
    seconds = alternate(runs, steps, rounds, time.process_time)
    tokens = rows * config.seq_len * steps
    result = {f"{which} tokens/CPU-s": tokens / float(np.median(s)) for which, s in seconds.items()}
    for which in ("torch eager", "torch compiled"):
        result[f"jax / {which}"] = times_as_fast(seconds["jax"], seconds[which])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", default="4x256,12x768", help=f"some of {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    # one core: before jax and torch start their threads
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    torch.set_num_threads(1)
    results = {name: measure(name, arguments.rounds) for name in arguments.models.split(",")}
    for name, result in results.items():
        print(f"{name}: " + ", ".join(f"{k} {v:,.2f}" for k, v in result.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
