"""Additive laws: each training domain lowers an evaluation domain's loss by a term of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import Points
from autoscale_jax.fit.parametric import ParametricLaw, Problem


def _start(points: Points, own_E: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest loss and range of losses of each evaluation domain, and the (E, K) mask of own."""
    used = np.isfinite(points.sd_RxE)
    lowest_E = np.where(used, points.loss_RxE, np.inf).min(0)
    highest_E = np.where(used, points.loss_RxE, -np.inf).max(0)
    own_ExK = np.arange(points.tokens_RxK.shape[1]) == own_E[:, None]
    return lowest_E, highest_E - lowest_E + 0.05, own_ExK


@dataclasses.dataclass(frozen=True)
class AdditivePower(ParametricLaw):
    """L_e = E_e + sum_i c_ei (x_i + k_e)^-g_ei, c >= 0: Eq. 2 with amplitudes, all losses at once.

    theta = (E, log k, c_1..c_K, log g_1..g_K). Evaluation domains share each training domain's
    exponent but for a ridged rest. k is bounded away from 0, where the law has a pole.
    """

    name: str = dataclasses.field(default="additive power", compare=False)

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        c_K, log_g_K = jnp.split(theta_P[2:], 2)
        return theta_P[0] + c_K @ jnp.exp(-jnp.exp(log_g_K) * jnp.log(x_K + jnp.exp(theta_P[1])))

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        lowest_E, range_E, own_ExK = _start(points, own_E)
        e, k = own_ExK.shape
        c, g = slice(2, 2 + k), slice(2 + k, 2 + 2 * k)
        low_ExP, high_ExP = np.zeros((e, 2 + 2 * k)), np.zeros((e, 2 + 2 * k))
        low_ExP[:, 1], high_ExP[:, 1] = -4, 3
        low_ExP[:, g], high_ExP[:, g] = -4, 1
        high_ExP[:, 0], high_ExP[:, c] = 0.999 * lowest_E, 30.0
        mean_ExP, sd_ExP = np.zeros((e, 2 + 2 * k)), np.full((e, 2 + 2 * k), np.inf)
        mean_ExP[:, 1], sd_ExP[:, 1] = np.log(0.3), 1.0
        mean_ExP[:, g], sd_ExP[:, g] = np.log(0.3), 0.3
        sd_ExP[:, c] = np.where(own_ExK, np.inf, range_E[:, None])
        starts = []
        for share, exponent in ((0.3, 0.2), (0.6, 0.5)):
            theta_ExP = mean_ExP.copy()
            theta_ExP[:, 0], theta_ExP[:, g] = share * lowest_E, np.log(exponent)
            rest_E = (1 - share) * lowest_E
            theta_ExP[:, c] = np.where(own_ExK, rest_E[:, None], 0.1 * range_E[:, None])
            starts.append(theta_ExP)
        pooled_P = np.arange(2 + 2 * k) >= 2 + k
        return Problem(np.stack(starts, 1), low_ExP, high_ExP, mean_ExP, sd_ExP, pooled_P)


@dataclasses.dataclass(frozen=True)
class AdditiveLog(ParametricLaw):
    """L_e = E_e - sum_i c_ei log(x_i + k_e), c >= 0; theta = (E, log k, c_1..c_K)."""

    name: str = dataclasses.field(default="additive log", compare=False)

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        return theta_P[0] - theta_P[2:] @ jnp.log(x_K + jnp.exp(theta_P[1]))

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        lowest_E, range_E, own_ExK = _start(points, own_E)
        e, k = own_ExK.shape
        low_ExP, high_ExP = np.full((e, 2 + k), -1e3), np.full((e, 2 + k), 1e3)
        low_ExP[:, 1], high_ExP[:, 1], low_ExP[:, 2:] = -6, 3, 0
        mean_ExP, sd_ExP = np.zeros((e, 2 + k)), np.full((e, 2 + k), np.inf)
        mean_ExP[:, 1], sd_ExP[:, 1] = np.log(0.1), 1.0
        sd_ExP[:, 2:] = np.where(own_ExK, np.inf, range_E[:, None])
        starts = []
        for offset in (0.1, 1.0):
            theta_ExP = mean_ExP.copy()
            theta_ExP[:, 0], theta_ExP[:, 1] = lowest_E + range_E, np.log(offset)
            theta_ExP[:, 2:] = np.where(own_ExK, 0.2, 0.02) * range_E[:, None]
            starts.append(theta_ExP)
        pooled_P = np.zeros(2 + k, dtype=bool)
        return Problem(np.stack(starts, 1), low_ExP, high_ExP, mean_ExP, sd_ExP, pooled_P)
