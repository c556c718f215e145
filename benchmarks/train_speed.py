"""Tokens per CPU second of training a GPT-2 here and in torch, alternating in one process.

    pip install -e '.[peers]'
    python benchmarks/train_speed.py [--json FILE] [--models 4x256,12x768] [--rounds 5]

Same shape, batch, float32, AdamW with clipping, one thread on one core for all. Each figure is the
median over the rounds; a ratio is the median of the ratios within a round, so that a machine that
slows down slows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from autoscale_jax.models import GPT2Config
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import chunk_steps, make_init, make_train_chunk

SHAPES = {  # layers x width: (config, rows of a batch, steps of a measurement)
    "1x64": (GPT2Config(1024, 64, 1, 64, 4), 4, 100),
    "4x256": (GPT2Config(4096, 256, 4, 256, 8), 16, 2),
    "12x768": (GPT2Config(50257, 256, 12, 768, 12), 2, 4),
}


def ours(config: GPT2Config, rows: int, steps: int) -> Callable[[], Any]:
    """One call of the training program that studies use, `steps` optimiser steps long."""
    recipe = Recipe(
        config, rows, 1e-4, 0.1, 1e-2, 0.9, 0.95, clip_norm=1.0, eval_every_tokens=1, seed=0
    )
    mesh = make_mesh(jax.devices()[:1])
    chunk, held = make_train_chunk(recipe, mesh), [make_init(recipe, mesh)([0])]
    shape = (chunk_steps(recipe), 1, 1, rows, config.seq_len)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, shape, np.int32)
    batch = {"inputs": tokens, "targets": tokens, "weight": np.ones(shape, np.float32)}
    with jax.set_mesh(mesh):
        batch = jax.device_put(batch)

    def run() -> None:
        state, _ = chunk(held.pop(), np.full(1, 1e6, np.float32), batch, np.int32(steps))
        held.append(jax.block_until_ready(state))

    return run


class Block(nn.Module):
    """Pre-norm block with torch's fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(rows, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        h = nn.functional.gelu(self.mlp_in(self.norm_mlp(x)), approximate="tanh")
        return x + self.mlp_out(h)


class TorchGPT2(nn.Module):
    """Mean loss of a GPT-2 with tied output, as nanoGPT writes it."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        width = config.d_model
        self.wte = nn.Embedding(config.vocab_size, width)
        self.wpe = nn.Embedding(config.seq_len, width)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.wte(inputs) + self.wpe.weight
        for block in self.blocks:
            x = block(x)
        logits = self.norm(x) @ self.wte.weight.T
        return nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def theirs(config: GPT2Config, rows: int, steps: int, compiled: bool) -> Callable[[], Any]:
    model = TorchGPT2(config)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-2, fused=True)
    tokens = torch.randint(config.vocab_size, (rows, config.seq_len))
    loss_of = torch.compile(model) if compiled else model

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(tokens, tokens).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return run


def cpu_seconds(run: Callable[[], Any]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Tokens per CPU second of each, and ours over each peer's."""
    config, rows, steps = SHAPES[name]
    torch.manual_seed(0)
    runs = {
        "jax": ours(config, rows, steps),
        "torch eager": theirs(config, rows, steps, compiled=False),
        "torch compiled": theirs(config, rows, steps, compiled=True),
    }
    for run in runs.values():
        run()  # compiles
    seconds = {which: [] for which in runs}
    for _ in range(rounds):
        for which, run in runs.items():
            seconds[which].append(cpu_seconds(run))
    tokens = rows * config.seq_len * steps
    result: dict[str, Any] = {
        f"{which} tokens/CPU-s": tokens / float(np.median(s)) for which, s in seconds.items()
    }
    for which in ("torch eager", "torch compiled"):
        ratios = np.array(seconds[which]) / np.array(seconds["jax"])
        result[f"jax / {which}"] = float(np.median(ratios))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", default="4x256,12x768", help=f"some of {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    # one core: before jax and torch start their threads
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    results = {name: measure(name, arguments.rounds) for name in arguments.models.split(",")}
    for name, result in results.items():
        print(f"{name}: " + ", ".join(f"{k} {v:,.2f}" for k, v in result.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
