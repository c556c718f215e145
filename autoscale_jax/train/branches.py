"""Which runs branch off which: under "wsd" and "constant" a run begins as any longer one of its
weights and seed.

Such runs make a chain. Each is continued from where the one before it began its decay or ended, so
that budgets N1 < N2 cost N2 and the decay to N1. A unit is K chains side by side: groups of K runs
that train one after another, in one slot, each group in one program.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Hashable, Sequence

from autoscale_jax.data import quota, trunk_of
from autoscale_jax.specs import VERIFICATION_SEED, RunSpec
from autoscale_jax.train.recipe import Recipe

Group = list[RunSpec]


def steps_of(spec: RunSpec, recipe: Recipe) -> int:
    """Optimiser steps of a run."""
    sequences = quota(spec.mixtures, recipe.model.seq_len)
    return -(-sum(sequences.values()) // recipe.batch_size)


def chains(specs: Sequence[RunSpec], recipe: Recipe) -> list[Group]:
    """Runs that share a trunk, the shortest first; every other run is a chain of its own.

    Curricula share none: what a longer one begins with is not the shorter one.
    """
    found: dict[Hashable, Group] = {}
    for spec in specs:
        found.setdefault(_trunk_identity(spec, recipe), []).append(spec)
    return [sorted(chain, key=lambda spec: spec.total) for chain in found.values()]


def units(
    found: Sequence[Group], begun: Sequence[Group], recipe: Recipe, size: Callable[[int], int]
) -> list[list[Group]]:
    """Chains side by side: those of groups that have `begun`, then the rest, `size` of them each.

    `size` is called with the number of the rest, if there is one. In a unit all chains have the
    same steps, so that a group branches off as one; chains of a single run that nothing can
    continue need not.
    """
    chain_of = {spec: chain for chain in found for spec in chain}
    whole = []
    for group in begun:
        if all(spec in chain_of for spec in group):
            mine = [chain_of[spec] for spec in group]
            if len({_lengths(chain, recipe) for chain in mine}) > 1:
                mine = [[spec] for spec in group]
            whole.append(_side_by_side(mine))
            for spec in itertools.chain(*mine):
                del chain_of[spec]
    rest = [kept for chain in found if (kept := [spec for spec in chain if spec in chain_of])]
    most = size(len(rest)) if rest else 1
    if most > 1:
        rest.sort(key=lambda chain: chain[-1].total, reverse=True)
    alike: dict[Hashable, list[Group]] = {}
    for chain in rest:
        alike.setdefault(_lengths(chain, recipe) if most > 1 else chain[0], []).append(chain)
    for some in alike.values():
        parts = -(-len(some) // most)
        bounds = [len(some) * i // parts for i in range(parts + 1)]
        whole += [_side_by_side(some[a:b]) for a, b in itertools.pairwise(bounds)]
    return whole


def _side_by_side(some: Sequence[Group]) -> list[Group]:
    return [list(group) for group in zip(*some, strict=True)]


def _lengths(chain: Group, recipe: Recipe) -> tuple[int, ...]:
    alone = len(chain) == 1 and recipe.schedule != "constant"
    return () if alone else tuple(steps_of(spec, recipe) for spec in chain)


def _trunk_identity(spec: RunSpec, recipe: Recipe) -> Hashable:
    if spec.stages:
        return spec
    branch = recipe.branch_step(steps_of(spec, recipe))
    trunk = trunk_of(spec.tokens, recipe.model.seq_len, branch * recipe.batch_size)
    if not branch or not trunk:
        return spec
    pool = [("pool", *spec.pool.items())] if spec.pool else []
    return (spec.seed, *trunk.weights.items(), *pool)


def trunk_key(spec: RunSpec, recipe: Recipe, data_fingerprint: str) -> str:
    """What the runs have in common that continue each other from end to end: 16 hex digits.

    "" where no run can continue this one: under other schedules than "constant", for weights that
    do not divide its sequences (`data.GRID`), and in verification.
    """
    trunk = _trunk_identity(spec, recipe)
    if recipe.schedule != "constant" or trunk == spec or spec.seed >= VERIFICATION_SEED:
        return ""
    text = json.dumps([trunk, recipe.identity(), data_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
