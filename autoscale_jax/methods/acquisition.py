"""What a further run is worth: expected improvement, and the knowledge gradient of the target.

All of it runs inside jit on a `fit.gp_transfer.Surrogate`; values are of standardised objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.gp_transfer import Surrogate, kernel

NODES, SHARES = np.polynomial.hermite_e.hermegauss(15)
SHARES = SHARES / SHARES.sum()
CLIMB = 8  # steps of projected gradient, each half as long as the one before
FIRST_STEP = 0.1  # length of the first, in weights


def expected_improvement(mean_Q: Any, sd_Q: Any, best: Any) -> Any:
    """E[max(best - f, 0)] of f ~ N(mean, sd^2)."""
    gap_Q = (best - mean_Q) / sd_Q
    return sd_Q * (gap_Q * jax.scipy.stats.norm.cdf(gap_Q) + jax.scipy.stats.norm.pdf(gap_Q))


@jax.jit
def improvements(surrogate: Surrogate, x_QxD: Any, best: Any) -> tuple[Any, Any, Any]:
    """(Q,) posterior means and sds, and expected improvements below `best`."""
    mean_Q = surrogate.mean(x_QxD)
    sd_Q = jnp.sqrt(surrogate.variance(x_QxD, surrogate.halves(x_QxD)))
    return mean_Q, sd_Q, expected_improvement(mean_Q, sd_Q, best)


@jax.jit
def knowledge_gradient(surrogate: Surrogate, at_target_MxD: Any, x_CxD: Any) -> Any:
    """(C,) by how much observing at x lowers the expected least posterior mean at the target.

    The least is over M mixtures at the target, and the observed mixture itself, by quadrature over
    the outcome (Frazier et al. 2009; multi-fidelity as in Poloczek et al. 2017).
    """
    d = x_CxD.shape[1]
    own_CxD = x_CxD.at[:, d - 2 :].set(1.0)
    mean_M, half_RxM = surrogate.mean(at_target_MxD), surrogate.halves(at_target_MxD)
    mean_C, own_RxC = surrogate.mean(own_CxD), surrogate.halves(own_CxD)
    half_RxC = surrogate.halves(x_CxD)
    sd_C = jnp.sqrt(surrogate.variance(x_CxD, half_RxC) + surrogate.noise() + 1e-10)
    theta_P = surrogate.theta_P
    slope_CxM = kernel(theta_P, x_CxD, at_target_MxD) - half_RxC.T @ half_RxM
    pair = jax.vmap(lambda a_D, b_D: kernel(theta_P, a_D[None], b_D[None])[0, 0])
    slope_C = (pair(x_CxD, own_CxD) - (half_RxC * own_RxC).sum(0)) / sd_C
    slope_CxM = slope_CxM / sd_C[:, None]
    now_C = jnp.minimum(mean_M.min(), mean_C)
    least_CxN = (mean_M[:, None] + slope_CxM[:, :, None] * NODES).min(1)
    own_CxN = mean_C[:, None] + slope_C[:, None] * NODES
    after_C = jnp.minimum(least_CxN, own_CxN) @ SHARES
    return jnp.maximum(now_C - after_C, 0.0)


@jax.jit
def slopes(surrogate: Surrogate, at_target_MxD: Any, x_SxD: Any) -> tuple[Any, Any]:
    """(S,) knowledge gradients and their gradients with respect to the weights, (S, K)."""

    def total(weights_SxK: Any) -> tuple[Any, Any]:
        x = jnp.concatenate([weights_SxK, x_SxD[:, -2:]], 1)
        value_S = knowledge_gradient(surrogate, at_target_MxD, x)
        return value_S.sum(), value_S

    (_, value_S), slope_SxK = jax.value_and_grad(total, has_aux=True)(x_SxD[:, :-2])
    return value_S, jnp.where(jnp.isfinite(slope_SxK), slope_SxK, 0.0)


def climb(
    surrogate: Surrogate,
    at_target_MxD: np.ndarray,
    x_SxD: np.ndarray,
    project: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures of more knowledge gradient, from S starts by projected gradient; sizes and steps
    stay. Returns the best of each way, (S, D), and their values, (S,). `project` takes (S, K) to
    the nearest allowed mixtures."""
    at_SxD, best_SxD, best_S = x_SxD.copy(), x_SxD.copy(), np.full(len(x_SxD), -np.inf)
    for i in range(CLIMB + 1):
        value_S, slope_SxK = (np.asarray(v) for v in slopes(surrogate, at_target_MxD, at_SxD))
        better_S = value_S > best_S
        best_SxD[better_S], best_S[better_S] = at_SxD[better_S], value_S[better_S]
        norm_Sx1 = np.linalg.norm(slope_SxK, axis=1, keepdims=True) + 1e-30
        step_SxK = FIRST_STEP * 0.5**i * slope_SxK / norm_Sx1
        at_SxD = np.concatenate([project(at_SxD[:, :-2] + step_SxK), at_SxD[:, -2:]], 1)
    return best_SxD, best_S
