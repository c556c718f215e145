"""Figure 3 of 2503.21023: whether runs of smaller models help to predict larger ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mfms_study import columns_of, simulator, space_of

from autoscale_jax.fit.gp_transfer import fit_surrogate, inputs, posterior
from autoscale_jax.fit.precision import scope
from autoscale_jax.methods.mixtures import draws
from autoscale_jax.methods.space import Observations, Space

# Predicted objectives at queries, whose own `objective_R` is NaN, from observations.
FitPredict = Callable[[Space, Observations, Observations], np.ndarray]
LARGE = "1B"
AT_LARGE = (5, 10, 20)  # mixtures observed at the large size
AT_SMALL = 50  # and at each smaller one, others than those
HELD_OUT = 256
SEEDS = 3


def linear(space: Space, observed: Observations, query: Observations) -> np.ndarray:
    """Ridge regression on the weights, and on their products with log size: the plainest peer."""

    def features(of: Observations) -> np.ndarray:
        million_Z = np.array([size.parameters for size in space.sizes]) / space.target.parameters
        scale_R = np.log(million_Z)[of.size_R][:, None]
        return np.hstack([of.weights_RxK, scale_R * of.weights_RxK])

    x_RxF, mean = features(observed), observed.objective_R.mean()
    ridge_FxF = 1e-3 * np.eye(x_RxF.shape[1])
    beta_F = np.linalg.solve(x_RxF.T @ x_RxF + ridge_FxF, x_RxF.T @ (observed.objective_R - mean))
    return mean + features(query) @ beta_F


def process(space: Space, observed: Observations, query: Observations) -> np.ndarray:
    """The surrogate of MFMS-BO."""
    fitted = fit_surrogate(inputs_of(space, observed), observed.objective_R)
    with scope():
        return np.asarray(posterior(fitted, inputs_of(space, query))[0])


def inputs_of(space: Space, of: Observations) -> np.ndarray:
    parameters_R = np.array([size.parameters for size in space.sizes])[of.size_R]
    target = (space.target.parameters, float(space.target_steps))
    return np.asarray(inputs(of.weights_RxK, parameters_R, of.steps_R, target))


# A surrogate a line.
SURROGATES: dict[str, FitPredict] = {"linear": linear, "process": process}


def at_size(space: Space, size: str, weights_QxK: np.ndarray, metric: str) -> Observations:
    """Full trainings of mixtures at one size."""
    value_Q = columns_of(metric)(simulator().predict(weights_QxK, size, space.target_steps))
    count = len(weights_QxK)
    return Observations(
        weights_QxK,
        np.full(count, space.index[size]),
        np.full(count, space.target_steps),
        np.asarray(value_Q, float),
    )


def r2(
    fit_predict: FitPredict, metric: str, seed: int, at_large: int, smaller: Sequence[str]
) -> float:
    """R2 on held-out mixtures at the large size, by what is observed there and at smaller sizes."""
    space = space_of("whole")
    drawn = draws(space, "dirichlet", seed)

    def some(count: int) -> np.ndarray:
        return np.array(list(itertools.islice(drawn, count)))

    held = at_size(space, LARGE, some(HELD_OUT), metric)
    parts = [at_size(space, LARGE, some(max(AT_LARGE))[:at_large], metric)]
    for size in space.sizes[:-1]:
        weights_QxK = some(AT_SMALL)
        if size.name in smaller:
            parts.append(at_size(space, size.name, weights_QxK, metric))
    observed = Observations(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    query = Observations(*held[:3], np.full(HELD_OUT, np.nan))
    miss_Q = held.objective_R - fit_predict(space, observed, query)
    return float(1 - (miss_Q**2).sum() / ((held.objective_R - held.objective_R.mean()) ** 2).sum())


def transfer_table(fit_predict: FitPredict, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """A row a metric and count of mixtures at the large size; a column a choice of smaller ones."""
    sizes = [size.name for size in space_of("whole").sizes[:-1]]
    choices = {"alone": [], **{f"+{name}": [name] for name in sizes}, "+all": sizes}
    rows = []
    for metric, count in itertools.product(metrics, AT_LARGE):
        row: dict[str, Any] = {"metric": metric, f"mixtures at {LARGE}": count}
        for name, smaller in choices.items():
            r2_S = [r2(fit_predict, metric, seed, count, smaller) for seed in range(SEEDS)]
            row[name] = f"{np.mean(r2_S):.2f} ({min(r2_S):.2f}-{max(r2_S):.2f})"
        rows.append(row)
    return rows
