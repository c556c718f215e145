"""Where a scaling law puts the best mixture, by the runs of a search at the target's own size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy.optimize import minimize

from autoscale_jax.fit.effective import EffectiveData
from autoscale_jax.fit.law import Points
from autoscale_jax.fit.parametric import fit_law, predict
from autoscale_jax.methods.space import Space, observed
from autoscale_jax.specs import Run

LAW = EffectiveData(0.03)  # little transfer between domains: a search has few runs at the target
NOISE = 0.05  # nats: how far losses are from a law; the shortest runs are, more than their noise
FEWEST = 6  # observations


def law_mixture(
    runs: Iterable[Run],
    space: Space,
    objective: Callable[[Mapping[str, float]], float],
    curve_at: Sequence[float],
    start_K: np.ndarray,
) -> np.ndarray | None:
    """weights_K of the least objective of the target under effective-data laws, searched from
    `start_K`.

    A law of each loss that the objective depends on is fitted to the runs of the target's size, and
    to their curves. None where laws know nothing: of fewer than FEWEST observations, of losses that
    no domain of the mixture is the own one of, or that are not above 0.
    """
    last = len(space.sizes) - 1
    rows = [
        row
        for row in observed(runs, space, curve_at)
        if row.trial.size == last and np.isfinite(objective(row.loss))
    ]
    if len(rows) < FEWEST:
        return None
    some, step_tokens = rows[0].loss, space.target.step_tokens
    names = [n for n in some if objective({**some, n: 2 * some[n]}) != objective(some)]
    own_E = np.array([space.domains.index(n) if n in space.domains else -1 for n in names])
    loss_RxE = np.array([[row.loss[n] for n in names] for row in rows])
    if not (own_E >= 0).any() or loss_RxE.min() <= 0:
        return None
    tokens_RxK = np.array([row.trial.weights_K * row.steps * step_tokens for row in rows])
    points = Points(tokens_RxK, loss_RxE, np.full(loss_RxE.shape, NOISE), np.ones(len(rows)))
    law = fit_law(LAW, points, own_E).fitted

    def value(weights_K: np.ndarray) -> float:
        tokens_K = np.maximum(weights_K, 0) * space.target_steps * step_tokens
        loss_E = predict(law, tokens_K[None])[0].tolist()
        return objective({**some, **dict(zip(names, loss_E, strict=True))})

    bounds = list(zip(space.lower_K, space.upper_K, strict=True))
    whole = {"type": "eq", "fun": lambda weights_K: weights_K.sum() - 1}
    found = minimize(value, start_K, method="SLSQP", bounds=bounds, constraints=whole)
    return np.asarray(found.x) if value(found.x) < value(start_K) else start_K
