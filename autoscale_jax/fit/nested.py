"""Data Mixing Laws nested as published (Ye et al. 2024, section 4): steps, then size, then mixture.

Each mixture's losses are extrapolated by a power law in tokens at each model size, then by one in
model size; the mixing law is fitted to the extrapolated losses. `mixing.DataMixing` fits all three
in one formula instead.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import LawFit, Points
from autoscale_jax.fit.mixing import DataMixing
from autoscale_jax.fit.parametric import ParametricLaw, Problem, fit_law, predict
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class ScaleLaw(ParametricLaw):
    """L = c + exp(k) n^-a, n the sum of x (tokens or model size); theta = (c, k, log a)."""

    name: str = dataclasses.field(default="scale", compare=False)

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        return theta_P[0] + jnp.exp(theta_P[1] - jnp.exp(theta_P[2]) * jnp.log(x_K.sum()))

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        """The exponents of all mixtures and evaluation domains lean on their common mean."""
        used = np.isfinite(points.sd_RxE)
        lowest_E = np.where(used, points.loss_RxE, np.inf).min(0)
        lowest_E = np.where(used.any(0), lowest_E, 1.0)
        highest_E = np.where(used, points.loss_RxE, -np.inf).max(0)
        highest_E = np.where(used.any(0), highest_E, 1.0)
        e = len(own_E)
        low_ExP, high_ExP = np.tile([0.0, -30, -4], (e, 1)), np.tile([0.0, 5, 1], (e, 1))
        high_ExP[:, 0] = 0.999 * lowest_E
        mean_ExP, sd_ExP = np.zeros((e, 3)), np.full((e, 3), np.inf)
        mean_ExP[:, 2], sd_ExP[:, 2] = np.log(0.4), 0.3
        starts = []
        for share, exponent in ((0.5, 0.3), (0.9, 0.8)):
            k_E = np.log(highest_E - share * lowest_E)
            starts.append(np.stack([share * lowest_E, k_E, np.full(e, np.log(exponent))], 1))
        pooled_P = np.array([False, False, True])
        return Problem(np.stack(starts, 1), low_ExP, high_ExP, mean_ExP, sd_ExP, pooled_P)


def fit_nested(points: Points, own_E: np.ndarray, *, tokens: float, size: float = 1.0) -> LawFit:
    """The mixing law at `tokens` tokens and model size `size`, fitted to extrapolated losses.

    Args:
      points: runs (or checkpoints of runs) of the same mixtures at several token counts and model
        sizes; a mixture with runs at one scale only, and not at the one asked for, is left out, as
        are rows with sd inf.

    Returns:
      the fit of a law that holds at `tokens` and `size` only: give it mixtures of that many tokens.

    Raises:
      BadInput: fewer than 4 mixtures, or none with two token counts (model sizes).
    """
    used = np.isfinite(points.sd_RxE).all(1)
    total_R = points.tokens_RxK.sum(1)[used]
    w_RxK = points.tokens_RxK[used] / total_R[:, None]
    _, first_M, mixture_R = np.unique(
        w_RxK.round(3), axis=0, return_index=True, return_inverse=True
    )
    w_MxK = w_RxK[first_M]
    sizes, size_R = np.unique(points.size_R[used], return_inverse=True)
    cell_R = mixture_R.ravel() * len(sizes) + size_R
    loss_RxE, sd = points.loss_RxE[used], float(points.sd_RxE[used].mean())
    cells = len(w_MxK) * len(sizes)
    loss_CxE = _extrapolate(cell_R, cells, total_R, loss_RxE, tokens, sd, "tokens")
    there_C = np.isfinite(loss_CxE).all(1)
    loss_MxE = _extrapolate(
        np.repeat(np.arange(len(w_MxK)), len(sizes))[there_C], len(w_MxK),
        np.tile(sizes, len(w_MxK))[there_C], loss_CxE[there_C], size, sd, "model size",
    )  # fmt: skip
    known_M = np.isfinite(loss_MxE).all(1)
    loss_MxE, w_MxK = loss_MxE[known_M], w_MxK[known_M]
    scaled = Points(w_MxK * tokens, loss_MxE, np.full(loss_MxE.shape, sd), np.ones(len(w_MxK)))
    return fit_law(DataMixing(), scaled, own_E)


def _extrapolate(
    cell_R: np.ndarray, cells: int, scale_R: np.ndarray, loss_RxE: np.ndarray, target: float,
    sd: float, what: str,
) -> np.ndarray:  # fmt: skip
    """(C, E) each cell's losses at the target scale; NaN without runs at two scales or there."""
    # Totals of the same tokens may differ by rounding: they are one scale.
    levels, level_R = np.unique(np.log(scale_R).round(9), return_inverse=True)
    levels = np.exp(levels)
    e = loss_RxE.shape[1]
    # Every cell and evaluation domain is a column of its own: one call fits all their power laws.
    count = np.zeros((len(levels), cells))
    total = np.zeros((len(levels), cells, e))
    np.add.at(count, (level_R, cell_R), 1)
    np.add.at(total, (level_R, cell_R), loss_RxE)
    mean = total / np.maximum(count, 1)[:, :, None]
    there = np.isclose(levels, target)
    known_C = ((count > 0).sum(0) > 1) | (count[there] > 0).any(0)
    if not known_C.any():
        raise BadInput(
            f"{what}: no mixture has runs at two, and none at {target:.4g}: "
            "add runs of the same mixtures at another"
        )
    if len(levels) == 1:
        return np.where(known_C[:, None], mean[0], np.nan)
    sd_LxC = np.where(count > 0, sd / np.sqrt(np.maximum(count, 1)), np.inf)
    columns = Points(
        levels[:, None], mean.reshape(len(levels), -1), np.repeat(sd_LxC, e, 1),
        np.ones(len(levels)),
    )  # fmt: skip
    fitted = fit_law(ScaleLaw(), columns, np.full(cells * e, -1), fewest=2).fitted
    found_CxE = predict(fitted, np.array([[target]]))[0].reshape(cells, e)
    return np.where(known_C[:, None], found_CxE, np.nan)
