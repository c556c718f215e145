"""How noisy one run's losses are: from replicates, else from residuals, else given."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autoscale_jax.fit.budgets import replicates_of
from autoscale_jax.fit.effective import EffectiveData
from autoscale_jax.fit.inputs import finite
from autoscale_jax.fit.law import Points
from autoscale_jax.fit.repetition import effective_runs
from autoscale_jax.specs import RunArrays

PSEUDO = 4.0  # degrees of freedom with which a domain's variance leans on the average
FLOOR = 5e-4  # nats: rounding and evaluation noise that replicates of a seed do not show
GUESS = 0.01  # nats: starting value where only residuals can tell


class Noise(NamedTuple):
    """sd of one run's loss (nats) by evaluation domain, its source, and the correlation between
    evaluation domains of one run's noise."""

    sd_E: np.ndarray
    source: str
    correlation: float


def noise_of(arrays: RunArrays, own_E: np.ndarray, given: float | None = None) -> Noise:
    """The noise of a table's runs.

    given: sd of a run's loss in nats (a relative sd of the perplexity is the same number).
    """
    if given is not None:
        finite("noise", given, "give the sd of one run's loss in nats, above 0", above=0)
        return Noise(np.full(len(own_E), float(given)), "given", 0.5)
    groups = replicates_of(arrays.tokens_RxK)
    deviations = [arrays.loss_RxE[rows] - arrays.loss_RxE[rows].mean(0) for rows in groups]
    degrees = sum(len(rows) - 1 for rows in groups)
    if degrees >= 2:
        d_RxE = np.concatenate(deviations)
        variance_E = (d_RxE**2).sum(0) / degrees
        variance_E = (degrees * variance_E + PSEUDO * variance_E.mean()) / (degrees + PSEUDO)
        sd_E = np.maximum(np.sqrt(variance_E), FLOOR)
        return Noise(sd_E, "replicates", _correlation(d_RxE / sd_E, degrees))
    guess = np.full(arrays.loss_RxE.shape, GUESS)
    sizes = np.ones(len(arrays.loss_RxE))
    points = Points(effective_runs(arrays), arrays.loss_RxE, guess, sizes)
    residual_RxE = EffectiveData().fit(points, own_E).residual_RxE
    # Each evaluation domain's law takes about half the runs' freedom in small tables.
    parameters = min(4 + arrays.tokens_RxK.shape[1], len(residual_RxE) / 2)
    degrees = len(residual_RxE) - parameters
    variance_E = (residual_RxE**2).sum(0) / degrees
    variance_E = (degrees * variance_E + PSEUDO * variance_E.mean()) / (degrees + PSEUDO)
    sd_E = np.maximum(np.sqrt(variance_E), FLOOR)
    return Noise(sd_E, "residuals", _correlation(residual_RxE / sd_E, degrees))


def _correlation(z_RxE: np.ndarray, degrees: float) -> float:
    """Mean correlation between columns, leaning on 0.5 as if two more runs had shown it."""
    e = z_RxE.shape[1]
    if e == 1:
        return 0.0
    products = (z_RxE.sum(1) ** 2 - (z_RxE**2).sum(1)).sum() / (e * (e - 1))
    observed = products / max((z_RxE**2).mean() * len(z_RxE), 1e-300)
    return float(np.clip((degrees * observed + 2 * 0.5) / (degrees + 2), 0.0, 0.95))
