"""The course of one MFMS-BO search: its decisions, and what they have cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autoscale_jax.fit.gp_transfer import Surrogate, fit_surrogate, told
from autoscale_jax.methods.candidates import corners
from autoscale_jax.methods.decision import (
    Choice,
    Decision,
    inputs_of,
    posterior_at_target,
)
from autoscale_jax.methods.law_mixture import law_mixture
from autoscale_jax.methods.mfms_design import Settings, different, first_trials
from autoscale_jax.methods.space import Observations, Trial, observations
from autoscale_jax.specs import BadInput, Run, RunSpec

Z90 = 1.6448536  # half a 90% interval, in sds
ANCHOR = 0.7  # from this share of the target's steps on, a run at its size counts as precise
SPLIT = 0.7  # share of the FLOPs that goes into such runs
SHORTEST = 0.2  # decisions take no run of less than this share of the target's steps
DOUBT = 0.5  # sds of the posterior that count against a mixture when one is recommended
SAME = 1e-3  # weights that differ by less are the same
DOUBT = 0.5  # sds of the posterior that count against a mixture when one is recommended
SAME = 1e-3  # weights that differ by less are the same
PAPER_SHORTEST = 0.3
GROWTH = 1.1  # the surrogate's search starts anew when the observations have grown so much


class PathPoint(NamedTuple):
    """The recommendation after so many FLOPs, and what the surrogate says of it at the target."""

    flops: float
    weights_K: np.ndarray
    mean: float
    sd: float


class Walk:
    """Jobs to do now, to be told their runs: then the next ones. Depends on nothing else."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.space = settings, settings.space
        self.runs: list[Run] = []
        self.jobs: list[RunSpec] = []
        self.path: list[PathPoint] = []
        self.surrogate: Surrogate | None = None
        self.best_K: np.ndarray | None = None
        self.spent = self._precise = 0.0
        self._rng = np.random.default_rng(settings.seed)
        self._by_law: list[np.ndarray] = []  # mixtures that a law was followed to
        self._begun: dict[tuple[int, tuple[float, ...]], int] = {}  # steps, by size and mixture
        self._corner_VxK = corners(self.space, self._rng)
        self._design = first_trials(settings, self._corner_VxK, self._rng)
        self._decisions = self._fitted = self._asked = 0
        self._ask()

    def tell(self, runs: Sequence[Run]) -> None:
        """The runs of `jobs`, in their order."""
        self.runs += runs
        self._learn()
        self._ask()

    def tried(self) -> np.ndarray:
        """(R, K) different mixtures with a run that ended well, in the order of their first."""
        ended = [self.space.trial(run.spec).weights_K for run in self.runs if run.status == "ok"]
        return different(ended, len(self.space.domains))

    def _observed(self) -> Observations:
        return observations(self.runs, self.space, self.settings.objective, self.settings.curve_at)

    def _learn(self) -> None:
        """Refits the surrogate and finds the mixture to recommend."""
        observed = self._observed()
        if len(observed.objective_R) < 2:
            return
        trials = [Trial(*of) for of in zip(*observed[:3], strict=True)]
        last_P = self.surrogate.theta_P if self.surrogate is not None else None
        if len(trials) >= GROWTH * self._fitted:
            last_P, self._fitted = None, len(trials)
        self.surrogate = fit_surrogate(
            inputs_of(self.space, trials), observed.objective_R, last_P=last_P
        )
        mixtures = self._to_recommend()
        if not len(mixtures):
            return
        mean_Q, sd_Q = posterior_at_target(self.surrogate, mixtures)
        doubt = 0.0 if self.settings.acquisition == "paper" else DOUBT
        best = int(np.argmin(mean_Q + doubt * sd_Q))
        self.best_K = mixtures[best]
        self.path.append(PathPoint(self.spent, self.best_K, float(mean_Q[best]), float(sd_Q[best])))

    def _to_recommend(self) -> np.ndarray:
        """(Q, K) mixtures tried at the target or nearly, and the references; while there are none
        of the former, all that were tried."""
        precise = [
            trial.weights_K
            for run in self.runs
            if run.status == "ok" and self._is_precise(trial := self.space.trial(run.spec))
        ]
        if self.settings.acquisition == "paper" or not precise:
            return self.tried()
        return different([*precise, *self.settings.references], len(self.space.domains))

    def _is_precise(self, trial: Trial) -> bool:
        last = len(self.space.sizes) - 1
        return trial.size == last and trial.steps >= ANCHOR * self.space.target_steps

    def _ask(self) -> None:
        """The next jobs; none when the budget is spent or nothing more is to be gained."""
        self.jobs = []
        while self._design:
            for trial in self._design.pop(0):
                self._add(self.space.rounded(trial))
            if self.jobs:
                return
        if self.surrogate is None:
            if self.runs:
                raise BadInput(
                    f"table of {len(self.runs)} runs: none, or one, ended with a finite objective: "
                    "see their messages"
                )
            return
        surrogate = self.surrogate
        while len(self.jobs) < self.settings.batch:
            choice = self._decide(surrogate)
            if choice is None or self._is_enough(choice):
                return
            trial = self._in_turn(choice.trial)
            if not self._add(trial):
                return
            surrogate = told(surrogate, inputs_of(self.space, [trial])[0])

    def _is_enough(self, choice: Choice) -> bool:
        """Whether the best mixture is precise, and no other is expected to gain anything."""
        assert self.surrogate is not None
        gain = choice.gain / float(self.surrogate.scale)
        return self._precise > 0 and gain < self.settings.tolerance

    def _decide(self, surrogate: Surrogate) -> Choice | None:
        assert self.best_K is not None
        number, self._decisions = self._decisions, self._decisions + 1
        for options in self._options():
            decision = Decision(
                self.space, surrogate, self._corner_VxK, self.tried(), self.best_K, options,
                self._cost, self._rng,
            )  # fmt: skip
            choice = decision.choose(self.settings.acquisition, number)
            if choice is not None:
                return choice
        return None

    def _in_turn(self, chosen: Trial) -> Trial:
        """What is done of a decision: a precise run may be another's turn.

        The first is of the mixture that would be recommended. Every second one after it is of a
        law's best mixture, as long as none is known to be better.
        """
        if self.settings.acquisition == "paper" or not self._is_precise(chosen):
            return chosen
        assert self.best_K is not None
        count = sum(self._is_precise(self.space.trial(run.spec)) for run in self.runs)
        weights_K = None
        if count == 0:
            weights_K = self.best_K
        elif count % 2 == 1 and (not self._by_law or self._is_by_law(self.best_K)):
            of = self.settings
            weights_K = law_mixture(self.runs, self.space, of.objective, of.curve_at, self.best_K)
        if weights_K is None:
            return chosen
        trial = self.space.rounded(chosen._replace(weights_K=weights_K))
        if not np.isfinite(self._cost(trial)):
            return chosen
        if count:
            self._by_law.append(trial.weights_K)
        return trial

    def _is_by_law(self, weights_K: np.ndarray) -> bool:
        return any(np.abs(weights_K - w_K).max() < SAME for w_K in self._by_law)

    def _options(self) -> list[list[tuple[int, int]]]:
        """Sizes and steps to choose from, and others for when the budget allows none of them.

        Runs that are precise at the target take turns with cheaper ones, so that the former get
        their share; the last of the budget goes into them.
        """
        space, last = self.space, len(self.space.sizes) - 1
        paper = self.settings.acquisition == "paper"
        least = (PAPER_SHORTEST if paper else SHORTEST) * space.target_steps
        steps = [n for n in space.steps if n >= least] or [space.steps[-1]]
        every = [(size, n) for size in range(last + 1) for n in steps]
        if paper:
            return [every]
        precise = [
            (size, n) for size, n in every if size == last and n >= ANCHOR * space.target_steps
        ]
        others = [of for of in every if of not in precise]
        if not precise or not others:
            return [precise or others]
        cost = min(space.flops(*of) for of in precise)
        due = self._precise + cost <= SPLIT * (self.spent + cost) or self._precise == 0
        left = self.settings.budget - self.spent
        ending = cost <= left < cost + max(space.flops(*of) for of in others)
        return [precise, others] if due or ending else [others, precise]

    def _key(self, trial: Trial) -> tuple[int, tuple[float, ...]]:
        return trial.size, tuple(np.round(trial.weights_K, 7).tolist())

    def _cost(self, trial: Trial) -> float:
        """FLOPs of a trial now; infinite where it was tried, is shorter, or exceeds the budget."""
        begun = self._begun.get(self._key(trial), 0)
        if trial.steps <= begun:
            return np.inf
        cost = self.space.flops(trial.size, trial.steps - (begun if self.space.continues else 0))
        return cost if self.spent + cost <= self.settings.budget * (1 + 1e-9) else np.inf

    def _add(self, trial: Trial) -> bool:
        """Makes a trial a job, if the budget allows it."""
        cost = self._cost(trial)
        if not np.isfinite(cost):
            return False
        self._asked += 1
        self._begun[self._key(trial)] = trial.steps
        self.spent += cost
        self._precise += cost if self._is_precise(trial) else 0.0
        size = self.space.sizes[trial.size].name
        phase = "search" if self._decisions else "initial"
        label = f"{phase} {self._asked}: {size} x {trial.steps:,} steps"
        self.jobs.append(self.space.spec(trial, label))
        return True
