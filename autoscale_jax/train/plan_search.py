"""Which mesh, rematerialisation and microbatches are fastest among those that fit, and what to do
where the ones asked for do not fit or do not divide.
"""

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
SPARED = 0.7  # a remedy's least memory, over that of what did not fit
ROOM = 0.5  # of a chip's memory, what an uncompiled mesh may need at least to be named


def alternatives(
    recipe: Recipe, devices: Sequence[jax.Device], chip: Chip, count: int = 1
) -> list[tuple[float, Recipe, Mesh]]:
    """(least seconds of a step, recipe, mesh) of every mesh, rematerialisation and number of
    microbatches whose least memory, of `count` models, the chip has; the fastest first."""
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
                    if _least(other, mesh, count) <= chip.memory:
                        seconds = plan_bounds.least_seconds(other, mesh, chip)
                        found.append((seconds, other, mesh))
    return sorted(found, key=lambda one: (one[0], one[1].accumulation, one[2].shape["tensor"]))


def search(
    recipe: Recipe, devices: Sequence[jax.Device], target: Target, count: int = 1
) -> Iterator[Plan]:
    """Compiled alternatives in the order of their least time, until none left can be faster than
    one that fits; at most `MOST_COMPILED`. What needs no less memory than one that did not fit is
    left out."""
    assert target.chip is not None
    compiled, fastest, too_much = 0, math.inf, math.inf
    for least, other, mesh in alternatives(recipe, devices, target.chip, count):
        if compiled == MOST_COMPILED or fastest <= least:
            return
        memory = _least(other, mesh, count)
        if memory >= too_much:
            continue
        plan = make_plan(other, mesh, target, count)
        compiled += 1
        if plan.verdict == "fits":
            fastest = min(fastest, plan.seconds)
        else:
            too_much = memory
        yield plan


def remedies(plan: Plan) -> Iterator[Plan]:
    """Compiled alternatives to a plan that does not fit, until one fits or none needs less.

    Each is the fastest of those whose least memory is at most `SPARED` times the last one's; where
    there are none, the one of the least.
    """
    assert plan.target.chip is not None
    tried = sum(plan.least.values())
    listed = [
        (_least(recipe, mesh, plan.count), recipe, mesh)
        for _, recipe, mesh in alternatives(
            plan.recipe, list(plan.mesh.devices.flat), plan.target.chip, plan.count
        )
    ]
    while listed := [one for one in listed if one[0] < tried]:
        spared = (one for one in listed if one[0] <= SPARED * tried)
        tried, recipe, mesh = next(spared, min(listed, key=lambda one: one[0]))
        other = make_plan(recipe, mesh, plan.target, plan.count)
        yield other
        if other.verdict == "fits":
            return


def nearest(
    recipe: Recipe, devices: Sequence[jax.Device], chip: Chip | None, fsdp: int, tensor: int
) -> tuple[Recipe, Mesh]:
    """Batch, microbatches and mesh that go together, nearest to those asked for: the batch first.

    fsdp and tensor: what was asked for. On a chip parameters are split as is fastest by the bounds,
    among meshes that need at most `ROOM` of its memory at least; nothing is compiled.
    """
    found = []
    for ways in (n for n in _divisors(len(devices)) if recipe.model.num_heads % n == 0):
        shards = len(devices) // ways
        below = recipe.batch_size // shards * shards
        found += [
            (abs(batch - recipe.batch_size), ways != tensor, ways, batch)
            for batch in (below, below + shards)
            if batch
        ]
    _, _, ways, batch = min(found)
    shards = len(devices) // ways
    micro = max(n for n in _divisors(batch // shards) if n <= recipe.accumulation)
    other = dataclasses.replace(recipe, batch_size=batch, accumulation=micro)
    meshes = [make_mesh(devices, n, ways) for n in _divisors(shards)]
    if chip is None:
        return other, next(m for m in meshes if m.shape["fsdp"] == math.gcd(fsdp, shards))
    roomy = [m for m in meshes if _least(other, m, 1) <= ROOM * chip.memory]
    return other, min(
        roomy or meshes[-1:], key=lambda mesh: plan_bounds.least_seconds(other, mesh, chip)
    )


def _least(recipe: Recipe, mesh: Mesh, count: int) -> float:
    return sum(plan_bounds.least_memory(recipe, mesh, count).values())


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]
