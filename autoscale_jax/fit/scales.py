"""Extrapolation from more than two scales: one line per domain, one scalar per scale."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.extrapolation import Extrapolation, solve
from autoscale_jax.fit.inputs import check_scales, finite
from autoscale_jax.fit.precision import float64, is_traced
from autoscale_jax.specs import BadInput

ALTERNATIONS = 200


@float64
def extrapolate_scales(
    n_SxK: Any,
    total: Any,
    *,
    log_sd_SxK: Any = None,
    n0: Any = 0.0,
    lower: Any = 0.0,
    upper: Any = 1.0,
) -> Extrapolation:
    """`extrapolate` from more than two scales (rows, ascending) by weighted least squares.

    log(n + n0) is a line in one scalar per scale; lines and scalars are fitted in turn (rank one),
    each log amount with weight 1/log_sd^2, equal weights by default. With two scales it is
    `extrapolate` itself.

    Raises:
      BadInput: as `extrapolate`, for any pair of neighbouring scales.
    """
    if not is_traced(n_SxK, total, log_sd_SxK, n0):
        if np.ndim(n_SxK) != 2 or len(n_SxK) < 2:
            raise BadInput(f"n_SxK has shape {np.shape(n_SxK)}: give two scales or more")
        for smaller, larger in zip(np.asarray(n_SxK)[:-1], np.asarray(n_SxK)[1:], strict=True):
            check_scales(smaller, larger, total, n0)
        if log_sd_SxK is not None:
            finite("log_sd_SxK", log_sd_SxK, "give sds of log tokens, above 0", above=0)
    n_SxK = jnp.asarray(n_SxK, dtype=float)
    sd = jnp.asarray(1.0 if log_sd_SxK is None else log_sd_SxK, dtype=float)
    g1_K, g2_K, sd_2 = _ends(n_SxK, n0, jnp.broadcast_to(sd, n_SxK.shape))
    log_sd = (0.0, 0.0) if log_sd_SxK is None else (sd_2[0], sd_2[1])
    n1_K, n2_K = jnp.maximum(g1_K - n0, 1e-9), jnp.maximum(g2_K - n0, 1e-9)
    return solve(n1_K, n2_K, total, n0, lower, upper, log_sd)


@jax.jit
def _ends(n_SxK: Any, n0: Any, sd_SxK: Any) -> tuple[Any, Any, Any]:
    """Two points on each fitted line that stand for all scales, and the lines' noise there."""
    log_SxK, weight_SxK = jnp.log(n_SxK + n0), 1 / sd_SxK**2
    s_S = jnp.log(n_SxK.sum(1))
    s_S = (s_S - s_S[0]) / (s_S[-1] - s_S[0])

    def alternate(s_S: Any, _: None) -> tuple[Any, None]:
        a_K, b_K = _lines(s_S, log_SxK, weight_SxK)
        s_S = (weight_SxK * b_K * (log_SxK - a_K)).sum(1) / (weight_SxK * b_K**2).sum(1)
        return (s_S - s_S[0]) / (s_S[-1] - s_S[0]), None

    s_S = jax.lax.scan(alternate, s_S, None, length=ALTERNATIONS)[0]
    a_K, b_K = _lines(s_S, log_SxK, weight_SxK)
    share_S = weight_SxK.mean(1)
    mean = (share_S * s_S).sum() / share_S.sum()
    spread = (share_S * (s_S - mean) ** 2).sum()
    leverage_2 = 1 / share_S.sum() + (jnp.array([0.0, 1.0]) - mean) ** 2 / spread
    return jnp.exp(a_K), jnp.exp(a_K + b_K), jnp.sqrt(leverage_2)


def _lines(s_S: Any, log_SxK: Any, weight_SxK: Any) -> tuple[Any, Any]:
    """Weighted least-squares intercepts and slopes of each domain's log amount over s."""
    total_K = weight_SxK.sum(0)
    mean_s_K = (weight_SxK * s_S[:, None]).sum(0) / total_K
    mean_log_K = (weight_SxK * log_SxK).sum(0) / total_K
    d_SxK = s_S[:, None] - mean_s_K
    b_K = (weight_SxK * d_SxK * (log_SxK - mean_log_K)).sum(0) / (weight_SxK * d_SxK**2).sum(0)
    return mean_log_K - b_K * mean_s_K, b_K
