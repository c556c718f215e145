"""The first runs of an MFMS-BO search, before its surrogate has a say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autoscale_jax.methods.candidates import random_mixtures
from autoscale_jax.methods.decision import Acquisition, inputs_of
from autoscale_jax.methods.space import Space, Trial

PROBES, MIDDLE = 5, 9  # mixtures besides the corners at the cheapest trial, and at a middling one
MIDDLE_COST = 0.0155  # of a training of the target
FIRST_LOOK = 0.1  # of the target's steps, at its size, in the design
PART = 0.15  # of the budget, at most, for what the design has besides its first corners
PAPER_INIT, PAPER_STEPS = 20, (100, 900)  # the paper's first runs, and how many steps they have


class Settings(NamedTuple):
    """What a search is asked with."""

    space: Space
    objective: Callable[[Mapping[str, float]], float]
    budget: float
    seed: int
    batch: int
    acquisition: Acquisition
    curve_at: tuple[float, ...]
    tolerance: float
    references: tuple[np.ndarray, ...] = ()


def first_trials(
    settings: Settings, corner_VxK: np.ndarray, rng: np.random.Generator
) -> list[list[Trial]]:
    """Batches of the design: corners and some mixtures at little cost; for the paper, random
    mixtures, sizes and steps."""
    space = settings.space
    if settings.acquisition == "paper":
        steps_R = rng.integers(*PAPER_STEPS, PAPER_INIT, endpoint=True)
        size_R = rng.integers(0, len(space.sizes), PAPER_INIT)
        steps_R = np.minimum(steps_R, space.target_steps)
        mixtures = random_mixtures(space, rng, PAPER_INIT)
        fidelities = zip(size_R.tolist(), steps_R.tolist(), strict=True)
        return [[Trial(w_K, *of) for w_K, of in zip(mixtures, fidelities, strict=True)]]
    middle = np.full((1, len(space.domains)), 1 / len(space.domains))
    known = different(settings.references, len(space.domains))
    others = np.concatenate([known, middle, random_mixtures(space, rng, PROBES - 1)])
    shuffled = rng.permutation(corner_VxK)[: MIDDLE - 4]
    looked_at = np.concatenate([known, shuffled])
    more = random_mixtures(space, rng, MIDDLE - len(shuffled))
    halfway = np.concatenate([looked_at, more])
    middling = _middling(space)
    first = [Trial(w_K, 0, space.steps[0]) for w_K in corner_VxK]
    second = [Trial(w_K, 0, space.steps[0]) for w_K in others]
    second += [Trial(w_K, *middling) for w_K in halfway]
    most = PART * settings.budget
    third = _first_look(space, looked_at)
    return [first, _affordable(space, second, most), _affordable(space, third, most)]


def different(mixtures: Sequence[np.ndarray], k: int) -> np.ndarray:
    """(Q, K) the different ones, in the order of the first of each."""
    found = {tuple(np.round(w_K, 7).tolist()): w_K for w_K in reversed(mixtures)}
    return np.array(list(found.values())[::-1]).reshape(-1, k)


def _first_look(space: Space, mixtures_QxK: np.ndarray) -> list[Trial]:
    """Mixtures at the target's own size: what small models say may be the opposite."""
    last = len(space.sizes) - 1
    if last == 0:
        return []
    wanted = FIRST_LOOK * space.target_steps
    steps = min(space.steps, key=lambda n: abs(np.log(n / wanted)))
    return [Trial(w_K, last, steps) for w_K in mixtures_QxK]


def _affordable(space: Space, trials: Sequence[Trial], most: float) -> list[Trial]:
    """The first of them, as many as a part of the design may cost."""
    costs = np.cumsum([space.flops(trial.size, trial.steps) for trial in trials])
    return list(trials[: int((costs <= most).sum())])


def _middling(space: Space) -> tuple[int, int]:
    """Nearest to the target of the sizes and steps that cost little."""
    most = MIDDLE_COST * space.flops(len(space.sizes) - 1, space.target_steps)
    options = [(n, steps) for n in range(len(space.sizes)) for steps in space.steps]
    cheap = [of for of in options if space.flops(*of) <= most] or [(0, space.steps[0])]
    x = inputs_of(space, [Trial(np.array(space.lower_K), *of) for of in cheap])[:, -2:]
    return cheap[int(np.argmax(np.maximum(x, 0).prod(1)))]
