"""How many runs of a study train in one program: as many as make it faster on this device."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.specs import RunSpec
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.memory import is_out_of_memory, told_what_to_do
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import chunk_steps, make_init, make_train_chunk

WORTH_SECONDS = 300.0  # of training left: below, larger programs are not worth their compilation
GAIN = 1.1  # by which a program of twice the runs must be faster
TIMED_SECONDS = 0.5  # of one measurement, at least


def choose(recipe: Recipe, mesh: Mesh, specs: Sequence[RunSpec], most: int) -> int:
    """Runs a program, up to `most`: doubled while tokens/s grow by a tenth and memory holds.

    Raises `OSError` with remedies when memory does not hold a single one.
    """
    with told_what_to_do():
        best, best_rate = 1, tokens_per_second(recipe, mesh, 1)
    seconds_left = sum(spec.total for spec in specs) / best_rate
    while 2 * best <= most and seconds_left > WORTH_SECONDS:
        rate = _rate_or_none(recipe, mesh, 2 * best)
        if rate is None or rate < GAIN * best_rate:
            break
        best, best_rate = 2 * best, rate
    return best


def largest(recipe: Recipe, mesh: Mesh, most: int) -> int:
    """The most runs a program, up to `most`, that memory holds; 1 where it is in doubt."""
    return next((count for count in range(most, 1, -1) if fits(recipe, mesh, count)), 1)


def fits(recipe: Recipe, mesh: Mesh, count: int) -> bool:
    """Whether the program of `count` runs fits the memory of each device, where that is known."""
    stats = mesh.local_devices[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        return True
    try:
        needs = make_train_chunk(recipe, mesh, count).memory_analysis()
    except jax.errors.JaxRuntimeError as error:  # TPUs' compiler knows their memory
        if not is_out_of_memory(error):
            raise
        return False
    if needs is None:
        return True
    state_and_batch = needs.argument_size_in_bytes + needs.temp_size_in_bytes
    return bool(state_and_batch + needs.generated_code_size_in_bytes < stats["bytes_limit"])


def _rate_or_none(recipe: Recipe, mesh: Mesh, count: int) -> float | None:
    """Training speed of a program of `count` runs, None where memory does not hold them."""
    if not fits(recipe, mesh, count):
        return None
    try:
        return tokens_per_second(recipe, mesh, count)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


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
