"""Grid search: full trainings of the mixtures on a lattice, from coarse to fine."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from autoscale_jax.methods.mixtures import lattice
from autoscale_jax.methods.search import Plan, Search
from autoscale_jax.specs import BadInput

MOST = 20_000  # points of a lattice


@dataclasses.dataclass(frozen=True)
class GridSearch(Search):
    """The lattices of 1, 2, 4, 8 ... parts; new points of each in an order drawn by the seed.

    Ends before a lattice of more than 20,000 points. Raises `BadInput` when none of a lattice's
    mixtures is within floors and caps.
    """

    def plan(self) -> Plan:
        rng = np.random.default_rng(self.seed)
        chosen: dict[bytes, np.ndarray] = {}
        parts, k = 1, len(self.space.domains)
        while len(chosen) < self.full_runs() and math.comb(parts + k - 1, k - 1) <= MOST:
            points = list(lattice(self.space, parts))
            for i in rng.permutation(len(points)):
                chosen.setdefault(np.round(points[i], 9).tobytes(), points[i])
            parts *= 2
        if not chosen:
            raise BadInput(
                f"grid of up to 1/{parts // 2}: no mixture within floors and caps: widen them"
            )
        yield [self.at_target(w_K) for w_K in list(chosen.values())[: self.full_runs()]]
