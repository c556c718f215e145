"""How the best mixture moves with the token scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from autoscale_jax.fit.objective import Objective
from autoscale_jax.fit.study import judge_of, study_of
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import RunArrays


@dataclasses.dataclass(frozen=True)
class ScalePoint:
    """The best mixture for `tokens` tokens, with 90% intervals, by domain."""

    tokens: float
    weights: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]


def trajectory(
    table: RunTable | RunArrays,
    totals: Sequence[float],
    *,
    objective: Objective = "mean_perplexity",
    eval_weights: Mapping[str, float] | None = None,
    lower: float | Mapping[str, float] | None = None,
    upper: float | Mapping[str, float] | None = None,
    unique: Mapping[str, float] | None = None,
    max_epochs: float = 4.0,
    noise: float | None = None,
    samples: int = 100,
    seed: int = 0,
) -> list[ScalePoint]:
    """The optimum of `recommend`'s laws at each of several token totals; arguments as there.

    Raises:
      BadInput: as `recommend`.
    """
    points, ensemble = [], None
    for total in totals:
        study = study_of(
            table,
            total,
            objective=objective,
            eval_weights=eval_weights,
            lower=lower,
            upper=upper,
            unique=unique,
            max_epochs=max_epochs,
        )
        if ensemble is None:
            _, ensemble = judge_of(study, (), noise, samples, seed)
        best_K = ensemble.expected_optimum(study.tokens, study.lower_K, study.upper_K)
        optima_DxK = ensemble.sample_optima(study.tokens, study.lower_K, study.upper_K)
        low_K, high_K = np.percentile(np.vstack([optima_DxK, best_K[None]]), [5, 95], axis=0)
        named = [
            dict(zip(study.arrays.domains, v_K.tolist(), strict=True))
            for v_K in (best_K, np.minimum(low_K, best_K), np.maximum(high_K, best_K))
        ]
        points.append(ScalePoint(float(total), *named))
    return points
