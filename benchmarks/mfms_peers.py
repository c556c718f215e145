"""Searches of other libraries as methods of the study; each needs its library installed.

Optuna's TPE sampler with its Hyperband pruner (at the target's size, steps as the resource), and
BoTorch's multi-fidelity knowledge gradient (over mixture, size and steps). Both were left as their
tutorials have them, but for what the docstrings name.
"""

from __future__ import annotations

import dataclasses
from importlib import metadata
from typing import Any

import jax
import numpy as np

from autoscale_jax.fit.precision import scope
from autoscale_jax.fit.simplex import project
from autoscale_jax.methods.hyperband import rungs
from autoscale_jax.methods.mixtures import draws
from autoscale_jax.methods.search import Objective, Plan, Search
from autoscale_jax.methods.space import Space, Trial, observations
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import RunSpec

LEAST = 1e-9  # of a uniform number whose logarithm is taken
INITIAL, TOGETHER, FANTASIES = 16, 4, 64  # first runs, runs a decision, fantasies
FIXED_COST = 0.25  # what any run costs besides, in trainings of the target: the tutorial's
MOST = 80  # runs, since it likes small ones and a decision takes some ten seconds of a CPU


@dataclasses.dataclass(frozen=True)
class OptunaHyperband(Search):
    """TPE and Hyperband as in the library's pages, on the rungs of our own Hyperband.

    Weights are w_k = -log u_k over their sum, u uniform: the library's recipe for proportions.
    Under floors and caps they are projected to the nearest allowed mixture, so that faces can be
    reached. A run that is not pruned goes on at once, and costs the difference.
    """

    eta: int = 3
    version: str = dataclasses.field(default_factory=lambda: metadata.version("optuna"))

    def plan(self) -> Plan:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        steps = rungs(self.space, self.eta)
        study = optuna.create_study(
            study_name=str(self.seed),  # of which the pruner makes its draws
            sampler=optuna.samplers.TPESampler(seed=self.seed),
            pruner=optuna.pruners.HyperbandPruner(1, self.eta ** (len(steps) - 1), self.eta),
        )
        while True:
            trial = study.ask()
            names = self.space.domains
            u_K = np.array([trial.suggest_float(name, 0, 1) for name in names])
            weights_K = self._allowed(-np.log(np.clip(u_K, LEAST, 1 - LEAST)))
            for rung, count in enumerate(steps):
                (value,) = yield [self.at_target(weights_K)._replace(steps=count)]
                trial.report(value, self.eta**rung)
                if count < steps[-1] and trial.should_prune():
                    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                    break
            else:
                study.tell(trial, value)

    def _allowed(self, part_K: np.ndarray) -> np.ndarray:
        weights_K = part_K / part_K.sum()
        lower_K, upper_K = np.array(self.space.lower_K), np.array(self.space.upper_K)
        if (weights_K >= lower_K).all() and (weights_K <= upper_K).all():
            return weights_K
        with scope():
            return np.asarray(_projected(weights_K, lower_K, upper_K))


_projected = jax.jit(project)


@dataclasses.dataclass
class BoTorchGradient:
    """Asks for 16 random runs (mixture, size and steps), then for four a decision, and recommends
    the mixture of the best posterior mean at the target.

    `FIXED_COST` and `MOST` keep it from asking for thousands of the smallest runs.
    """

    space: Space
    objective: Objective
    budget: float
    seed: int = 0
    version: str = dataclasses.field(default_factory=lambda: metadata.version("botorch"))
    _last: dict[int, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def ask(self, table: RunTable) -> list[RunSpec]:
        """The next runs, as far as the budget and `MOST` go."""
        if len(table) >= MOST:
            return []
        specs = self._new(table, self._next(table) if len(table) else self._random(0, INITIAL))
        if not specs:  # it asks for what it knows: exact values are noise to it
            specs = self._new(table, self._random(len(table), TOGETHER))
        done, asked = [run.spec for run in table], list[RunSpec]()
        left = self.budget - self.space.spent(done)
        for spec in specs:
            left -= self.space.cost(spec, [*done, *asked])
            if left < 0:
                break
            asked.append(spec)
        return asked

    def recommend(self, table: RunTable) -> np.ndarray:
        from mfms_botorch import recommended

        return recommended(self.space, self._fitted(table))

    def _new(self, table: RunTable, trials: list[Trial]) -> list[RunSpec]:
        """Of the trials those that were not run yet, each once."""
        specs = [self.space.spec(trial, "BoTorch") for trial in trials]
        return [
            spec
            for i, spec in enumerate(specs)
            if table.find(spec) is None and spec not in specs[:i]
        ]

    def _random(self, number: int, count: int) -> list[Trial]:
        rng = np.random.default_rng([self.seed, number])
        mixtures = draws(self.space, "dirichlet", int(rng.integers(2**31)))
        sizes = rng.integers(len(self.space.sizes), size=count)
        steps = rng.choice(self.space.steps, count)
        return [
            Trial(next(mixtures), int(size), int(n)) for size, n in zip(sizes, steps, strict=True)
        ]

    def _next(self, table: RunTable) -> list[Trial]:
        from mfms_botorch import decide

        seed = 1000 * self.seed + len(table)
        found = self._fitted(table)
        return decide(self.space, found, seed, FIXED_COST, TOGETHER, FANTASIES)

    def _fitted(self, table: RunTable) -> Any:
        """The surrogate of the table; the last one is kept, since it is used twice."""
        from mfms_botorch import fitted

        if len(table) not in self._last:
            observed = observations(table, self.space, self.objective)
            seed = 1000 * self.seed + len(table)
            self._last = {len(table): fitted(self.space, observed, seed)}
        return self._last[len(table)]
