"""Hyperband (Li et al. 2018): more steps at the target's size for the mixtures that lead."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from autoscale_jax.methods.mixtures import Sampler, draws
from autoscale_jax.methods.search import Plan, Search
from autoscale_jax.methods.space import Space
from autoscale_jax.specs import BadInput, Run


def rungs(space: Space, eta: int) -> tuple[int, ...]:
    """The target's steps and eta, eta^2 ... times fewer, rising: each the space's nearest.

    Raises `BadInput` for an eta below 2.
    """
    if eta < 2:
        raise BadInput(f"eta = {eta}: use a whole number from 2")
    count = 1 + math.floor(math.log(space.target_steps / space.steps[0], eta) + 1e-9)
    steps = {space.target_steps}
    for i in range(1, count):
        exact = space.target_steps / eta**i
        steps.add(min(space.steps, key=lambda s: abs(math.log(s / exact))))
    return tuple(sorted(steps))


def brackets(count: int, eta: int) -> list[list[tuple[int, int]]]:
    """One round of Hyperband on `count` rungs: by bracket, pairs (mixtures n_i, rung index).

    Algorithm 1: n = ceil(count eta^s / (s + 1)) for s = count - 1 ... 0, then n eta^-i of them.
    """
    round_of = []
    for s in range(count - 1, -1, -1):
        n = -(-count * eta**s // (s + 1))
        round_of.append([(n // eta**i, count - 1 - s + i) for i in range(s + 1)])
    return round_of


@dataclasses.dataclass(frozen=True)
class Hyperband(Search):
    """Rounds of brackets of successive halving until the budget is spent.

    `full_only` takes the incumbent from full trainings alone, as 2503.21023 runs it; without, the
    longest so far count, which recommends much earlier.
    """

    eta: int = 3
    sampler: Sampler = "dirichlet"
    full_only: bool = False

    def plan(self) -> Plan:
        steps = rungs(self.space, self.eta)
        drawn = draws(self.space, self.sampler, self.seed)
        while True:
            for bracket in brackets(len(steps), self.eta):
                left = [self.at_target(next(drawn)) for _ in range(bracket[0][0])]
                values: list[float] = []
                for n, rung in bracket:
                    if values:
                        left = [left[i] for i in np.argsort(values, kind="stable")[:n]]
                    values = yield [trial._replace(steps=steps[rung]) for trial in left]

    def counts(self, run: Run) -> bool:
        full = self.space.trial(run.spec).steps == self.space.target_steps
        return super().counts(run) and (full or not self.full_only)
