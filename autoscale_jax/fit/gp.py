"""Gaussian process on log(w + eps) with log token and log size axes (the surrogate of MFMS-BO)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from autoscale_jax.fit.law import Points
from autoscale_jax.fit.precision import scope
from autoscale_jax.specs import BadInput

EPS = 0.01  # weights are log(w + EPS): a domain's first per cent matters most
JITTER = 1e-8
MAX_FIT = 160  # runs from which the kernel is learnt; prediction uses all
FIRST, LATER = 50, 15  # steps for the first evaluation domain, and from its kernel for the next


class GaussianProcess(NamedTuple):
    """A fitted process for each of E evaluation domains over R runs; a law itself.

    Features: log(w + EPS) by domain, log tokens, log size, standardised. Kernel: amplitude times
    Matern-5/2 with a length for each feature, plus a linear trend in all features.
    """

    feature_RxD: Any
    centre_D: Any
    spread_D: Any
    log_length_ExD: Any
    log_amplitude_E: Any
    log_trend_E: Any
    mean_E: Any
    deviation_E: Any
    alpha_ExR: Any
    scale_K: Any
    size: Any

    def predict(self, tokens: Any) -> Any:
        """Posterior mean losses (..., E) at tokens (..., K)."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        sizes = jnp.broadcast_to(self.size, flat.shape[:1])
        new_QxD = (features(flat, sizes) - self.centre_D) / self.spread_D
        parts = (self.log_length_ExD, self.log_amplitude_E, self.log_trend_E)
        k_ExQxR = jax.vmap(_kernel, in_axes=(0, 0, 0, None, None))(
            *parts, new_QxD, self.feature_RxD
        )
        z_QxE = jnp.einsum("eqr,er->qe", k_ExQxR, self.alpha_ExR)
        loss = self.mean_E + self.deviation_E * z_QxE
        return loss.reshape(*tokens.shape[:-1], -1)


def features(tokens_RxK: Any, size_R: Any) -> Any:
    """(R, K + 2) log(w + EPS), log total tokens, log size."""
    total_R = tokens_RxK.sum(1, keepdims=True)
    return jnp.concatenate(
        [
            jnp.log(tokens_RxK / total_R + EPS),
            jnp.log(total_R),
            jnp.log(jnp.asarray(size_R, dtype=float))[:, None],
        ],
        1,
    )


def _kernel(log_length_D: Any, log_amplitude: Any, log_trend: Any, a_QxD: Any, b_RxD: Any) -> Any:
    a_QxD, b_RxD = a_QxD / jnp.exp(log_length_D), b_RxD / jnp.exp(log_length_D)
    inner = a_QxD @ b_RxD.T
    square = (a_QxD**2).sum(1)[:, None] + (b_RxD**2).sum(1) - 2 * inner
    d = jnp.sqrt(5 * jnp.maximum(square, 0) + 1e-12)
    return jnp.exp(log_amplitude) * (1 + d + d * d / 3) * jnp.exp(-d) + jnp.exp(log_trend) * inner


def _negative_log_posterior(theta_P: Any, x_RxD: Any, y_R: Any, sd_R: Any) -> Any:
    """-log p(y, theta); theta = (log lengths, log amplitude, log trend, log extra noise)."""
    d = x_RxD.shape[1]
    k = _kernel(theta_P[:d], theta_P[d], theta_P[d + 1], x_RxD, x_RxD)
    k = k + jnp.diag(sd_R**2 + jnp.exp(2 * theta_P[d + 2]) + JITTER)
    chol = jnp.linalg.cholesky(k)
    half = jax.scipy.linalg.solve_triangular(chol, y_R, lower=True)
    # Log-normal priors: lengths of a few standard deviations, a trend of a tenth of the whole.
    centre_P = jnp.concatenate([jnp.full(d, np.log(4.0)), jnp.array([0.0, -2.0, -4.0])])
    width_P = jnp.concatenate([jnp.full(d, 1.0), jnp.array([1.5, 1.5, 1.0])])
    prior = 0.5 * (((theta_P - centre_P) / width_P) ** 2).sum()
    return 0.5 * half @ half + jnp.log(jnp.diag(chol)).sum() + prior


_objective = jax.jit(jax.value_and_grad(_negative_log_posterior))


@functools.partial(jax.jit)
def _solve(theta_P: Any, x_RxD: Any, y_R: Any, sd_R: Any) -> Any:
    d = x_RxD.shape[1]
    k = _kernel(theta_P[:d], theta_P[d], theta_P[d + 1], x_RxD, x_RxD)
    k = k + jnp.diag(sd_R**2 + jnp.exp(2 * theta_P[d + 2]) + JITTER)
    return jax.scipy.linalg.solve(k, y_R, assume_a="pos")


def fit_gp(points: Points, *, seed: int = 0) -> GaussianProcess:
    """MAP fit of one process for each evaluation domain; y standardised, noise from `points`.

    Rows whose sd is inf are left out.

    Raises:
      BadInput: fewer than 4 runs, or values that are not finite.
    """
    used = np.isfinite(points.sd_RxE).all(1)
    if used.sum() < 4 or not np.isfinite(points.loss_RxE[used]).all():
        raise BadInput(f"{used.sum()} usable runs: the Gaussian process needs 4 with finite losses")
    with scope():
        raw_RxD = np.asarray(features(jnp.asarray(points.tokens_RxK[used]), points.size_R[used]))
        centre_D = raw_RxD.mean(0)
        spread_D = raw_RxD.std(0)
        spread_D = np.where(spread_D > 1e-9, spread_D, 1.0)
        x_RxD = (raw_RxD - centre_D) / spread_D
        loss_RxE, sd_RxE = points.loss_RxE[used], points.sd_RxE[used]
        mean_E, deviation_E = loss_RxE.mean(0), np.maximum(loss_RxE.std(0), 1e-9)
        rng = np.random.default_rng(seed)
        subset = rng.permutation(len(x_RxD))[:MAX_FIT]
        d = x_RxD.shape[1]
        start_P = np.concatenate([np.full(d, np.log(4.0)), [0.0, -2.0, -4.0]])
        thetas, alphas = [], []
        for e in range(loss_RxE.shape[1]):
            y_R = (loss_RxE[:, e] - mean_E[e]) / deviation_E[e]
            sd_R = sd_RxE[:, e] / deviation_E[e]
            args = [jnp.asarray(v[subset]) for v in (x_RxD, y_R, sd_R)]

            def both(theta: np.ndarray, args: list[Any] = args) -> tuple[float, np.ndarray]:
                value, gradient = _objective(jnp.asarray(theta), *args)
                return float(value), np.asarray(gradient)

            found = minimize(
                both, start_P, jac=True, method="L-BFGS-B", bounds=[(-8, 8)] * len(start_P),
                options={"maxiter": FIRST if e == 0 else LATER},
            )  # fmt: skip
            start_P = found.x  # the next domain's kernel is much like this one's
            thetas.append(found.x)
            alphas.append(np.asarray(_solve(found.x, x_RxD, y_R, sd_R)))
    theta_ExP = np.stack(thetas)
    return GaussianProcess(
        x_RxD, centre_D, spread_D, theta_ExP[:, :d], theta_ExP[:, d], theta_ExP[:, d + 1],
        mean_E, deviation_E, np.stack(alphas), np.full(points.tokens_RxK.shape[1], points.scale),
        1.0,
    )  # fmt: skip
