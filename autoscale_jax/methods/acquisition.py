"""What a further run is worth: expected improvement, and the knowledge gradient of the target.

All of it runs inside jit on a `fit.gp_transfer.Surrogate`; values are of standardised objectives.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.gp_transfer import Surrogate, kernel
from autoscale_jax.fit.simplex import project

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
    after_C = jnp.zeros_like(now_C)
    for node, share in zip(NODES, SHARES, strict=True):
        least_C = (mean_M + node * slope_CxM).min(1)
        after_C += share * jnp.minimum(least_C, mean_C + node * slope_C)
    return jnp.maximum(now_C - after_C, 0.0)


@jax.jit
def climb(
    surrogate: Surrogate, at_target_MxD: Any, x_SxD: Any, lower_K: Any, upper_K: Any
) -> tuple[Any, Any]:
    """Mixtures of more knowledge gradient, from S starts by projected gradient; sizes and steps
    stay. Returns the best of each way, (S, D), and their values, (S,)."""

    def value(weights_K: Any, fidelity_2: Any) -> Any:
        x_D = jnp.concatenate([weights_K, fidelity_2])
        return knowledge_gradient(surrogate, at_target_MxD, x_D[None])[0]

    def one(x_D: Any) -> tuple[Any, Any]:
        weights_K, fidelity_2 = x_D[:-2], x_D[-2:]

        def step(carry: tuple[Any, Any, Any], length: Any) -> tuple[Any, None]:
            at_K, best_K, best = carry
            slope_K = jax.grad(value)(at_K, fidelity_2)
            slope_K = jnp.where(jnp.isfinite(slope_K), slope_K, 0.0)
            to_K = at_K + length * slope_K / (jnp.linalg.norm(slope_K) + 1e-30)
            at_K = project(to_K, lower_K, upper_K)
            now = value(at_K, fidelity_2)
            better = now > best
            return (at_K, jnp.where(better, at_K, best_K), jnp.where(better, now, best)), None

        lengths = FIRST_STEP * 0.5 ** jnp.arange(CLIMB)
        start = (weights_K, weights_K, value(weights_K, fidelity_2))
        (_, best_K, best), _ = jax.lax.scan(step, start, lengths)
        return jnp.concatenate([best_K, fidelity_2]), best

    return jax.vmap(one)(x_SxD)
