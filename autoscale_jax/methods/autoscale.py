"""AutoScale: DDO at several small budgets, then the optimum at any larger one (Algorithm 2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from autoscale_jax import fit
from autoscale_jax.methods.ddo import DDO
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import VERIFICATION_SEED, Proposal, RunSpec


@dataclasses.dataclass(frozen=True)
class AutoScale:
    """Asks for every budget's DDO runs and proposes from all of them together.

    `rule` is `fit.recommend`'s method: "autoscale" is the paper's, "auto" fits several laws to all
    budgets and averages those with the least held-out error at the larger scale, "keep" is DDO's
    optimum at the largest budget, and all there is to ask of a single one. `extra_runs` more
    runs are then asked for one by one, each the one that is worth most (`fit.next_run`): the
    paper's "iterate if necessary". They are fewer where the data feed no more.
    """

    budgets: tuple[DDO, ...]
    target_tokens: int
    rule: Literal["auto", "autoscale", "keep"]
    objective: fit.Objective
    eval_weights: Mapping[str, float] | None
    natural: Mapping[str, float]
    unique: Mapping[str, int]
    max_epochs: float
    floor: float
    samples: int
    seed: int
    extra_runs: int = 0
    flops_per_token: float = 1.0

    def ask(self, table: RunTable) -> list[RunSpec]:
        """Runs that the table lacks, the smallest budget's first, then the extra ones."""
        missing = [spec for ddo in self.budgets for spec in ddo.ask(table)]
        if missing or len(self._extra(table)) >= self.extra_runs:
            return missing
        best = self.next_run(table)
        if best is None:
            return []
        tokens = {name: round(n) for name, n in best.tokens.items()}
        seeds = {run.spec.seed for run in table if dict(run.spec.tokens) == tokens}
        free = next(seed for seed in range(VERIFICATION_SEED) if seed not in seeds)
        label, pool = f"{best.label} seed {free} (extra)", self._budget_of(best).pool
        return [RunSpec(tokens, free, label, pool=pool)]

    def propose(self, table: RunTable, tokens: int) -> Proposal:
        """The mixture for `tokens` tokens, with 90% intervals.

        No domain is repeated more than `max_epochs` times. Raises `BadInput` when the runs that
        ended well are too few.
        """
        return fit.recommend(
            self._evidence(table),
            tokens,
            method=self.rule,
            natural=self.natural,
            **self._question(),
        )

    def trajectory(self, table: RunTable, totals: Sequence[float]) -> list[fit.ScalePoint]:
        """The best mixture by the laws of "auto" at several token totals."""
        return fit.trajectory(self._evidence(table), totals, **self._question())

    def feeds(self, total: float) -> bool:
        """Whether the data hold a mixture of so many tokens within floor and `max_epochs`."""
        unique_K = np.array(list(self.unique.values()), np.float64)
        cap_K = np.minimum(unique_K * self.max_epochs / total, 1.0)
        return bool(cap_K.sum() >= 1 and cap_K.min() >= self.floor)

    def next_run(self, table: RunTable) -> fit.NextRun | None:
        """The run that would take most off the proposal's expected regret per FLOP, of those that
        repeat no domain, or its pool, more than `max_epochs` times; None where there is none."""
        factor = self.budgets[0].factor
        found = fit.next_run(
            self._evidence(table),
            self.target_tokens,
            factors=(factor, 1 / factor),
            flops_per_token=self.flops_per_token,
            **self._question(),
        )
        return found[0] if found else None

    def _budget_of(self, run: fit.NextRun) -> DDO:
        return min(self.budgets, key=lambda ddo: abs(math.log(run.budget / ddo.budget)))

    def _question(self) -> dict[str, Any]:
        """What all of the fit's answers are asked with."""
        return {
            "objective": self.objective,
            "eval_weights": self.eval_weights,
            "lower": self.floor,
            "unique": self.unique,
            "max_epochs": self.max_epochs,
            "samples": self.samples,
            "seed": self.seed,
        }

    def _extra(self, table: RunTable) -> list[RunSpec]:
        """The runs of proxies beyond the design, in an order that does not depend on timing."""
        design = {spec for ddo in self.budgets for spec in ddo.design()}
        extra = [r.spec for r in table if r.spec not in design and r.spec.seed < VERIFICATION_SEED]
        return sorted(extra, key=lambda spec: (spec.total, spec.label))

    def _evidence(self, table: RunTable) -> RunTable:
        """The proxies' runs in the design's order: resampling must not see who ended first."""
        specs = [spec for ddo in self.budgets for spec in ddo.design()] + self._extra(table)
        return RunTable([run for spec in specs if (run := table.find(spec)) is not None])
