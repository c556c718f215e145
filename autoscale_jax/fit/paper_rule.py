"""The paper's rule: DDO at each budget, then extrapolation of the optima to the target."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.budgets import budgets_of
from autoscale_jax.fit.ddo import DDOResult, ddo_optimum, find_design
from autoscale_jax.fit.extrapolation import Extrapolation, extrapolate
from autoscale_jax.fit.power import Offset
from autoscale_jax.fit.precision import float64
from autoscale_jax.fit.scales import extrapolate_scales
from autoscale_jax.fit.simplex import bounds_of
from autoscale_jax.specs import BadInput

# Share of a uniform weight that DDO leaves every domain: extrapolation divides by the optimum.
FLOOR = 0.1
SAME_SCALE = 0.01  # a target this near to a single budget needs no extrapolation


@dataclasses.dataclass(frozen=True)
class PaperRule:
    """AutoScale's answer at `total` tokens, with what led to it; of one budget at its own total,
    DDO's.

    `weights_SxK`: answers from resampled runs (rows without a root are left out). `keep_K`: the
    optimum at the largest budget.
    """

    weights_K: np.ndarray
    keep_K: np.ndarray
    shrunk_K: np.ndarray
    weights_SxK: np.ndarray
    budgets: tuple[DDOResult, ...]
    extrapolation: Extrapolation | None
    warnings: tuple[str, ...]


def paper_rule(
    tokens_RxK: np.ndarray,
    value_R: np.ndarray,
    total: float,
    *,
    lower: object = 0.0,
    upper: object = 1.0,
    offset: Offset = "zero",
    noise: float | None = None,
    samples: int = 0,
    seed: int = 0,
    names: tuple[str, ...] = (),
) -> PaperRule:
    """DDO (Algorithm 1) at every budget and Theorem 1 from the optima to `total` tokens.

    Args:
      tokens_RxK, value_R: DDO runs of two or more budgets and their objective.
      offset: "zero" is Algorithm 1 as printed; "free" fits Eq. 2's N0, which small noisy runs do
        not determine.
      The rest as in `ddo_optimum`; floors are raised to a tenth of the uniform weight in DDO.

    Raises:
      BadInput: one budget only and a target beyond it, or a budget whose runs are not DDO's.
    """
    k = tokens_RxK.shape[1]
    names = names or tuple(str(i) for i in range(k))
    lower_K, upper_K = bounds_of(lower, upper, k, names)
    groups = budgets_of(tokens_RxK)
    if len(groups) < 2:
        _refuse_extrapolation(tokens_RxK, total, names)
        best = ddo_optimum(
            tokens_RxK, value_R, lower=lower_K, upper=upper_K, offset=offset,
            noise=noise, samples=samples, seed=seed, names=names,
        )  # fmt: skip
        w_K = best.weights_K
        return PaperRule(w_K, w_K, w_K, best.weights_SxK, (best,), None, tuple(best.warnings))
    floor_K = np.minimum(np.maximum(lower_K, FLOOR / k), upper_K)
    budgets = tuple(
        ddo_optimum(
            tokens_RxK[rows], value_R[rows], lower=floor_K, upper=upper_K, offset=offset,
            noise=noise, samples=samples, seed=seed + i, names=names,
        )
        for i, rows in enumerate(groups)
    )  # fmt: skip
    n_BxK = np.stack([b.tokens_K for b in budgets])
    sd_BxK = np.ones_like(n_BxK)
    if all(len(b.weights_SxK) for b in budgets):
        sd_BxK = np.maximum([np.log(b.weights_SxK).std(0) for b in budgets], 1e-6)
    answer = _to(total, n_BxK, sd_BxK, lower_K, upper_K)
    weights_SxK = _draws(budgets, total, sd_BxK, lower_K, upper_K, answer.keep_K)
    warnings = [f"{b.total:.4g} tokens: {line}" for b in budgets for line in b.warnings]
    warnings += answer.explain(names)
    weights_K = answer.weights_K if bool(answer.ok) else answer.keep_K
    return PaperRule(
        weights_K, answer.keep_K, answer.shrunk_K, weights_SxK, budgets, answer, tuple(warnings)
    )


def _refuse_extrapolation(tokens_RxK: np.ndarray, total: float, names: tuple[str, ...]) -> None:
    """Raises `BadInput` when runs of one budget are asked for the optimum at another."""
    base = float(find_design(tokens_RxK, names).base_tokens_K.sum())
    if abs(total / base - 1) > SAME_SCALE:
        raise BadInput(
            f"one scale only (about {base:.4g} tokens): "
            "extrapolation needs DDO runs at a second budget"
        )


def _draws(
    budgets: tuple[DDOResult, ...], total: float, sd_BxK: np.ndarray, lower_K: np.ndarray,
    upper_K: np.ndarray, keep_K: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """(S, K) weights at `total` from the resampled optima that have a root; else `keep_K`."""
    if not all(len(b.weights_SxK) for b in budgets):
        return np.zeros((0, len(keep_K)))
    n_SxBxK = np.stack([b.weights_SxK * b.total for b in budgets], 1)
    found_SxK = _weights(n_SxBxK, total, sd_BxK, lower_K, upper_K)
    rooted_S = np.isfinite(found_SxK).all(1)
    return found_SxK[rooted_S] if rooted_S.any() else keep_K[None]


@float64
def _weights(n_SxBxK: Any, total: Any, *rest: Any) -> Any:
    """(S, K) weights from each draw of the budgets' optima."""
    return _weights_jit(*(jnp.asarray(v, dtype=float) for v in (n_SxBxK, total, *rest)))


@jax.jit
def _weights_jit(n_SxBxK: Any, total: Any, *rest: Any) -> Any:
    return jax.vmap(lambda n_BxK: _to(total, n_BxK, *rest).weights_K)(n_SxBxK)


def _to(total: Any, n_BxK: Any, sd_BxK: Any, lower_K: Any, upper_K: Any) -> Extrapolation:
    if len(n_BxK) == 2:
        sds = (sd_BxK[0], sd_BxK[1])
        return extrapolate(n_BxK[0], n_BxK[1], total, lower=lower_K, upper=upper_K, log_sd=sds)
    return extrapolate_scales(n_BxK, total, log_sd_SxK=sd_BxK, lower=lower_K, upper=upper_K)
