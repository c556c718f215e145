"""Does the predicted mixture really win? Trainings at the target, their gains and tokens saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special  # scipy.stats takes half a second to import

from autoscale_jax.specs import VERIFICATION_SEED, CurvePoint, Run, RunSpec, split_tokens

LEVEL = 0.90
TOKENS_SAVED = (
    "share of the target's tokens not needed to reach the other mixture's final objective, read "
    "off the mixture's own validation curve (the AutoScale paper's steps saved); where the "
    "learning rate decays it is still high there, so a run planned that short would do better"
)

Objective = Callable[[Mapping[str, float]], float]


class Stage(NamedTuple):
    """A part of training: its share of the tokens, and the weights of the domains in it."""

    share: float
    weights: Mapping[str, float]


# The weights of the domains, or those of the stages of a curriculum: shares sum to 1.
Mixture = Mapping[str, float] | tuple[Stage, ...]


def weights_of(mixture: Mixture) -> dict[str, float]:
    """The weights of the domains; of a curriculum those over all of its stages."""
    if isinstance(mixture, Mapping):
        return dict(mixture)
    names = dict.fromkeys(name for stage in mixture for name in stage.weights)
    return {name: sum(s.share * s.weights.get(name, 0.0) for s in mixture) for name in names}


def specs(
    mixtures: Mapping[str, Mixture], tokens: int, seeds: int, size: str = ""
) -> list[RunSpec]:
    """The trainings of a model size: every mixture with every seed, seed by seed so that pairs
    finish together."""
    asked = {name: _tokens(mixture, tokens) for name, mixture in mixtures.items()}
    return [
        RunSpec(
            summed,
            VERIFICATION_SEED + seed,
            f"target {name} seed {seed}",
            size,
            stages=stages,
        )
        for seed in range(seeds)
        for name, (summed, stages) in asked.items()
    ]


def _tokens(mixture: Mixture, total: int) -> tuple[dict[str, int], tuple[dict[str, int], ...]]:
    """Whole tokens by domain, and those of each stage of a curriculum."""
    if isinstance(mixture, Mapping):
        return split_tokens(mixture, total), ()
    lengths = split_tokens({str(i): stage.share for i, stage in enumerate(mixture)}, total)
    stages = tuple(
        split_tokens(stage.weights, n) for stage, n in zip(mixture, lengths.values(), strict=True)
    )
    names = dict.fromkeys(name for stage in stages for name in stage)
    return {name: sum(stage.get(name, 0) for stage in stages) for name in names}, stages


@dataclasses.dataclass(frozen=True)
class Gain:
    """Relative change of the objective against a reference mixture (negative: better).

    Paired by seed; the 90% interval is None with one seed.
    """

    relative: float
    low: float | None
    high: float | None
    pairs: int
    wins: int


def gains(objective_MxS: Mapping[str, Mapping[int, float]], mixture: str) -> dict[str, Gain]:
    """Gain of `mixture` over each other one, from objectives by mixture and seed.

    Mixture and seed effects on the log objective are additive in a two-way layout; what they
    leave over, pooled over all mixtures, is the noise of a paired difference (t-intervals).
    Seeds that any mixture lacks (a diverged run) are left out for all.
    """
    if mixture not in objective_MxS:
        return {}
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in objective_MxS.values())))
    if not seeds:
        return {}
    names = list(objective_MxS)
    log_MxS = np.log([[objective_MxS[name][seed] for seed in seeds] for name in names])
    residual_MxS = log_MxS - log_MxS.mean(0) - log_MxS.mean(1, keepdims=True) + log_MxS.mean()
    freedom = (len(names) - 1) * (len(seeds) - 1)
    half = math.nan
    if freedom:
        variance = float(np.sum(residual_MxS**2)) / freedom
        quantile = float(special.stdtrit(freedom, (1 + LEVEL) / 2))
        half = quantile * math.sqrt(2 * variance / len(seeds))
    result = {}
    for name, log_S in zip(names, log_MxS, strict=True):
        if name == mixture:
            continue
        change_S = log_MxS[names.index(mixture)] - log_S
        mean = float(change_S.mean())
        result[name] = Gain(
            relative=math.expm1(mean),
            low=math.expm1(mean - half) if freedom else None,
            high=math.expm1(mean + half) if freedom else None,
            pairs=len(seeds),
            wins=int(np.sum(change_S < 0)),
        )
    return result


def tokens_to_reach(curve: Sequence[CurvePoint], objective: Objective, value: float) -> float:
    """Tokens at which a validation curve first reaches `value`; infinite where it never does.

    Between two points of the curve, the objective is linear in log tokens.
    """
    before: tuple[float, float] | None = None
    for point in curve:
        now = objective(point.loss)
        if now <= value:
            if before is None:
                return float(point.tokens)
            log_n, previous = before
            share = (previous - value) / (previous - now)
            return math.exp(log_n + share * (math.log(point.tokens) - log_n))
        before = math.log(point.tokens), now
    return math.inf


def tokens_saved(
    runs: Sequence[Run], others: Sequence[Run], objective: Objective, *, log_shift: float = 0.0
) -> float | None:
    """Mean share of tokens saved by `runs` against `others`, paired by seed (see TOKENS_SAVED).

    `log_shift` is added to the log of the value to reach, which turns a gain's interval into one
    of tokens. None where a run never reaches the value: it saves nothing.
    """
    by_seed = {run.spec.seed: run for run in others}
    shares = []
    for run in runs:
        other = by_seed.get(run.spec.seed)
        if other is not None:
            value = objective(other.loss) * math.exp(log_shift)
            reached = tokens_to_reach(run.curve, objective, value)
            shares.append(1 - reached / sum(run.realised.values()))
    if not shares or not all(map(math.isfinite, shares)):
        return None
    return float(np.mean(shares))
