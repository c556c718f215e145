"""A question to a table of runs, checked, and the laws and samples that answer it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np

from autoscale_jax.fit.budgets import budgets_of
from autoscale_jax.fit.ensemble import Ensemble
from autoscale_jax.fit.inputs import finite, one_of, whole
from autoscale_jax.fit.objective import Objective, eval_weights_of
from autoscale_jax.fit.repetition import epoch_caps
from autoscale_jax.fit.selection import Selection, arrays_of, select
from autoscale_jax.fit.simplex import bounds_of
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, RunArrays

# Laws that are compared by default: the three of one form share their compiled programs.
CANDIDATES = (
    "effective data",
    "effective data, little transfer",
    "effective data, saturating",
    "additive power",
)
FAR = 1.5  # targets beyond this multiple of a table's one budget are extrapolation


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked question: runs, target, bounds (K,), unique tokens (K,) and objective."""

    arrays: RunArrays
    tokens: float
    lower_K: np.ndarray
    upper_K: np.ndarray
    unique_K: np.ndarray
    v_E: np.ndarray
    objective: Objective


def study_of(
    table: RunTable | RunArrays,
    tokens: float,
    *,
    objective: Objective = "mean_perplexity",
    eval_weights: Mapping[str, float] | None = None,
    lower: float | Mapping[str, float] | None = None,
    upper: float | Mapping[str, float] | None = None,
    unique: Mapping[str, float] | None = None,
    max_epochs: float = 4.0,
) -> Study:
    """Check a question. Caps are the stricter of `upper` and unique tokens times epochs.

    Raises:
      BadInput: bad numbers in the table, unknown names, bounds without a mixture, one scale only.
    """
    one_of("objective", objective, get_args(Objective))
    arrays = arrays_of(table)
    finite("tokens", tokens, "give the target's training tokens, above 0", above=0)
    k = len(arrays.domains)
    if k < 2:
        raise BadInput(f"domains: {k} named: a mixture needs two at least")
    floor_K = by_name(lower, arrays.domains, "lower", 0.0)
    cap_K = by_name(upper, arrays.domains, "upper", 1.0)
    unique_K = by_name(unique, arrays.domains, "unique", np.inf)
    if unique is not None:
        cap_K = np.minimum(cap_K, epoch_caps(unique_K, tokens, max_epochs))
        # What a run had to draw from is all there is, or less.
        pool_RxK = np.inf if arrays.unique_RxK is None else arrays.unique_RxK
        unique_RxK = np.broadcast_to(np.minimum(pool_RxK, unique_K), arrays.tokens_RxK.shape)
        arrays = dataclasses.replace(arrays, unique_RxK=unique_RxK)
    lower_K, upper_K = bounds_of(floor_K, cap_K, k, arrays.domains)
    largest = float(np.max(arrays.tokens_RxK.sum(1)))
    if len(budgets_of(np.asarray(arrays.tokens_RxK, float))) < 2 and tokens > FAR * largest:
        raise BadInput(
            f"tokens = {tokens:.4g}: the table has one scale only (runs up to {largest:.4g}); add "
            "runs at another budget, or ask for a target within it"
        )
    v_E = eval_weights_of(eval_weights, arrays.eval_domains)
    return Study(arrays, float(tokens), lower_K, upper_K, unique_K, v_E, objective)


def judge_of(
    study: Study, laws: tuple[str, ...], noise: float | None, samples: int, seed: int
) -> tuple[Selection, Ensemble]:
    """Selected laws and their samples, for a study. Raises `BadInput` for fewer than 2 samples."""
    whole("samples", samples, 2)
    judge = select(
        study.arrays,
        objective=study.objective,
        eval_weights=study.v_E,
        laws=laws or CANDIDATES,
        noise=noise,
        samples=samples,
        seed=seed,
    )
    members = tuple(found.laws_S for found in judge.fits.values())
    shares_M = np.array(list(judge.shares.values()))
    ensemble = Ensemble(members, shares_M, study.objective, study.v_E, study.unique_K)
    return judge, ensemble


def by_name(bound: Any, names: tuple[str, ...], field: str, default: float) -> np.ndarray:
    """(K,) values from one number, a mapping by name or None."""
    if not isinstance(bound, Mapping):
        bound = dict.fromkeys(names, default if bound is None else bound)
    for name, value in bound.items():
        if name not in names:
            raise BadInput(f"{field}[{name!r}]: no such domain; there are {', '.join(names)}")
        if not isinstance(value, int | float | np.number):
            raise BadInput(f"{field}[{name!r}] = {value!r}: give a number")
    return np.array([float(bound.get(name, default)) for name in names])
