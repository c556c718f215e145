"""Which laws to trust: ranked by error at the largest budget when fitted to the smaller ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from autoscale_jax.fit.additive import AdditiveLog, AdditivePower
from autoscale_jax.fit.budgets import budgets_of
from autoscale_jax.fit.effective import EffectiveData
from autoscale_jax.fit.ensemble import Averaged
from autoscale_jax.fit.gp_law import ProcessLaw
from autoscale_jax.fit.inputs import check_arrays, not_traced, one_of
from autoscale_jax.fit.law import FEWEST, Law, LawFit, Points, losses
from autoscale_jax.fit.mixing import DataMixing
from autoscale_jax.fit.noise import Noise, noise_of
from autoscale_jax.fit.objective import Objective, eval_weights_of
from autoscale_jax.fit.repetition import effective_runs
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, RunArrays

# A new law is one file and its line here.
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        EffectiveData(),
        EffectiveData(0.03, "effective data, little transfer"),
        EffectiveData(0.3, "effective data, saturating", 0.5),
        AdditivePower(),
        AdditiveLog(),
        DataMixing(),
        ProcessLaw(),
    )
}
GOOD = 1.2  # laws within this factor of the best error are averaged
FOLDS, MANY = 4, 100  # folds of runs at one budget; with many runs the first fold will do
DRAWS = 500  # of the held-out runs: what the ranking may have been
LEAST = 0.1  # share below which a law is not worth its fit


@dataclasses.dataclass(frozen=True)
class Selection:
    """Laws with held-out errors, shares of the good ones, and the average fitted to all runs.

    `contrast`: rms error of the differences between held-out runs in each domain's loss, nats,
    weighed as the domains move the objective: what a choice of mixture needs. `mae`: mean absolute
    error of the losses. `shares`: of the laws in the average, each the mean over redraws of the
    held-out runs (with replacement), so that a ranking that other runs would have turned round is
    not taken for certain. `fits`: of the laws with a share.
    """

    law: Averaged
    fits: dict[str, LawFit]
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


def arrays_of(table: RunTable | RunArrays) -> RunArrays:
    """The runs of a table, checked. Raises `BadInput` for bad numbers and for several sizes."""
    if isinstance(table, RunTable):
        sizes = sorted({run.spec.size for run in table.ok()})
        if len(sizes) > 1:
            raise BadInput(
                f"size: the runs are of models {', '.join(map(repr, sizes))}, and a law holds for "
                f"one: choose it (--size, or table.arrays(lambda run: run.spec.size == "
                f"{sizes[-1]!r}))"
            )
        table = table.arrays()
    not_traced("a fit of laws", table.tokens_RxK, table.loss_RxE)
    check_arrays(table)
    return table


def own_domains(arrays: RunArrays) -> np.ndarray:
    """(E,) index of the training domain with the evaluation domain's name, or -1."""
    return np.array(
        [arrays.domains.index(n) if n in arrays.domains else -1 for n in arrays.eval_domains]
    )


def points_of(arrays: RunArrays, noise: Noise) -> Points:
    """All runs with their noise; repeated tokens count as in `effective_tokens`."""
    sd_RxE = np.broadcast_to(noise.sd_E, arrays.loss_RxE.shape).copy()
    tokens_RxK = effective_runs(arrays)
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
      BadInput: a name that is not in `LAWS`, too few runs, losses that are not finite, models of
        several sizes.
    """
    for name in laws:
        one_of("law", name, tuple(LAWS))
    arrays = arrays_of(table)
    v_E = eval_weights_of(eval_weights, arrays.eval_domains)
    own_E = own_domains(arrays)
    if not isinstance(noise, Noise):
        noise = noise_of(arrays, own_E, noise)
    points = points_of(arrays, noise)
    folds, held_out = _folds(np.asarray(arrays.tokens_RxK, dtype=np.float64))
    names = laws or tuple(LAWS)
    if len(names) > 1:
        _check_folds(len(points.loss_RxE), folds)
        influence_E = _influence(points.loss_RxE[np.concatenate(folds)], objective, v_E)
        errors = {name: _errors(LAWS[name], points, own_E, folds) for name in names}
        contrast = {name: float(_contrast(errors[name], influence_E)) for name in names}
        mae = {n: float(np.mean(np.abs(np.concatenate(errors[n])) @ v_E)) for n in names}
        shares = _shares(errors, influence_E)
    else:
        contrast, mae, shares = {names[0]: 0.0}, {names[0]: 0.0}, {names[0]: 1.0}
    options: dict[str, Any] = {"correlation": noise.correlation, "seed": seed}
    fits = {name: LAWS[name].fit(points, own_E, samples=samples, **options) for name in shares}
    scale_K = np.full(points.tokens_RxK.shape[1], points.scale)
    fitted = tuple(found.fitted for found in fits.values())
    law = Averaged(fitted, np.array(list(shares.values())), scale_K)
    return Selection(law, fits, shares, contrast, mae, held_out, noise)


def _folds(tokens_RxK: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Row sets to hold out, and what they are in words."""
    groups = budgets_of(tokens_RxK)
    smaller = sum(len(rows) for rows in groups[:-1])
    if smaller >= FEWEST:
        total = np.median(tokens_RxK[groups[-1]].sum(1))
        return [groups[-1]], f"{len(groups[-1])} runs at the largest budget (about {total:.3g})"
    folds = FOLDS if len(tokens_RxK) < MANY else 1
    order = np.random.default_rng(0).permutation(len(tokens_RxK))
    return [order[i::FOLDS] for i in range(folds)], f"{folds} of {FOLDS} folds at one budget"


def _check_folds(runs: int, folds: list[np.ndarray]) -> None:
    most = max(map(len, folds))
    if runs - most < FEWEST:
        raise BadInput(
            f"{runs} runs, {most} of them held out to rank the laws: {FEWEST} must be left to fit; "
            "add runs, or name one law"
        )


def _errors(
    law: Law, points: Points, own_E: np.ndarray, folds: list[np.ndarray]
) -> list[np.ndarray]:
    """By fold, (R, E) predicted less observed losses of its runs, fitted to the others."""
    found = []
    for rows in folds:
        sd_RxE = points.sd_RxE.copy()
        sd_RxE[rows] = np.inf  # left out, at the same shapes: no recompilation
        fitted = law.fit(points._replace(sd_RxE=sd_RxE), own_E).fitted
        found.append(losses(fitted, points.tokens_RxK[rows]) - points.loss_RxE[rows])
    return found


def _contrast(error_FxRxE: list[np.ndarray], influence_E: np.ndarray) -> np.ndarray:
    """rms error of differences between a fold's runs; of (..., R, E) errors, leading axes stay."""
    squares = [(((e - e.mean(-2, keepdims=True)) ** 2) @ influence_E).sum(-1) for e in error_FxRxE]
    return np.sqrt(sum(squares[1:], squares[0]) / sum(e.shape[-2] for e in error_FxRxE))


def _shares(errors: dict[str, list[np.ndarray]], influence_E: np.ndarray) -> dict[str, float]:
    """Each law's mean share over redraws of the held-out runs; laws with next to none go."""
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(e), size=(DRAWS, len(e))) for e in next(iter(errors.values()))]
    contrast_LxD = np.array(
        [
            _contrast([e[rows] for e, rows in zip(folds, drawn, strict=True)], influence_E)
            for folds in errors.values()
        ]
    )
    contrast_LxD = np.maximum(contrast_LxD, 1e-9)
    inverse_LxD = (contrast_LxD <= GOOD * contrast_LxD.min(0)) / contrast_LxD**2
    share_L = (inverse_LxD / inverse_LxD.sum(0)).mean(1)
    kept = {n: s for n, s in zip(errors, share_L.tolist(), strict=True) if s >= LEAST}
    return {name: share / sum(kept.values()) for name, share in kept.items()}


def _influence(loss_RxE: np.ndarray, objective: Objective, v_E: np.ndarray) -> np.ndarray:
    """(E,) each evaluation domain's share of what moves the objective; sums to 1."""
    if objective == "mean_loss":
        return v_E
    if objective == "mean_perplexity":
        moves_E = v_E * np.exp(loss_RxE.mean(0))
        return moves_E / moves_E.sum()
    return (v_E > 0) / (v_E > 0).sum()  # any domain may become the worst
