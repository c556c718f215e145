"""Gaussian process on log(w + eps) with log token and log size axes (the surrogate of MFMS-BO)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import Points, check_points
from autoscale_jax.fit.marginal import maximum_a_posteriori, negative_log_marginal
from autoscale_jax.fit.precision import scope

EPS = 0.01  # weights are log(w + EPS): a domain's first per cent matters most
JITTER = 1e-8  # of the amplitude: runs of the same mixture keep the kernel invertible
MAX_FIT = 160  # runs from which the kernel is learnt; prediction uses all
STEPS = 100  # of the search from each start
BOUND = 8.0  # of every logarithm


class Kernel(NamedTuple):
    """Amplitude times Matern-5/2 with a length for each feature, plus a linear trend in all."""

    log_length_D: Any
    log_amplitude: Any
    log_trend: Any

    def __call__(self, a_QxD: Any, b_RxD: Any) -> Any:
        """(Q, R) covariances."""
        a_QxD, b_RxD = a_QxD / jnp.exp(self.log_length_D), b_RxD / jnp.exp(self.log_length_D)
        inner = a_QxD @ b_RxD.T
        square = (a_QxD**2).sum(1)[:, None] + (b_RxD**2).sum(1) - 2 * inner
        d = jnp.sqrt(5 * jnp.maximum(square, 0) + 1e-12)
        matern = (1 + d + d * d / 3) * jnp.exp(-d)
        return jnp.exp(self.log_amplitude) * matern + jnp.exp(self.log_trend) * inner


class GaussianProcess(NamedTuple):
    """A fitted process for each of E evaluation domains over R runs; a law itself.

    Features: log(w + EPS) by domain, log tokens, log size, standardised (`feature_RxD`). Losses are
    standardised to `target_RxE`; `variance_RxE` is their noise (runs left out: `used_R` is 0).
    """

    feature_RxD: Any
    used_R: Any
    centre_D: Any
    spread_D: Any
    kernel_E: Kernel
    variance_RxE: Any
    target_RxE: Any
    mean_E: Any
    deviation_E: Any
    alpha_ExR: Any
    ok_E: Any  # the search for the kernel converged
    scale_K: Any
    size: Any

    def predict(self, tokens: Any) -> Any:
        """Posterior mean losses (..., E) at tokens (..., K) of a model of size `self.size`."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        new_QxD = self.standardised(flat, self.size)
        z_QxE = jax.vmap(
            lambda kernel, alpha_R: kernel(new_QxD, self.feature_RxD) @ alpha_R, out_axes=1
        )(self.kernel_E, self.alpha_ExR)
        return self.losses(z_QxE).reshape(*tokens.shape[:-1], -1)

    def posterior(self, tokens_QxK: Any, size: Any = None) -> tuple[Any, Any]:
        """Mean (Q, E) and joint covariance (E, Q, Q) of the noise-free losses, nats.

        size: model size, one number or (Q,); by default `self.size`.
        """
        new_QxD = self.standardised(tokens_QxK, self.size if size is None else size)

        def one(kernel: Kernel, variance_R: Any, alpha_R: Any) -> tuple[Any, Any]:
            cross_QxR = kernel(new_QxD, self.feature_RxD) * self.used_R
            chol = factor(kernel, self.feature_RxD, variance_R, self.used_R)
            half_RxQ = jax.scipy.linalg.solve_triangular(chol, cross_QxR.T, lower=True)
            return cross_QxR @ alpha_R, kernel(new_QxD, new_QxD) - half_RxQ.T @ half_RxQ

        z_ExQ, cov_ExQxQ = jax.vmap(one, in_axes=(0, 1, 0))(
            self.kernel_E, self.variance_RxE, self.alpha_ExR
        )
        scale_E = self.deviation_E
        return self.losses(z_ExQ.T), cov_ExQxQ * scale_E[:, None, None] ** 2

    def standardised(self, tokens_QxK: Any, size: Any) -> Any:
        """(Q, D) features of new runs."""
        sizes = jnp.broadcast_to(size, tokens_QxK.shape[:1])
        return (features(tokens_QxK, sizes) - self.centre_D) / self.spread_D

    def losses(self, z: Any) -> Any:
        """Standardised losses (..., E) in nats."""
        return self.mean_E + self.deviation_E * z


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


def noisy(kernel: Kernel, x_RxD: Any, variance_R: Any, used_R: Any) -> Any:
    """(R, R) covariance of noisy runs; runs left out are on their own."""
    k = kernel(x_RxD, x_RxD) * used_R[:, None] * used_R
    jitter = JITTER * (1 + jnp.exp(kernel.log_amplitude))
    return k + jnp.diag(jnp.where(used_R > 0, variance_R + jitter, 1.0))


def factor(kernel: Kernel, x_RxD: Any, variance_R: Any, used_R: Any) -> Any:
    """Its Cholesky factor."""
    return jnp.linalg.cholesky(noisy(kernel, x_RxD, variance_R, used_R))


def _split(theta_P: Any, sd_R: Any) -> tuple[Kernel, Any]:
    """Kernel and noise variance of theta = (log lengths, log amplitude, log trend, log noise)."""
    d = theta_P.shape[0] - 3
    kernel = Kernel(theta_P[:d], theta_P[d], theta_P[d + 1])
    return kernel, sd_R**2 + jnp.exp(2 * theta_P[d + 2])


def _negative_log_posterior(theta_P: Any, x_RxD: Any, y_R: Any, sd_R: Any, used_R: Any) -> Any:
    """-log p(y, theta)."""
    kernel, variance_R = _split(theta_P, sd_R)
    centre_P, width_P = _prior(x_RxD.shape[1])
    prior = 0.5 * (((theta_P - centre_P) / width_P) ** 2).sum()
    return negative_log_marginal(noisy(kernel, x_RxD, variance_R, used_R), y_R * used_R) + prior


def _prior(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-normal priors: lengths of a few standard deviations, a trend of a tenth of the whole."""
    centre_P = np.concatenate([np.full(d, np.log(4.0)), [0.0, -2.0, -4.0]])
    return centre_P, np.concatenate([np.ones(d), [1.5, 1.5, 1.0]])


_objective = jax.jit(jax.value_and_grad(_negative_log_posterior))


@jax.jit
def _solve(theta_P: Any, x_RxD: Any, y_R: Any, sd_R: Any, used_R: Any) -> tuple[Any, Any]:
    """alpha = (K + noise)^-1 y, and the noise variances."""
    kernel, variance_R = _split(theta_P, sd_R)
    chol = factor(kernel, x_RxD, variance_R, used_R)
    return jax.scipy.linalg.cho_solve((chol, True), y_R * used_R), variance_R


def _learn(start_P: np.ndarray, *data: Any) -> tuple[np.ndarray, bool]:
    """MAP kernel parameters from `start_P` and from lengths a fifth of the prior's."""
    d = len(start_P) - 3
    short_P = _prior(d)[0] - np.where(np.arange(d + 3) < d, np.log(5.0), 0.0)
    edge_P = np.full(len(start_P), BOUND)
    value_and_grad = lambda theta_P: _objective(jnp.asarray(theta_P), *data)  # noqa: E731
    return maximum_a_posteriori(value_and_grad, (start_P, short_P), -edge_P, edge_P, STEPS)


def fit_gp(points: Points, *, seed: int = 0) -> GaussianProcess:
    """MAP fit of one process for each evaluation domain; y standardised, noise from `points`.

    Rows whose sd is inf are left out. Runs may repeat each other.

    Raises:
      BadInput: fewer than 4 runs, or values that are not finite.
    """
    used = np.isfinite(points.sd_RxE).all(1)
    sd_RxE = np.where(used[:, None], points.sd_RxE, np.inf)
    check_points(points._replace(sd_RxE=sd_RxE), "gaussian process")
    used_R = used.astype(float)
    mean_E = points.loss_RxE[used].mean(0)
    deviation_E = np.maximum(points.loss_RxE[used].std(0), 1e-9)
    target_RxE = np.where(used[:, None], (points.loss_RxE - mean_E) / deviation_E, 0.0)
    sd_RxE = np.where(used[:, None], points.sd_RxE / deviation_E, 1.0)
    order = np.random.default_rng(seed).permutation(len(used))
    subset = order[np.argsort(~used[order], kind="stable")][:MAX_FIT]
    with scope():
        raw_RxD = np.asarray(features(jnp.asarray(points.tokens_RxK), points.size_R))
        centre_D, spread_D = raw_RxD[used].mean(0), raw_RxD[used].std(0)
        spread_D = np.where(spread_D > 1e-9, spread_D, 1.0)
        x_RxD = (raw_RxD - centre_D) / spread_D
        theta_P = _prior(x_RxD.shape[1])[0]
        thetas, alphas, variances, ok = [], [], [], []
        for y_R, sd_R in zip(target_RxE.T, sd_RxE.T, strict=True):
            few = [jnp.asarray(v[subset]) for v in (x_RxD, y_R, sd_R, used_R)]
            theta_P, converged = _learn(theta_P, *few)  # each starts at the one before it
            alpha_R, variance_R = _solve(theta_P, x_RxD, y_R, sd_R, used_R)
            thetas.append(theta_P)
            alphas.append(np.asarray(alpha_R))
            variances.append(np.asarray(variance_R))
            ok.append(converged)
    theta_ExP, d = np.stack(thetas), x_RxD.shape[1]
    return GaussianProcess(
        x_RxD, used_R, centre_D, spread_D,
        Kernel(theta_ExP[:, :d], theta_ExP[:, d], theta_ExP[:, d + 1]),
        np.stack(variances, 1), target_RxE, mean_E, deviation_E, np.stack(alphas),
        np.array(ok), np.full(points.tokens_RxK.shape[1], points.scale), 1.0,
    )  # fmt: skip
