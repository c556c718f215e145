"""Asynchronous successive halving (ASHA, Li et al. 2020), at the target's size."""

from __future__ import annotations

import bisect
import dataclasses

from autoscale_jax.methods.hyperband import rungs
from autoscale_jax.methods.mixtures import Sampler, draws
from autoscale_jax.methods.search import Plan, Search
from autoscale_jax.methods.space import Trial
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class ASHA(Search):
    """Whenever a worker is free: the best of a rung's top 1/eta not yet promoted, from the highest
    rung down, goes on to the next rung; else a new mixture starts at the lowest.

    `workers` jobs are decided at a time, each knowing that those before it are pending.
    """

    eta: int = 3
    sampler: Sampler = "dirichlet"
    workers: int = 1

    def plan(self) -> Plan:
        if self.workers < 1:
            raise BadInput(f"workers = {self.workers}: use 1 or more")
        steps = rungs(self.space, self.eta)
        drawn = draws(self.space, self.sampler, self.seed)
        mixtures: list[Trial] = []
        # by rung: (objective, mixture) sorted, and the mixtures that were promoted out of it
        ended: list[list[tuple[float, int]]] = [[] for _ in steps]
        promoted: list[set[int]] = [set() for _ in steps]
        while True:
            jobs: list[tuple[int, int]] = []
            for _ in range(self.workers):
                job = self._promotion(ended, promoted)
                if job is None:
                    mixtures.append(self.at_target(next(drawn)))
                    job = (len(mixtures) - 1, 0)
                else:
                    promoted[job[1] - 1].add(job[0])
                jobs.append(job)
            values = yield [mixtures[i]._replace(steps=steps[rung]) for i, rung in jobs]
            for (i, rung), value in zip(jobs, values, strict=True):
                bisect.insort(ended[rung], (value, i))

    def _promotion(
        self, ended: list[list[tuple[float, int]]], promoted: list[set[int]]
    ) -> tuple[int, int] | None:
        """The next mixture to promote, and its new rung."""
        for rung in range(len(ended) - 2, -1, -1):
            for _, i in ended[rung][: len(ended[rung]) // self.eta]:
                if i not in promoted[rung]:
                    return i, rung + 1
        return None
