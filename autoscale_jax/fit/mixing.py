"""Data Mixing Laws: exponential in the weights, nested with power laws in tokens and model size."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import Points
from autoscale_jax.fit.parametric import ParametricLaw, Problem


@dataclasses.dataclass(frozen=True)
class DataMixing(ParametricLaw):
    """L_e = c_e + exp(k_e + t_e.w) n^-a_e s^-b_e; n tokens and s size in units of the smallest.

    theta = (c, k, log a, log b, t_1..t_K); an exponent without two levels in the data stays at its
    prior mean. At one budget and size it is the published exponential law. Weights sum to 1, so
    what is added to k can be taken off every t.
    """

    gauges = 1
    name: str = dataclasses.field(default="data mixing", compare=False)

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        total = x_K.sum()
        log_n = jnp.log(total / x_K.shape[0])
        power = jnp.exp(theta_P[2]) * log_n + jnp.exp(theta_P[3]) * jnp.log(size)
        return theta_P[0] + jnp.exp(theta_P[1] + theta_P[4:] @ x_K / total - power)

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        used = np.isfinite(points.sd_RxE)
        lowest_E = np.where(used, points.loss_RxE, np.inf).min(0)
        highest_E = np.where(used, points.loss_RxE, -np.inf).max(0)
        e, k = len(own_E), points.tokens_RxK.shape[1]
        low_ExP, high_ExP = np.full((e, 4 + k), -30.0), np.full((e, 4 + k), 30.0)
        low_ExP[:, 0], high_ExP[:, 0] = 0, 0.999 * lowest_E
        low_ExP[:, 2:4], high_ExP[:, 2:4] = -5, 1
        mean_ExP, sd_ExP = np.zeros((e, 4 + k)), np.full((e, 4 + k), np.inf)
        mean_ExP[:, 2:4], sd_ExP[:, 2:4] = np.log(0.2), 0.5
        sd_ExP[:, 4:] = 10.0
        if len(set(points.size_R)) == 1:  # the size plays no part
            low_ExP[:, 3] = high_ExP[:, 3] = mean_ExP[:, 3]
        starts = []
        for share in (0.3, 0.8):
            theta_ExP = mean_ExP.copy()
            theta_ExP[:, 0] = share * lowest_E
            theta_ExP[:, 1] = np.log(highest_E - share * lowest_E)
            starts.append(theta_ExP)
        pooled_P = (np.arange(4 + k) == 2) | (np.arange(4 + k) == 3)
        return Problem(np.stack(starts, 1), low_ExP, high_ExP, mean_ExP, sd_ExP, pooled_P)
