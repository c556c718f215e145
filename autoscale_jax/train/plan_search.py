"""Which mesh, rematerialisation and microbatches are fastest among those that fit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
from jax.sharding import Mesh

from autoscale_jax.train import plan_bounds
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.plan_program import Plan, make_plan
from autoscale_jax.train.plan_targets import Chip, Target
from autoscale_jax.train.recipe import Recipe

REMATS = ("none", "dots", "full")
MOST_COMPILED = 6  # programs of a search


def alternatives(
    recipe: Recipe, devices: Sequence[jax.Device], chip: Chip
) -> list[tuple[float, Recipe, Mesh]]:
    """(least seconds of a step, recipe, mesh) of every mesh, rematerialisation and number of
    microbatches whose least memory the chip has, the fastest first."""
    found = []
    for tensor in _divisors(len(devices)):
        rows, cut = divmod(recipe.batch_size * tensor, len(devices))
        if cut or recipe.model.num_heads % tensor:
            continue
        for fsdp in _divisors(len(devices) // tensor):
            mesh = make_mesh(devices, fsdp, tensor)
            for remat in REMATS:
                for accumulation in _divisors(rows):
                    model = dataclasses.replace(recipe.model, remat=remat)
                    other = dataclasses.replace(recipe, model=model, accumulation=accumulation)
                    if sum(plan_bounds.least_memory(other, mesh).values()) <= chip.memory:
                        seconds = plan_bounds.least_seconds(other, mesh, chip)
                        found.append((seconds, other, mesh))
    return sorted(found, key=lambda one: (one[0], one[1].accumulation, one[2].shape["tensor"]))


def search(recipe: Recipe, devices: Sequence[jax.Device], target: Target) -> Iterator[Plan]:
    """Compiled alternatives in the order of their least time, until none left can be faster than
    one that fits; at most `MOST_COMPILED`. What needs no less memory than one that did not fit is
    left out."""
    assert target.chip is not None
    compiled, fastest, too_much = 0, math.inf, math.inf
    for least, other, mesh in alternatives(recipe, devices, target.chip):
        if compiled == MOST_COMPILED or fastest <= least:
            return
        memory = sum(plan_bounds.least_memory(other, mesh).values())
        if memory >= too_much:
            continue
        plan = make_plan(other, mesh, target)
        compiled += 1
        if plan.verdict == "fits":
            fastest = min(fastest, plan.seconds)
        else:
            too_much = memory
        yield plan


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]
