"""One decision of MFMS-BO: which mixture to train next, at which size, for how many steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np

from autoscale_jax.fit.gp_transfer import Surrogate, inputs, posterior
from autoscale_jax.fit.precision import scope
from autoscale_jax.methods.acquisition import climb, improvements, knowledge_gradient
from autoscale_jax.methods.candidates import mixtures_to_consider, projected
from autoscale_jax.methods.space import Space, Trial

Acquisition = Literal["value", "paper"]
BLOCK = 256  # rows are padded to a multiple of it
REFERENCES = 64  # mixtures at the target that the knowledge gradient compares
MIXTURES = 12  # of those considered, so many at all sizes and steps
STARTS = 8  # of their trials, so many are climbed from
OVERHEAD = 0.01  # what any run costs besides its steps, in trainings of the target
COOLING = 0.99  # the paper's: cost counts less with every decision


class Choice(NamedTuple):
    """A trial and what it costs; `gain`: expected improvement at the target by any mixture."""

    trial: Trial
    cost: float
    gain: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """The state in which a decision is taken.

    best_K: mixture that would be recommended now. tried_RxK: mixtures with runs. options: sizes and
    steps to choose from. cost: FLOPs of a trial now, infinite where it may not be asked for.
    """

    space: Space
    surrogate: Surrogate
    corner_VxK: np.ndarray
    tried_RxK: np.ndarray
    best_K: np.ndarray
    options: Sequence[tuple[int, int]]
    cost: Callable[[Trial], float]
    rng: np.random.Generator

    def choose(self, acquisition: Acquisition, number: int) -> Choice | None:
        """The trial of most value for its cost; None where none may be asked for."""
        with scope():
            return self._by_value() if acquisition == "value" else self._by_paper(number)

    def _considered(self) -> np.ndarray:
        """(Q, K) mixtures to choose from, the one that would be recommended first."""

        def mean(weights_QxK: np.ndarray) -> np.ndarray:
            x_QxD = at_target(weights_QxK)
            return np.asarray(_means(self.surrogate, blocks(x_QxD)))[: len(x_QxD)]

        found = mixtures_to_consider(self.space, self.rng, self.corner_VxK, self.tried_RxK, mean)
        return np.concatenate([self.best_K[None], found])

    def _by_value(self) -> Choice | None:
        """Knowledge gradient of the target over cost, climbed from the best trials."""
        weights_QxK = self._considered()
        count, x_QxD = len(weights_QxK), at_target(weights_QxK)
        best = float(_means(self.surrogate, x_QxD[:1])[0])
        found = improvements(self.surrogate, blocks(x_QxD), best)
        mean, sd, ei = (np.asarray(v)[:count] for v in found)
        hopeful = np.argsort(-ei, kind="stable")
        likely = np.argsort(mean, kind="stable")[: REFERENCES // 3]
        reference = _first([[0], likely, hopeful], REFERENCES)
        bold = [np.argsort(mean - width * sd, kind="stable")[:2] for width in (1, 3)]
        chosen = _first([[0], hopeful[: MIXTURES - 5], *bold, hopeful], MIXTURES)
        trials, costs, x_CxD = self._trials(weights_QxK[chosen])
        if not trials:
            return None
        at_target_MxD = x_QxD[reference]
        value_C = np.asarray(knowledge_gradient(self.surrogate, at_target_MxD, blocks(x_CxD)))
        value_C = value_C[: len(trials)] / (costs + self._overhead())
        top = np.argsort(-value_C, kind="stable")[:STARTS]
        starts = np.concatenate([top, np.repeat(top[:1], STARTS - len(top))])
        gain = float(ei.max() * self.surrogate.scale)
        climbed = self._climbed(at_target_MxD, x_CxD[starts], [trials[i] for i in starts])
        worth = [(value_C[top[0]], trials[top[0]], costs[top[0]])]
        worth += [(v / (cost + self._overhead()), trial, cost) for v, trial, cost in climbed]
        _, trial, cost = max(worth, key=lambda of: of[0])
        return Choice(trial, cost, gain)

    def _climbed(
        self, at_target_MxD: np.ndarray, x_SxD: np.ndarray, starts: Sequence[Trial]
    ) -> list[tuple[float, Trial, float]]:
        """Value, trial and cost of what is reached from the starts and may be asked for."""
        project = functools.partial(projected, self.space)
        x_SxD, value_S = climb(self.surrogate, at_target_MxD, x_SxD, project)
        found = []
        for x_D, value, start in zip(x_SxD, value_S, starts, strict=True):
            trial = self.space.rounded(start._replace(weights_K=x_D[:-2]))
            cost = self.cost(trial)
            if np.isfinite(cost):
                found.append((float(value), trial, cost))
        return found

    def _by_paper(self, number: int) -> Choice | None:
        """EI below the best observation of any fidelity, over cost^(.99^number) (Algorithm 2)."""
        weights_QxK = self._considered()
        trials, costs, x_CxD = self._trials(weights_QxK)
        if not trials:
            return None
        best = float(self.surrogate.y_R[self.surrogate.used_R > 0].min())
        ei_C = np.asarray(improvements(self.surrogate, blocks(x_CxD), best)[2])[: len(trials)]
        chosen = int(np.argmax(ei_C / costs ** (COOLING**number)))
        return Choice(trials[chosen], costs[chosen], float(ei_C.max() * self.surrogate.scale))

    def _trials(self, weights_QxK: np.ndarray) -> tuple[list[Trial], np.ndarray, np.ndarray]:
        """What may be asked for of mixtures at all options: trials, FLOPs and (C, D) inputs."""
        trials, costs = [], []
        for weights_K in weights_QxK:
            for size, steps in self.options:
                trial = self.space.rounded(Trial(weights_K, size, steps))
                cost = self.cost(trial)
                if np.isfinite(cost):
                    trials.append(trial)
                    costs.append(cost)
        return trials, np.array(costs), inputs_of(self.space, trials)

    def _overhead(self) -> float:
        return OVERHEAD * self.space.flops(len(self.space.sizes) - 1, self.space.target_steps)


def inputs_of(space: Space, trials: Sequence[Trial]) -> np.ndarray:
    """(R, K + 2) inputs of the surrogate."""
    target = (space.target.parameters, float(space.target_steps))
    parameters = [space.sizes[trial.size].parameters for trial in trials]
    weights_RxK = np.array([trial.weights_K for trial in trials]).reshape(-1, len(space.domains))
    return inputs(weights_RxK, parameters, [trial.steps for trial in trials], target)


def at_target(weights_QxK: np.ndarray) -> np.ndarray:
    """(Q, K + 2) inputs of full trainings at the target."""
    return np.concatenate([weights_QxK, np.ones((len(weights_QxK), 2))], 1)


def posterior_at_target(
    surrogate: Surrogate, weights_QxK: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) posterior means and sds of the objective at the target."""
    count = len(weights_QxK)
    with scope():
        mean_Q, sd_Q = posterior(surrogate, blocks(at_target(weights_QxK)))
        return np.asarray(mean_Q)[:count], np.asarray(sd_Q)[:count]


def blocks(x_QxD: np.ndarray) -> np.ndarray:
    """Padded with its first row to a multiple of BLOCK rows: few shapes are few programs."""
    return np.concatenate([x_QxD, np.repeat(x_QxD[:1], -len(x_QxD) % BLOCK, 0)])


def _first(parts: Sequence[Sequence[int] | np.ndarray], count: int) -> list[int]:
    """The first `count` different ones, in order; fewer only where there are fewer."""
    return list(dict.fromkeys(int(i) for part in parts for i in part))[:count]


@jax.jit
def _means(surrogate: Surrogate, x_QxD: jax.Array) -> jax.Array:
    return surrogate.mean(x_QxD)
