"""Mixtures that a search considers: corners, random ones, tried ones, and those near the best."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from autoscale_jax.methods.mixtures import draws, vertices
from autoscale_jax.methods.space import Space

CORNERS = 24  # of many corners, so many are looked at
EVEN, SPARSE, TRIED = 150, 80, 200
NEAR, BEST, SPREADS = 12, 6, (0.15, 0.05, 0.02)  # so many around each of the best, at each distance


def corners(space: Space, rng: np.random.Generator) -> np.ndarray:
    """All corners of the allowed mixtures, or a random choice where they are many."""
    all_VxK = vertices(space)
    return all_VxK if len(all_VxK) <= CORNERS else rng.permutation(all_VxK)[:CORNERS]


def random_mixtures(space: Space, rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, K) mixtures, uniform on the allowed ones."""
    seed = int(rng.integers(2**31))
    return np.array(list(itertools.islice(draws(space, "dirichlet", seed), count)))


def projected(space: Space, v_QxK: np.ndarray) -> np.ndarray:
    """(Q, K) nearest allowed mixtures, by bisection on the multiplier."""
    lower_K, upper_K = np.array(space.lower_K), np.array(space.upper_K)
    low_Q = (v_QxK - upper_K).min(1, keepdims=True)
    high_Q = (v_QxK - lower_K).max(1, keepdims=True)
    for _ in range(50):
        middle_Q = (low_Q + high_Q) / 2
        too_much = np.clip(v_QxK - middle_Q, lower_K, upper_K).sum(1, keepdims=True) > 1
        low_Q, high_Q = np.where(too_much, middle_Q, low_Q), np.where(too_much, high_Q, middle_Q)
    return np.clip(v_QxK - high_Q, lower_K, upper_K)


def mixtures_to_consider(
    space: Space,
    rng: np.random.Generator,
    corner_VxK: np.ndarray,
    tried_RxK: np.ndarray,
    mean: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """(Q, K) mixtures to choose from; `mean` tells how good each is expected to be (less: better).

    Their number depends on those of corners and tried mixtures alone.
    """
    k = len(space.domains)
    sparse = projected(space, rng.dirichlet(np.full(k, 0.3), SPARSE))
    some = rng.permutation(len(tried_RxK))[:TRIED]
    base = np.concatenate([corner_VxK, random_mixtures(space, rng, EVEN), sparse, tried_RxK[some]])
    best = base[np.argsort(mean(base), kind="stable")[:BEST]]
    steps = [rng.normal(0, sd, (len(best), NEAR, k)) for sd in SPREADS]
    near = projected(space, np.concatenate([(best[:, None] + s).reshape(-1, k) for s in steps]))
    return np.concatenate([base, near])
