"""How many runs of a study train in one program: as many as make it faster on this device."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.specs import RunSpec
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import chunk_steps, make_init, make_train_chunk

WORTH_SECONDS = 300.0  # of training left: below, larger programs are not worth their compilation
GAIN = 1.1  # by which a program of twice the runs must be faster
TIMED_SECONDS = 0.5  # of one measurement, at least


def choose(recipe: Recipe, mesh: Mesh, specs: Sequence[RunSpec], most: int) -> int:
    """Runs a program, up to `most`: doubled while tokens/s grow by a tenth and memory holds."""
    best, best_rate = 1, tokens_per_second(recipe, mesh, 1)
    seconds_left = sum(spec.total for spec in specs) / best_rate
    while 2 * best <= most and seconds_left > WORTH_SECONDS and fits(recipe, mesh, 2 * best):
        rate = tokens_per_second(recipe, mesh, 2 * best)
        if rate < GAIN * best_rate:
            break
        best, best_rate = 2 * best, rate
    return best


def fits(recipe: Recipe, mesh: Mesh, count: int) -> bool:
    """Whether the program of `count` runs fits the memory of each device, where that is known."""
    stats = mesh.local_devices[0].memory_stats() or {}
    needs = make_train_chunk(recipe, mesh, count).memory_analysis()
    if "bytes_limit" not in stats or needs is None:
        return True
    state_and_batch = needs.argument_size_in_bytes + needs.temp_size_in_bytes
    return bool(state_and_batch + needs.generated_code_size_in_bytes < stats["bytes_limit"])


def tokens_per_second(recipe: Recipe, mesh: Mesh, count: int) -> float:
    """Training speed of a program of `count` runs, all together, on made-up tokens."""
    steps = chunk_steps(recipe)
    shape = (steps, count, recipe.accumulation, recipe.batch_size // recipe.accumulation)
    tokens = np.zeros((*shape, recipe.model.seq_len), np.int32)
    batch = {"inputs": tokens, "targets": tokens, "weight": np.ones(tokens.shape, np.float32)}
    batch = meshes.put(batch, meshes.rows(mesh, 3))
    total = meshes.put(np.full(count, 1e6, np.float32), meshes.replicated(mesh))
    train_chunk = make_train_chunk(recipe, mesh, count)
    state = make_init(recipe, mesh, count)(range(count))

    n, took = 1, 0.0
    while True:
        for _ in range(2):  # the first call of each length is not timed
            began = time.monotonic()
            some = meshes.put(np.int32(n), meshes.replicated(mesh))
            state, _ = jax.block_until_ready(train_chunk(state, total, batch, some))
            took = time.monotonic() - began
        if took >= TIMED_SECONDS or n == steps:
            return n * count * recipe.step_tokens / took
        n = min(steps, 2 * n)
