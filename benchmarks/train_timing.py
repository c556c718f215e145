"""Training programs that take turns, ours among them: what the benchmarks of training share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import chunk_steps, make_init, make_train_chunk

Run = Callable[[int], Any]  # takes so many optimiser steps, and returns when they are done


def recipe_of(model: Any, rows: int) -> Recipe:
    """AdamW with clipping, `rows` rows a step; evaluated at its end alone."""
    return Recipe(
        model, rows, 1e-4, 0.1, 1e-2, 0.9, 0.95, clip_norm=1.0, eval_every_tokens=2**62, seed=0
    )


def ours(recipe: Recipe, seeds: Sequence[int] = (0,)) -> Run:
    """The program that studies train with, of one model a seed, on made-up tokens on the device."""
    mesh, count, most = make_mesh(jax.devices()[:1]), len(seeds), chunk_steps(recipe)
    chunk, held = make_train_chunk(recipe, mesh, count), [make_init(recipe, mesh, count)(seeds)]
    rows = recipe.batch_size // recipe.accumulation
    shape = (most, count, recipe.accumulation, rows, recipe.model.seq_len)
    tokens = np.random.default_rng(0).integers(0, recipe.model.vocab_size, shape, np.int32)
    batch = {"inputs": tokens, "targets": tokens, "weight": np.ones(shape, np.float32)}
    batch = meshes.put(batch, meshes.rows(mesh, 3))
    total_steps = np.full(count, 1e6, np.float32)

    def run(steps: int) -> None:
        for done in range(0, steps, most):
            n = np.int32(min(most, steps - done))
            state, _ = chunk(held.pop(), total_steps, batch, n)
            held.append(state)
        jax.block_until_ready(held)

    return run


def alternate(
    runs: Mapping[str, Run],
    steps: int,
    rounds: int,
    clock: Callable[[], float],
    after_turn: Callable[[], Any] = lambda: None,
) -> dict[str, np.ndarray]:
    """Seconds that each takes for `steps` steps, by round; all have a turn in a round.

    A turn begins with a step that is not timed, which wakes what the others put to sleep. The first
    round compiles and does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + rounds):
        for name, run in runs.items():
            run(1)
            began = clock()
            run(steps)
            seconds[name].append(clock() - began)
            after_turn()
    return {name: np.array(s[1:]) for name, s in seconds.items()}


def times_as_fast(ours_R: np.ndarray, theirs_R: np.ndarray) -> float:
    """Median of the ratios within a round: what slows the machine down slows both."""
    return float(np.median(theirs_R / ours_R))
