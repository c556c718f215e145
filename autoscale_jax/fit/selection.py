"""Which laws to trust: ranked by error at the largest budget when fitted to the smaller ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.additive import AdditiveLog, AdditivePower
from autoscale_jax.fit.budgets import budgets_of
from autoscale_jax.fit.effective import EffectiveData
from autoscale_jax.fit.ensemble import Averaged, Samples
from autoscale_jax.fit.gp import GaussianProcess, fit_gp
from autoscale_jax.fit.gp_samples import draw
from autoscale_jax.fit.law import FittedLaw, Law, LawFit, Points, fit_law, predict
from autoscale_jax.fit.mixing import DataMixing
from autoscale_jax.fit.noise import Noise, noise_of
from autoscale_jax.fit.objective import Objective, eval_weights_of
from autoscale_jax.fit.precision import scope
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, RunArrays

LAWS: dict[str, Law] = {
    "effective data": EffectiveData(),
    "effective data, little transfer": EffectiveData(0.03, "effective data, little transfer"),
    "effective data, saturating": EffectiveData(0.3, "effective data, saturating", 0.5),
    "additive power": AdditivePower(),
    "additive log": AdditiveLog(),
    "data mixing": DataMixing(),
}
GP = "gaussian process"
NAMES = (*LAWS, GP)
GOOD = 1.2  # laws within this factor of the best error are averaged
FOLDS, MANY = 4, 100  # folds of runs at one budget; with many runs the first fold will do


@dataclasses.dataclass(frozen=True)
class Selection:
    """Laws with held-out errors, shares of the good ones, and the average fitted to all runs.

    `samples`: of each good law, those behind the intervals.

    `contrast`: rms error of the differences between held-out runs in each domain's loss, nats,
    weighed as the domains move the objective: what a choice of mixture needs. `mae`: mean absolute
    error of the losses.
    """

    law: Averaged
    fits: dict[str, LawFit]
    process: GaussianProcess | None
    samples: dict[str, Samples]
    shares: dict[str, float]
    contrast: dict[str, float]
    mae: dict[str, float]
    held_out: str
    noise: Noise

    def __str__(self) -> str:
        """A table of the laws, best first."""
        lines = [f"held out: {self.held_out}", f"{'law':34}{'contrast':>10}{'MAE':>10}{'share':>8}"]
        for name in sorted(self.contrast, key=self.contrast.__getitem__):
            share = self.shares.get(name, 0.0)
            lines.append(f"{name:34}{self.contrast[name]:10.5f}{self.mae[name]:10.5f}{share:8.2f}")
        return "\n".join(lines)


def own_domains(arrays: RunArrays) -> np.ndarray:
    """(E,) index of the training domain with the evaluation domain's name, or -1."""
    return np.array(
        [arrays.domains.index(n) if n in arrays.domains else -1 for n in arrays.eval_domains]
    )


def points_of(arrays: RunArrays, noise: Noise) -> Points:
    """All runs with their noise."""
    sd_RxE = np.broadcast_to(noise.sd_E, arrays.loss_RxE.shape).copy()
    tokens_RxK = np.asarray(arrays.tokens_RxK, dtype=np.float64)
    return Points(tokens_RxK, np.asarray(arrays.loss_RxE), sd_RxE, np.ones(len(tokens_RxK)))


def select(
    table: RunTable | RunArrays,
    *,
    objective: Objective = "mean_perplexity",
    eval_weights: object = None,
    laws: tuple[str, ...] = (),
    noise: Noise | float | None = None,
    samples: int = 0,
    seed: int = 0,
) -> Selection:
    """Fit every law to the smaller budgets, rank by error at the largest, average the good ones.

    With one budget the runs are held out in folds instead, which can rank laws backwards for
    larger scales; `held_out` says which it was. The fits handed back are to all runs.

    Raises:
      BadInput: a name that is not in `LAWS`, too few runs, losses that are not finite.
    """
    for name in laws:
        if name not in NAMES:
            raise BadInput(f"law {name!r}: give one of {', '.join(NAMES)}")
    arrays = table.arrays() if isinstance(table, RunTable) else table
    check_arrays(arrays)
    v_E = eval_weights_of(eval_weights, arrays.eval_domains)
    own_E = own_domains(arrays)
    if not isinstance(noise, Noise):
        noise = noise_of(arrays, own_E, noise)
    points = points_of(arrays, noise)
    folds, held_out = _folds(points)
    names = laws or NAMES
    contrast, mae = {}, {}
    for name in names:
        contrast[name], mae[name] = (
            _errors(name, points, own_E, folds, objective, v_E) if len(names) > 1 else (0.0, 0.0)
        )
    best = min(contrast.values())
    good = [n for n in names if contrast[n] <= GOOD * best]
    inverse = np.array([1 / max(contrast[n], 1e-9) ** 2 for n in good])
    shares = dict(zip(good, (inverse / inverse.sum()).tolist(), strict=True))
    options: dict[str, Any] = {"correlation": noise.correlation, "seed": seed}
    fits = {n: fit_law(LAWS[n], points, own_E, samples=samples, **options) for n in good if n != GP}
    process = fit_gp(points) if GP in good else None
    drawn: dict[str, Samples] = {n: f.laws_S for n, f in fits.items()}
    if process is not None:
        drawn[GP] = draw(process, samples, **options)
    fitted = [process if n == GP else fits[n].fitted for n in good]
    scale_K = np.full(points.tokens_RxK.shape[1], points.scale)
    law = Averaged(tuple(fitted), np.array(list(shares.values())), scale_K)
    return Selection(law, fits, process, drawn, shares, contrast, mae, held_out, noise)


def losses(law: Averaged | FittedLaw | GaussianProcess, tokens_RxK: np.ndarray) -> np.ndarray:
    """(R, E) predicted losses at token counts, in float64, outside of a trace."""
    with scope():
        law = jax.tree.map(lambda v: jnp.asarray(v, dtype=float), law)
        return np.asarray(_predict(law, jnp.asarray(tokens_RxK, dtype=float)))


_predict = jax.jit(lambda law, tokens_RxK: law.predict(tokens_RxK))


def _folds(points: Points) -> tuple[list[np.ndarray], str]:
    """Row sets to hold out, and what they are in words."""
    groups = budgets_of(points.tokens_RxK)
    smaller = sum(len(rows) for rows in groups[:-1])
    if smaller >= 4:
        total = np.median(points.tokens_RxK[groups[-1]].sum(1))
        return [groups[-1]], f"{len(groups[-1])} runs at the largest budget (about {total:.3g})"
    folds = FOLDS if len(points.tokens_RxK) < MANY else 1
    order = np.random.default_rng(0).permutation(len(points.tokens_RxK))
    return [order[i::FOLDS] for i in range(folds)], f"{folds} of {FOLDS} folds at one budget"


def _errors(
    name: str, points: Points, own_E: np.ndarray, folds: list[np.ndarray], objective: Objective,
    v_E: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    """Contrast and mean absolute error over the held-out rows."""
    squares, absolute, count = 0.0, 0.0, 0
    for rows in folds:
        sd_RxE = points.sd_RxE.copy()
        sd_RxE[rows] = np.inf  # left out, at the same shapes: no recompilation
        rest = points._replace(sd_RxE=sd_RxE)
        if name == GP:
            predicted = losses(fit_gp(rest), points.tokens_RxK[rows])
        else:
            fitted = fit_law(LAWS[name], rest, own_E).fitted
            predicted = predict(fitted, points.tokens_RxK[rows])
        error_RxE = predicted - points.loss_RxE[rows]
        influence_E = _influence(points.loss_RxE[rows], objective, v_E)
        squares += (((error_RxE - error_RxE.mean(0)) ** 2) @ influence_E).sum()
        absolute += (np.abs(predicted - points.loss_RxE[rows]) @ v_E).sum()
        count += len(rows)
    return float(np.sqrt(squares / count)), float(absolute / count)


def _influence(loss_RxE: np.ndarray, objective: Objective, v_E: np.ndarray) -> np.ndarray:
    """(E,) each evaluation domain's share of what moves the objective; sums to 1."""
    if objective == "mean_loss":
        return v_E
    if objective == "mean_perplexity":
        moves_E = v_E * np.exp(loss_RxE.mean(0))
        return moves_E / moves_E.sum()
    return (v_E > 0) / (v_E > 0).sum()  # any domain may become the worst


def check_arrays(arrays: RunArrays) -> None:
    """Refuse what no law can be fitted to, naming run, column and remedy."""
    tokens_RxK, loss_RxE = np.asarray(arrays.tokens_RxK), np.asarray(arrays.loss_RxE)
    if not len(tokens_RxK) or not loss_RxE.size:
        raise BadInput("no runs with losses: give a table with runs whose status is ok")
    for name in arrays.eval_domains:
        if arrays.eval_domains.count(name) > 1:
            raise BadInput(f"evaluation domain {name!r} is there twice: name each once")
    for r, c in np.argwhere(~np.isfinite(tokens_RxK) | (tokens_RxK < 0)):
        raise BadInput(
            f"run {arrays.names_R[r]!r}, domain {arrays.domains[c]!r}: tokens = "
            f"{tokens_RxK[r, c]}: give 0 or more"
        )
    for r in np.flatnonzero(tokens_RxK.sum(1) <= 0):
        raise BadInput(f"run {arrays.names_R[r]!r}: no tokens of any domain: leave the run out")
    for r, c in np.argwhere(~np.isfinite(loss_RxE)):
        raise BadInput(
            f"run {arrays.names_R[r]!r}, loss of {arrays.eval_domains[c]!r} = {loss_RxE[r, c]}: "
            "leave out runs that diverged or failed"
        )
