"""AutoScale: DDO at several small budgets, then the optimum at any larger one (Algorithm 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from autoscale_jax import fit
from autoscale_jax.methods.ddo import DDO
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Proposal, RunSpec


@dataclasses.dataclass(frozen=True)
class AutoScale:
    """Asks for every budget's DDO runs and proposes from all of them together.

    `rule` is `fit.recommend`'s method: "autoscale" is the paper's, "auto" fits several laws to all
    budgets and averages those with the least held-out error at the larger scale.
    """

    budgets: tuple[DDO, ...]
    rule: Literal["auto", "autoscale"]
    objective: fit.Objective
    eval_weights: Mapping[str, float] | None
    natural: Mapping[str, float]
    floor: float
    samples: int
    seed: int

    def ask(self, table: RunTable) -> list[RunSpec]:
        """Runs of all budgets that the table lacks, the smallest budget's first."""
        return [spec for ddo in self.budgets for spec in ddo.ask(table)]

    def propose(
        self, table: RunTable, tokens: int, caps: Mapping[str, float] | None = None
    ) -> Proposal:
        """The mixture for `tokens` tokens, no domain above its cap, with 90% intervals."""
        planned = {spec for ddo in self.budgets for spec in ddo.design()}
        return fit.recommend(
            table.arrays(lambda run: run.spec in planned),
            tokens,
            method=self.rule,
            objective=self.objective,
            eval_weights=self.eval_weights,
            lower=self.floor,
            upper=caps,
            natural=self.natural,
            samples=self.samples,
            seed=self.seed,
        )
