"""Which run to do next: the one that lowers the proposal's expected regret most per FLOP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from autoscale_jax.fit.budgets import budgets_of
from autoscale_jax.fit.ddo import find_design
from autoscale_jax.fit.inputs import finite
from autoscale_jax.fit.noise import Noise
from autoscale_jax.fit.objective import Objective
from autoscale_jax.fit.study import Study, judge_of, study_of
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, RunArrays

MIXTURES = 60  # mixtures that the proposal may become, thinned from the samples' optima
OUTCOMES = 1000  # losses that a run may show


@dataclasses.dataclass(frozen=True)
class NextRun:
    """A run that could be done.

    `budget` is the tokens of the base run that it changes or repeats. `regret` is what it is
    expected to take off the proposal's expected regret (in the log objective), `flops` its cost.
    """

    label: str
    tokens: Mapping[str, float]
    budget: float
    regret: float
    flops: float

    @property
    def worth(self) -> float:
        """Expected fall of regret per FLOP."""
        return self.regret / self.flops


def next_run(
    table: RunTable | RunArrays,
    tokens: float,
    *,
    objective: Objective = "mean_perplexity",
    eval_weights: Mapping[str, float] | None = None,
    lower: float | Mapping[str, float] | None = None,
    upper: float | Mapping[str, float] | None = None,
    unique: Mapping[str, float] | None = None,
    max_epochs: float = 4.0,
    noise: float | None = None,
    factors: tuple[float, ...] = (3.0, 1 / 3),
    flops_per_token: float = 1.0,
    samples: int = 200,
    seed: int = 0,
) -> list[NextRun]:
    """Candidates (domain x factor x budget, and a replicate of each base), the best first.

    A candidate's value is the expected fall of the regret of the mixture one would choose once its
    losses are known (knowledge gradient), per FLOP. Those that take more than `max_epochs` times
    a domain's `unique` tokens are left out, so that there may be none.

    Args:
      flops_per_token: cost of a training token; 6 x parameters for a dense transformer.
      The rest as in `recommend`.

    Raises:
      BadInput: as `recommend`, and for factors that are not above 0.
    """
    for i, factor in enumerate(finite("factors", factors, "give numbers above 0", above=0)):
        if factor == 1:
            raise BadInput(f"factors[{i}] = 1: give numbers other than 1")
    finite("flops_per_token", flops_per_token, "give a number above 0", above=0)
    study = study_of(
        table, tokens, objective=objective, eval_weights=eval_weights, lower=lower, upper=upper,
        unique=unique, max_epochs=max_epochs,
    )  # fmt: skip
    judge, ensemble = judge_of(study, (), noise, samples, seed)
    optima_DxK = ensemble.sample_optima(study.tokens, study.lower_K, study.upper_K)
    best_K = ensemble.expected_optimum(study.tokens, study.lower_K, study.upper_K)
    thinned = optima_DxK[np.linspace(0, len(optima_DxK) - 1, MIXTURES).astype(int)]
    mixtures_MxK = np.vstack([best_K, thinned])
    value_MxD = np.log(ensemble.values(mixtures_MxK * study.tokens))
    found = []
    for run in _candidates(study, factors):
        if (run.tokens_K > max_epochs * run.unique_K).any():
            continue  # no such run: there is not enough data
        loss_DxE = ensemble.predictions(run.tokens_K, run.unique_K)
        fall = _fall(loss_DxE, judge.noise, value_MxD)
        named = dict(zip(study.arrays.domains, run.tokens_K.tolist(), strict=True))
        flops = float(run.tokens_K.sum() * flops_per_token)
        found.append(NextRun(run.label, named, run.budget, fall, flops))
    return sorted(found, key=lambda run: -run.worth)


class _Candidate(NamedTuple):
    """Tokens of a run, and the unique ones that it would draw on."""

    label: str
    tokens_K: np.ndarray
    unique_K: np.ndarray
    budget: float


def _candidates(study: Study, factors: tuple[float, ...]) -> list[_Candidate]:
    """A replicate of each budget's base, and its changes of one domain."""
    tokens_RxK = np.asarray(study.arrays.tokens_RxK, dtype=np.float64)
    pools_RxK = study.arrays.unique_RxK
    found = []
    for rows in budgets_of(tokens_RxK):
        try:
            base_K = find_design(tokens_RxK[rows], whole=False).base_tokens_K
        except BadInput:  # a free design: its mean mixture stands for a base
            base_K = tokens_RxK[rows].mean(0)
        total = float(base_K.sum())
        unique_K = study.unique_K if pools_RxK is None else pools_RxK[rows[0]]
        found.append(_Candidate(f"base at {total:,.0f} tokens", base_K, unique_K, total))
        for i, name in enumerate(study.arrays.domains):
            for factor in factors:
                changed_K = np.where(np.arange(len(base_K)) == i, base_K * factor, base_K)
                change = f"x{factor:.3g}" if factor > 1 else f"/{1 / factor:.3g}"
                label = f"{name} {change} at {total:,.0f} tokens"
                found.append(_Candidate(label, changed_K, unique_K, total))
    return found


def _fall(loss_DxE: np.ndarray, noise: Noise, value_MxD: np.ndarray) -> float:
    """Expected fall of the chosen mixture's value when a run's losses become known.

    loss_DxE: what the run would show under each sample. Values and the run's losses are taken as
    jointly normal over the samples, so that each mixture's value moves linearly with what the run
    shows (the correlated knowledge gradient, Frazier et al. 2009). Reweighting the samples instead
    degenerates when noise is small: each outcome then singles out one sample, whatever the run.
    """
    d, e = loss_DxE.shape
    seen_DxE = loss_DxE - loss_DxE.mean(0)
    mean_M = value_MxD.mean(1)
    shared = noise.correlation + (1 - noise.correlation) * np.eye(e)
    noise_ExE = shared * np.outer(noise.sd_E, noise.sd_E)
    outcome_ExE = seen_DxE.T @ seen_DxE / d + noise_ExE
    slope_MxE = np.linalg.solve(outcome_ExE, seen_DxE.T @ (value_MxD - mean_M[:, None]).T / d).T
    # The same standard normals for every candidate: their differences are not blurred by chance.
    draws_QxE = np.random.default_rng(0).standard_normal((OUTCOMES, e))
    draws_QxE = draws_QxE @ np.linalg.cholesky(outcome_ExE).T
    after_MxQ = mean_M[:, None] + slope_MxE @ draws_QxE.T
    # Every mixture's values average to its mean over the outcomes: take their chance error out.
    after_MxQ += mean_M[:, None] - after_MxQ.mean(1, keepdims=True)
    return float(max(mean_M.min() - after_MxQ.min(0).mean(), 0.0))
