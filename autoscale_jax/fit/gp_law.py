"""The Gaussian process as one of the laws that `select` compares."""

from __future__ import annotations

import dataclasses

import numpy as np

from autoscale_jax.fit.gp import fit_gp
from autoscale_jax.fit.gp_samples import draw
from autoscale_jax.fit.law import LawFit, Points, losses


@dataclasses.dataclass(frozen=True)
class ProcessLaw:
    """One process for each evaluation domain. Predicts at size 1.

    It has no parameters that data alone could fix (`decided_E` is False): its prior does so.
    """

    name: str = "gaussian process"

    def fit(
        self, points: Points, own_E: np.ndarray, *, samples: int = 0, correlation: float = 0.0,
        seed: int = 0,
    ) -> LawFit:  # fmt: skip
        process = fit_gp(points)
        residual_RxE = losses(process, points.tokens_RxK) - points.loss_RxE
        z_RxE = np.where(np.isfinite(points.sd_RxE), residual_RxE / points.sd_RxE, np.nan)
        laws_S = draw(process, samples, correlation=correlation, seed=seed)
        undecided_E = np.zeros(len(process.ok_E), dtype=bool)
        misfit = float(np.sqrt(np.nanmean(z_RxE**2)))
        return LawFit(process, laws_S, residual_RxE, process.ok_E, undecided_E, misfit)
