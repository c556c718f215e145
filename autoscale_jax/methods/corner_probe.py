"""Corner probe: a cheap look at every corner, then a local search from the best one."""

from __future__ import annotations

import dataclasses

import numpy as np

from autoscale_jax.methods.mixtures import vertices
from autoscale_jax.methods.search import Plan, Search
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class CornerProbe(Search):
    """Each corner of the allowed mixtures at `probe_size` (the smallest) for `probe_steps`, then
    full trainings: the best corner, and a pattern search from it.

    The pattern search moves by `length` of the way to each corner, the best-probed first, stays
    where the objective falls, and halves the length after a round without a gain, until it is
    below `shortest`.
    """

    probe_size: str = ""
    probe_steps: int = 900
    length: float = 0.4
    shortest: float = 1e-3

    def plan(self) -> Plan:
        size = self.space.index.get(self.probe_size or self.space.sizes[0].name)
        if size is None:
            known = ", ".join(self.space.index)
            raise BadInput(f"probe_size = {self.probe_size!r}: use one of {known}")
        corner_VxK = vertices(self.space)
        at_target = self.at_target(corner_VxK[0])
        steps = self.probe_steps if size < at_target.size else at_target.steps
        probed_V = yield [
            at_target._replace(weights_K=w_K, size=size, steps=steps) for w_K in corner_VxK
        ]
        corner_VxK = corner_VxK[np.argsort(probed_V, kind="stable")]
        centre_K, length = corner_VxK[0], self.length
        (best,) = yield [self.at_target(centre_K)]
        while length >= self.shortest:
            before = best
            for corner_K in corner_VxK:
                tried_K = centre_K + length * (corner_K - centre_K)
                if np.abs(tried_K - centre_K).max() < self.shortest * length:
                    continue
                (value,) = yield [self.at_target(tried_K)]
                if value < best:
                    centre_K, best = tried_K, value
            if not best < before:
                length /= 2
