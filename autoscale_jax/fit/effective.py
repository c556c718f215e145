"""Effective data: L_e = E_e + beta_e (k0_e + sum_i A_ei N_i)^-gamma_e, every budget at once.

A_ei >= 0 says how much a token of training domain i is worth to evaluation domain e; a domain's own
tokens count 1. Exponents are pooled over evaluation domains, transfer between domains is ridged.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import Points, Problem


@dataclasses.dataclass(frozen=True)
class EffectiveData:
    """theta = (E, log beta, log k0, log gamma, A_1..A_K).

    `transfer_sd` is the prior sd of A between domains.
    """

    transfer_sd: float = dataclasses.field(default=0.3, compare=False)
    name: str = dataclasses.field(default="effective data", compare=False)

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        """E + beta (k0 + A.x)^-gamma; the model's size plays no part."""
        effective = jnp.exp(theta_P[2]) + theta_P[4:] @ x_K
        return theta_P[0] + jnp.exp(theta_P[1] - jnp.exp(theta_P[3]) * jnp.log(effective))

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        """Priors: A ~ N(0, transfer_sd), or N(1, 1) where no training domain is its own."""
        k, e = points.tokens_RxK.shape[1], len(own_E)
        owned_E = own_E >= 0
        own_ExK = (np.arange(k) == own_E[:, None]) & owned_E[:, None]
        lowest_E = np.where(np.isfinite(points.sd_RxE), points.loss_RxE, np.inf).min(0)
        highest_E = np.where(np.isfinite(points.sd_RxE), points.loss_RxE, -np.inf).max(0)
        low_ExP, high_ExP = np.zeros((e, 4 + k)), np.zeros((e, 4 + k))
        low_ExP[:, 1:4], high_ExP[:, 1:4] = (-8, -5, -4), (4, 5, 1)
        high_ExP[:, 0] = 0.999 * lowest_E
        high_ExP[:, 4:] = np.where(owned_E, 3.0, 30.0)[:, None]
        low_ExP[:, 4:] = own_ExK
        high_ExP[:, 4:] = np.where(own_ExK, 1.0, high_ExP[:, 4:])
        mean_ExP = np.zeros((e, 4 + k))
        mean_ExP[:, 3] = np.log(0.3)
        mean_ExP[:, 4:] = np.where(owned_E[:, None], own_ExK, 1.0)
        sd_ExP = np.full((e, 4 + k), np.inf)
        sd_ExP[:, 2], sd_ExP[:, 3] = 1.0, 0.3
        sd_ExP[:, 4:] = np.where(owned_E, self.transfer_sd, 1.0)[:, None]
        starts = []
        for share, gamma, transfer in ((0.3, 0.3, 0.1), (0.6, 0.6, 0.1), (0.6, 0.15, 0.02)):
            theta_ExP = np.zeros((e, 4 + k))
            theta_ExP[:, 0] = share * lowest_E
            theta_ExP[:, 1] = np.log(np.maximum(highest_E - share * lowest_E, 1e-3))
            theta_ExP[:, 3] = np.log(gamma)
            fill = np.where(owned_E, transfer, 1.0)[:, None]
            theta_ExP[:, 4:] = np.where(own_ExK, 1.0, fill)
            starts.append(theta_ExP)
        pooled_P = np.arange(4 + k) == 3
        return Problem(np.stack(starts, 1), low_ExP, high_ExP, mean_ExP, sd_ExP, pooled_P)
