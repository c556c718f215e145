"""Functions drawn from a Gaussian process's posterior; each one is a law.

Pathwise conditioning (Matheron's rule; Wilson et al. 2020): a function of the prior, made of random
Fourier features, plus the correction that moves it to the noisy runs. Unlike draws at fixed points
it can be evaluated and differentiated anywhere, which the search for its optimum needs.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.gp import GaussianProcess, Kernel, factor
from autoscale_jax.fit.precision import scope

FEATURES = 128  # drawn afresh for each function: covariances over functions are then exact


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["process", "wave_FxD", "phase_F", "weight_ExF", "slope_ExD", "alpha_ExR"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class ProcessSamples:
    """S drawn functions: all but `process` have a leading axis of S; `sample` picks one.

    Prior: sqrt(amplitude) sum_f weight_f sqrt(2/F) cos(wave_f.x + phase_f) + sqrt(trend) slope.x.
    """

    process: GaussianProcess
    wave_FxD: Any
    phase_F: Any
    weight_ExF: Any
    slope_ExD: Any
    alpha_ExR: Any

    def __len__(self) -> int:
        return len(self.weight_ExF)

    def sample(self, i: Any) -> ProcessSamples:
        """The i-th function."""
        names = ("wave_FxD", "phase_F", "weight_ExF", "slope_ExD", "alpha_ExR")
        return dataclasses.replace(self, **{name: getattr(self, name)[i] for name in names})

    def predict(self, tokens: Any) -> Any:
        """Losses (..., E) of one function at tokens (..., K)."""
        process = self.process
        flat = tokens.reshape(-1, tokens.shape[-1])
        new_QxD = process.standardised(flat, process.size)

        def one(kernel: Kernel, weight_F: Any, slope_D: Any, alpha_R: Any) -> Any:
            prior_Q = _prior(kernel, new_QxD, self.wave_FxD, self.phase_F) @ jnp.concatenate(
                [weight_F, slope_D]
            )
            return prior_Q + kernel(new_QxD, process.feature_RxD) @ alpha_R

        z_QxE = jax.vmap(one, out_axes=1)(
            process.kernel_E, self.weight_ExF, self.slope_ExD, self.alpha_ExR
        )
        return process.losses(z_QxE).reshape(*tokens.shape[:-1], -1)


def _prior(kernel: Kernel, x_QxD: Any, wave_FxD: Any, phase_F: Any) -> Any:
    """(Q, F + D) prior features: standard normal weights on them draw from the kernel's prior."""
    x_QxD = x_QxD / jnp.exp(kernel.log_length_D)
    wave_QxF = jnp.cos(x_QxD @ wave_FxD.T + phase_F) * np.sqrt(2 / phase_F.shape[0])
    return jnp.concatenate(
        [jnp.exp(kernel.log_amplitude / 2) * wave_QxF, jnp.exp(kernel.log_trend / 2) * x_QxD], 1
    )


def draw(
    process: GaussianProcess, samples: int, *, correlation: float = 0.0, seed: int = 0
) -> ProcessSamples:
    """S functions from the posterior; a run's noise has `correlation` between domains."""
    rng = np.random.default_rng(seed)
    (r, d), e, n = process.feature_RxD.shape, len(process.mean_E), samples
    # A Matern-5/2 kernel is the Fourier transform of a t distribution with 5 degrees of freedom.
    waves = rng.standard_normal((n, FEATURES, d)) / np.sqrt(rng.chisquare(5, (n, FEATURES, 1)) / 5)
    phases = rng.uniform(0, 2 * np.pi, (n, FEATURES))
    weights, slopes = rng.standard_normal((n, e, FEATURES)), rng.standard_normal((n, e, d))
    common = rng.standard_normal((n, r, 1)) * np.sqrt(correlation)
    own = rng.standard_normal((n, r, e)) * np.sqrt(1 - correlation)
    noise_SxRxE = (common + own) * np.sqrt(process.variance_RxE)
    with scope():
        process_64 = jax.tree.map(jnp.asarray, process)
        prior = [jnp.asarray(v) for v in (waves, phases, weights, slopes)]
        alphas = np.asarray(_correct(process_64, *prior, jnp.asarray(noise_SxRxE)))
    return ProcessSamples(process, waves, phases, weights, slopes, alphas)


@jax.jit
def _correct(
    process: GaussianProcess, waves_SxFxD: Any, phases_SxF: Any, weights_SxExF: Any,
    slopes_SxExD: Any, noise_SxRxE: Any,
) -> Any:  # fmt: skip
    """(S, E, R) kernel weights that move each prior function to the noisy runs."""
    x_RxD = process.feature_RxD
    weights = jnp.concatenate([weights_SxExF, slopes_SxExD], 2).transpose(1, 0, 2)

    def one(kernel: Kernel, variance_R: Any, y_R: Any, weights_SxF: Any, noise_SxR: Any) -> Any:
        prior_SxR = jax.vmap(lambda w_F, *wave: _prior(kernel, x_RxD, *wave) @ w_F)(
            weights_SxF, waves_SxFxD, phases_SxF
        )
        chol = factor(kernel, x_RxD, variance_R, process.used_R)
        miss_SxR = (y_R - prior_SxR - noise_SxR) * process.used_R
        return jax.scipy.linalg.cho_solve((chol, True), miss_SxR.T).T

    alphas = jax.vmap(one, in_axes=(0, 1, 1, 0, 2))(
        process.kernel_E, process.variance_RxE, process.target_RxE, weights, noise_SxRxE
    )
    return alphas.transpose(1, 0, 2)
