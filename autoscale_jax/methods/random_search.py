"""Random search: full trainings of random mixtures."""

from __future__ import annotations

import dataclasses
import itertools

from autoscale_jax.methods.mixtures import Sampler, draws
from autoscale_jax.methods.search import Plan, Search


@dataclasses.dataclass(frozen=True)
class RandomSearch(Search):
    """As many full trainings as the budget pays for, of mixtures drawn by `mixtures.draws`."""

    sampler: Sampler = "dirichlet"

    def plan(self) -> Plan:
        drawn = draws(self.space, self.sampler, self.seed)
        yield [self.at_target(w_K) for w_K in itertools.islice(drawn, self.full_runs())]
