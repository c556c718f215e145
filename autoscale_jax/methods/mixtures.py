"""Mixtures of a space without looking at any run: at random, its corners, and a lattice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from autoscale_jax.methods.space import Space
from autoscale_jax.specs import BadInput

Sampler = Literal["dirichlet", "logits"]
BLOCK, PATIENCE = 64, 1000  # draws at a time, and times that all may be refused
EXACT = 1e-9


def draws(space: Space, sampler: Sampler, seed: int) -> Iterator[np.ndarray]:
    """Endless random mixtures, each weights_K within floors and caps; the same for the same seed.

    "dirichlet" is uniform on the allowed mixtures. "logits" is the softmax of uniform logits in
    [-3, 3], refused where not allowed: the random search of 2503.21023's authors, which never comes
    near a corner. Raises `BadInput` when of 64,000 mixtures none is within floors and caps.
    """
    if sampler not in ("dirichlet", "logits"):
        raise BadInput(f"sampler = {sampler!r}: use 'dirichlet' or 'logits'")
    rng = np.random.default_rng(seed)
    lower_K, upper_K = np.array(space.lower_K, float), np.array(space.upper_K, float)
    free_F = np.flatnonzero(upper_K - lower_K > EXACT)
    refused = 0
    while refused < PATIENCE:
        if sampler == "dirichlet":
            weights_BxK = np.tile(lower_K, (BLOCK, 1))
            if len(free_F):
                share_BxF = rng.dirichlet(np.ones(len(free_F)), BLOCK)
                weights_BxK[:, free_F] += (1 - lower_K.sum()) * share_BxF
        else:
            weights_BxK = np.exp(rng.uniform(-3, 3, (BLOCK, len(lower_K))))
            weights_BxK /= weights_BxK.sum(1, keepdims=True)
        ok_B = within(space, weights_BxK)
        refused = 0 if ok_B.any() else refused + 1
        yield from weights_BxK[ok_B]
    raise BadInput(
        f"weights in [{min(lower_K):g}, {max(upper_K):g}]: floors and caps leave a random mixture "
        "no room: widen them"
    )


def vertices(space: Space) -> np.ndarray:
    """Corners of the allowed mixtures, [V, K]: all weights but one at a floor or a cap."""
    lower_K, upper_K = np.array(space.lower_K, float), np.array(space.upper_K, float)
    found = []
    for free in range(len(lower_K)):
        order = [free, *(k for k in range(len(lower_K)) if k != free)]
        low_K, high_K = lower_K[order], upper_K[order]
        chosen: list[tuple[float, ...]] = [()]
        for i in range(1, len(order)):  # the free weight and those to come must make up the rest
            low = low_K[0] + low_K[i + 1 :].sum() - EXACT
            high = high_K[0] + high_K[i + 1 :].sum() + EXACT
            ends = sorted({float(low_K[i]), float(high_K[i])})
            chosen = [(*c, w) for c in chosen for w in ends if low <= 1 - sum(c) - w <= high]
        for others in chosen:
            corner_K = np.empty(len(order))
            corner_K[order] = (1 - sum(others), *others)
            found.append(np.round(corner_K, 12) + 0.0)  # without -0
    return np.unique(found, axis=0)[::-1]


def lattice(space: Space, parts: int) -> Iterator[np.ndarray]:
    """The allowed mixtures whose weights, above the floors, are whole multiples of 1/parts."""
    lower_K, k = np.array(space.lower_K), len(space.lower_K)
    for bars in itertools.combinations(range(parts + k - 1), k - 1):
        count_K = np.diff((-1, *bars, parts + k - 1)) - 1
        weights_K = lower_K + (1 - lower_K.sum()) * count_K / parts
        if within(space, weights_K[None])[0]:
            yield weights_K


def within(space: Space, weights_BxK: np.ndarray) -> np.ndarray:
    """Which mixtures are within floors and caps."""
    above_BxK = weights_BxK >= np.array(space.lower_K) - EXACT
    below_BxK = weights_BxK <= np.array(space.upper_K) + EXACT
    return np.all(above_BxK & below_BxK, axis=1)
