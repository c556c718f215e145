"""Direct Data Optimization: which runs one token budget needs (AutoScale, Algorithm 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from autoscale_jax import fit
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Run, RunSpec, split_tokens


@dataclasses.dataclass(frozen=True)
class DDO:
    """The 2m+1 runs of one budget: a uniform base, and each domain's tokens times and by `factor`.

    The other domains' tokens stay as they are, so the total changes. The base is trained with
    `base_seeds` seeds: all m fits share it, and its spread measures the noise. `pool` limits the
    unique tokens that these runs draw on.
    """

    domains: tuple[str, ...]
    budget: int
    factor: float = 3.0
    base_seeds: int = 3
    perturbed_seeds: int = 1
    pool: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def base(self) -> dict[str, int]:
        """Tokens of the base run."""
        return split_tokens({name: 1 / len(self.domains) for name in self.domains}, self.budget)

    def design(self) -> list[RunSpec]:
        """All runs of this budget: base replicates first, then the domains in turn."""
        base, pool = self.base, self.pool
        specs = [
            RunSpec(base, seed, f"{self.budget:,} base seed {seed}", pool=pool)
            for seed in range(self.base_seeds)
        ]
        for name in self.domains:
            for symbol, scale in (("x", self.factor), ("/", 1 / self.factor)):
                tokens = base | {name: round(base[name] * scale)}
                for seed in range(self.perturbed_seeds):
                    label = f"{self.budget:,} {name} {symbol}{self.factor:g} seed {seed}"
                    specs.append(RunSpec(tokens, seed, label, pool=pool))
        return specs

    def ask(self, table: RunTable) -> list[RunSpec]:
        return [spec for spec in self.design() if table.find(spec) is None]

    def runs(self, table: RunTable) -> list[Run]:
        """The runs of this budget that ended well, in the design's order."""
        found = (table.find(spec) for spec in self.design())
        return [run for run in found if run is not None and run.status == "ok"]

    def optimum(
        self,
        table: RunTable,
        objective: Callable[[Mapping[str, float]], float],
        *,
        floor: float,
        samples: int,
        seed: int,
    ) -> fit.DDOResult:
        """This budget's optimum by Eq. 2 (`fit.ddo_optimum`), in the order of `self.domains`.

        Raises `BadInput` when too many runs diverged for a domain's law.
        """
        runs = self.runs(table)
        return fit.ddo_optimum(
            np.array([[run.spec.tokens[name] for name in self.domains] for run in runs]),
            [objective(run.loss) for run in runs],
            lower=floor,
            offset="zero",
            samples=samples,
            seed=seed,
            names=self.domains,
        )
