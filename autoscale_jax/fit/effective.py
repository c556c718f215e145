"""Effective data: L_e = E_e + beta_e (k0_e + sum_i A_ei N_i^rho_e)^-gamma_e, every budget at once.

A_ei >= 0 says how much training domain i is worth to evaluation domain e; a domain's own tokens
count 1. With rho = 1 domains replace each other token for token; with rho < 1 each saturates on its
own, so that they complement each other (constant elasticity of substitution). Exponents are pooled
over evaluation domains, transfer between domains is ridged.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import Points
from autoscale_jax.fit.parametric import ParametricLaw, Problem

SHIFT = 0.01  # (N + SHIFT)^rho - SHIFT^rho in units of `Points.scale`: a finite slope at N = 0


@dataclasses.dataclass(frozen=True)
class EffectiveData(ParametricLaw):
    """theta = (E, log beta, log k0, log gamma, log rho, A_1..A_K).

    `transfer_sd` is the prior sd of A between domains, `rho_sd` that of log rho below 0 (0: rho is
    1). Neither is part of the curve: all variants share their compiled programs.
    """

    transfer_sd: float = dataclasses.field(default=0.3, compare=False)
    name: str = dataclasses.field(default="effective data", compare=False)
    rho_sd: float = dataclasses.field(default=0.0, compare=False)

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        """E + beta (k0 + A.x^rho)^-gamma; the model's size plays no part."""
        rho = jnp.exp(theta_P[4])
        worth_K = (x_K + SHIFT) ** rho - SHIFT**rho
        effective = jnp.exp(theta_P[2]) + theta_P[5:] @ worth_K
        return theta_P[0] + jnp.exp(theta_P[1] - jnp.exp(theta_P[3]) * jnp.log(effective))

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        """Priors: A ~ N(0, transfer_sd), or N(1, 1) where no training domain is its own."""
        k, e = points.tokens_RxK.shape[1], len(own_E)
        a = slice(5, 5 + k)
        owned_E = own_E >= 0
        own_ExK = (np.arange(k) == own_E[:, None]) & owned_E[:, None]
        lowest_E = np.where(np.isfinite(points.sd_RxE), points.loss_RxE, np.inf).min(0)
        highest_E = np.where(np.isfinite(points.sd_RxE), points.loss_RxE, -np.inf).max(0)
        low_ExP, high_ExP = np.zeros((e, 5 + k)), np.zeros((e, 5 + k))
        low_ExP[:, 1:5], high_ExP[:, 1:5] = (-8, -5, -4, -3), (4, 5, 1, 0)
        low_ExP[:, 4] *= self.rho_sd > 0
        high_ExP[:, 0] = 0.999 * lowest_E
        high_ExP[:, a] = np.where(owned_E, 3.0, 30.0)[:, None]
        low_ExP[:, a] = own_ExK
        high_ExP[:, a] = np.where(own_ExK, 1.0, high_ExP[:, a])
        mean_ExP, sd_ExP = np.zeros((e, 5 + k)), np.full((e, 5 + k), np.inf)
        mean_ExP[:, 3] = np.log(0.3)
        mean_ExP[:, a] = np.where(owned_E[:, None], own_ExK, 1.0)
        sd_ExP[:, 2], sd_ExP[:, 3] = 1.0, 0.3
        sd_ExP[:, 4] = self.rho_sd or np.inf
        sd_ExP[:, a] = np.where(owned_E, self.transfer_sd, 1.0)[:, None]
        starts = []
        for share, gamma, transfer in ((0.3, 0.3, 0.1), (0.6, 0.6, 0.1), (0.6, 0.15, 0.02)):
            theta_ExP = np.zeros((e, 5 + k))
            theta_ExP[:, 0] = share * lowest_E
            theta_ExP[:, 1] = np.log(np.maximum(highest_E - share * lowest_E, 1e-3))
            theta_ExP[:, 3] = np.log(gamma)
            fill = np.where(owned_E, transfer, 1.0)[:, None]
            theta_ExP[:, a] = np.where(own_ExK, 1.0, fill)
            starts.append(theta_ExP)
        pooled_P = np.zeros(5 + k, dtype=bool)
        pooled_P[3], pooled_P[4] = True, self.rho_sd > 0
        return Problem(np.stack(starts, 1), low_ExP, high_ExP, mean_ExP, sd_ExP, pooled_P)
