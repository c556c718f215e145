"""Searches without a model: a plan of trials, cut at a budget, and the best run that it found."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from autoscale_jax.methods.space import Space, Trial, check_budget
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Proposal, Run, RunSpec

Objective = Callable[[Mapping[str, float]], float]  # of a run's losses by name; smaller is better
Plan = Generator[list[Trial], list[float], None]  # trials to do next, sent their objectives


class Job(NamedTuple):
    """A training to do, and the FLOPs that it costs after those before it."""

    spec: RunSpec
    cost: float


@dataclasses.dataclass(frozen=True)
class Search(abc.ABC):
    """A method given by its `plan`; the runs may cost `budget` FLOPs together.

    A training that continues one of the search's own costs the difference, where the space allows
    it. A run that failed counts as the worst. Raises `BadInput` for a budget below the first run's
    cost.
    """

    space: Space
    objective: Objective
    budget: float
    seed: int = 0

    def __post_init__(self) -> None:
        check_budget(self.space, self.budget)
        first = next(self.plan())[0]
        check_budget(self.space, self.budget, self.space.flops(first.size, first.steps))

    @abc.abstractmethod
    def plan(self) -> Plan:
        """Yields trials to do side by side, and is sent their objectives, infinite where failed.

        Depends on nothing but the fields and what it was sent, so that `ask` is pure.
        """

    def batches(self) -> Generator[list[Job], Iterable[Run], None]:
        """The plan's trials as jobs, as far as the budget goes; is sent their runs, in order."""
        plan, spent, full = self.plan(), 0.0, False
        done: dict[tuple[int, bytes], set[int]] = {}  # steps trained, by size and mixture
        trials = next(plan)
        while not full:
            fits = []
            for trial in trials:
                steps = done.setdefault((trial.size, trial.weights_K.tobytes()), set())
                begun = max(steps, default=0) if self.space.continues else 0
                again = trial.steps in steps or trial.steps < begun
                cost = 0.0 if again else self.space.flops(trial.size, trial.steps - begun)
                full = spent + cost > self.budget * (1 + 1e-9)
                if full:
                    break
                spent += cost
                steps.add(trial.steps)
                label = f"{type(self).__name__} {trial.steps:,} steps"
                fits.append(Job(self.space.spec(trial, label), cost))
            if fits:
                runs = yield fits
                values = [self.value(run) for run in runs]
            if not full:
                try:
                    trials = plan.send(values)
                except StopIteration:
                    return

    def ask(self, table: RunTable) -> list[RunSpec]:
        """What the table lacks of the first batch that it does not hold whole; [] at the end."""
        batches = self.batches()
        jobs = next(batches)
        while True:
            specs = [job.spec for job in jobs]
            runs = [run for spec in specs if (run := table.find(spec)) is not None]
            if len(runs) < len(specs):
                return [spec for spec in specs if table.find(spec) is None]
            try:
                jobs = batches.send(runs)
            except StopIteration:
                return []

    def value(self, run: Run) -> float:
        """The objective of a run: infinite when it failed or has none."""
        value = self.objective(run.loss) if run.status == "ok" else math.inf
        return value if math.isfinite(value) else math.inf

    def rank(self, run: Run) -> tuple[int, int, float]:
        """Least for the best run: of the largest size seen, of the most steps at it, the best."""
        trial = self.space.trial(run.spec)
        return -trial.size, -trial.steps, self.value(run)

    def counts(self, run: Run) -> bool:
        """Whether a run may be the incumbent: all that ended with an objective may."""
        return math.isfinite(self.value(run))

    def incumbent(self, runs: Iterable[Run]) -> Run:
        """The run of the least rank. Raises `BadInput` when none counts yet."""
        ended = [run for run in runs if self.counts(run)]
        if not ended:
            raise BadInput(
                f"table of {type(self).__name__}: no run that counts ended well: do those of ask"
            )
        return min(ended, key=self.rank)

    def recommend(self, table: RunTable) -> np.ndarray:
        """weights_K of the incumbent."""
        return self.space.trial(self.incumbent(table).spec).weights_K

    def propose(self, table: RunTable, tokens: int) -> Proposal:
        """The incumbent's mixture. Nothing is known of how sure it is: intervals are all there is.

        The predicted objective is the incumbent's own, at its size and steps.
        """
        best = self.incumbent(table)
        names, space = self.space.domains, self.space
        return Proposal(
            method=type(self).__name__,
            tokens=tokens,
            weights=dict(zip(names, self.recommend(table).tolist(), strict=True)),
            low=dict(zip(names, space.lower_K, strict=True)),
            high=dict(zip(names, space.upper_K, strict=True)),
            predicted_objective=self.value(best),
            predicted_low=-math.inf,
            predicted_high=math.inf,
            warnings=("a search without a model: its intervals are the floors and caps",),
            details={"size": best.spec.size, "steps": space.trial(best.spec).steps},
        )

    def at_target(self, weights_K: np.ndarray) -> Trial:
        """The full training of a mixture."""
        return Trial(weights_K, len(self.space.sizes) - 1, self.space.target_steps)

    def full_runs(self) -> int:
        """Full trainings that the budget pays for; at least 1."""
        target = self.at_target(np.empty(0))
        return max(1, int(self.budget / self.space.flops(target.size, target.steps) + 1e-9))
