"""From a table of runs to a proposal: laws, optimum, intervals, and what speaks against it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoscale_jax.fit.ensemble import Ensemble
from autoscale_jax.fit.inputs import one_of
from autoscale_jax.fit.objective import Objective, objective_value
from autoscale_jax.fit.paper_rule import PaperRule, paper_rule
from autoscale_jax.fit.selection import LAWS, Selection
from autoscale_jax.fit.study import Study, by_name, judge_of, study_of
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Proposal, RunArrays

RULES = ("auto", "autoscale", "keep")  # besides them, a law by its name
SURE = 0.95  # a mixture this likely to beat the reference is not shrunk towards it
NOT_BEATEN = ("reference", "autoscale", "autoscale, shrunk")  # no part of `p_beats`
APART = 0.2  # width of the 90% interval of a weight difference above which it is undecided


def recommend(
    table: RunTable | RunArrays,
    tokens: float,
    *,
    method: str = "auto",
    objective: Objective = "mean_perplexity",
    eval_weights: Mapping[str, float] | None = None,
    lower: float | Mapping[str, float] | None = None,
    upper: float | Mapping[str, float] | None = None,
    unique: Mapping[str, float] | None = None,
    max_epochs: float = 4.0,
    noise: float | None = None,
    reference: str | Mapping[str, float] = "uniform",
    natural: Mapping[str, float] | None = None,
    samples: int = 100,
    seed: int = 0,
) -> Proposal:
    """The mixture for `tokens` training tokens, with 90% intervals, from runs at smaller budgets.

    Args:
      table: runs of one model; DDO runs at two or more budgets are what serves best.
      method: "auto" fits several laws to all budgets at once, ranks them by their error at the
        largest budget and averages the good ones; a law's name takes that law; "autoscale" is the
        paper's rule; "keep" its optimum at the largest budget. All are judged by the same laws.
      objective: see `objective_value`; `eval_weights` weighs the evaluation domains, by name.
      lower, upper: floors and caps on the weights, one number or by name.
      unique: unique tokens there are, by name; they cap weights at `max_epochs` epochs, and
        repeated tokens count as in `effective_tokens`.
      noise: sd of one run's loss in nats; by default from replicates, else from residuals.
      reference: the mixture to beat and to fall back on: "uniform", "natural" or weights by name.
      natural: weights in proportion to the data there is, for comparison.
      samples: resampled fits of each law, behind all intervals and probabilities.

    Returns:
      a `Proposal`; `details` holds each evaluation domain's predicted loss with its interval, the
      laws' held-out errors, the noise, and the other candidates ("autoscale", the same shrunk
      towards "keep" as far as noise explains it, "keep", the reference) with their predicted
      objectives. `predicted_low` and `predicted_high` bound the proposal's expected objective at
      the target, without the noise of a single run; for a "worst_..." objective it is the smooth
      maximum, at most log(E)/50 nats above the worst domain's.

    Raises:
      BadInput: bad numbers in the table, unknown names, bounds without a mixture, one scale only.
    """
    one_of("method", method, (*RULES, *LAWS))
    study = study_of(
        table, tokens, objective=objective, eval_weights=eval_weights, lower=lower, upper=upper,
        unique=unique, max_epochs=max_epochs,
    )  # fmt: skip
    laws = (method,) if method in LAWS else ()
    judge, ensemble = judge_of(study, laws, noise, samples, seed)
    optima_DxK = ensemble.sample_optima(study.tokens, study.lower_K, study.upper_K)
    best_K = ensemble.expected_optimum(study.tokens, study.lower_K, study.upper_K)
    rule = _paper(study, noise, samples, seed, required=method in ("autoscale", "keep"))
    others = _others(study, ensemble, rule, reference, natural)
    if method in ("autoscale", "keep"):
        assert rule is not None
        best_K = others[method]
        optima_DxK = rule.weights_SxK if method == "autoscale" else rule.budgets[-1].weights_SxK
    return _proposal(study, method, judge, ensemble, best_K, optima_DxK, others, rule)


def _proposal(
    study: Study, method: str, judge: Selection, ensemble: Ensemble, best_K: np.ndarray,
    optima_DxK: np.ndarray, others: dict[str, np.ndarray], rule: PaperRule | None,
) -> Proposal:  # fmt: skip
    """Shrink towards the reference as far as the gain is unsure, and say all of it."""
    names = study.arrays.domains
    mixtures = [*others.values(), best_K]
    value_MxD = ensemble.values(np.stack(mixtures) * study.tokens)
    gain_D = _gain(value_MxD[0], value_MxD[-1])
    sure = float((gain_D > 0).mean())
    trust = 1.0
    if method not in ("autoscale", "keep") and sure < SURE:
        trust = float(np.clip(gain_D.mean(), 0, None) ** 2 / (gain_D**2).mean())
    # The reference may lie outside the bounds; the fall-back is the feasible point next to it.
    fallback_K = ensemble.nearest(others["reference"], study.lower_K, study.upper_K)
    weights_K = fallback_K + trust * (best_K - fallback_K)
    value_MxD = ensemble.values(np.stack([*others.values(), weights_K]) * study.tokens)
    value_D, values = value_MxD[-1], dict(zip(others, value_MxD[:-1], strict=True))
    gain_D = _gain(values["reference"], value_D)
    low_K, high_K = np.percentile(np.vstack([optima_DxK, weights_K[None]]), [5, 95], axis=0)
    low_K, high_K = np.minimum(low_K, weights_K), np.maximum(high_K, weights_K)
    beaten = [n for n in others if n not in NOT_BEATEN]
    p_beats = {n: _p_below(value_D, values[n]) for n in beaten}
    warnings = [*_undecided(p_beats), *_warnings(study, judge, optima_DxK, trust, sure, rule)]
    predicted = np.percentile(value_D, [5, 95])
    named = lambda v_K: dict(zip(names, (float(v) for v in v_K), strict=True))  # noqa: E731
    loss_DxE = ensemble.predictions(weights_K * study.tokens, study.unique_K)
    details = _details(study, judge, gain_D, loss_DxE) | {
        "trust": trust,
        "unshrunk": named(best_K),
        "candidates": {
            n: {"weights": named(others[n]), "predicted_objective": float(np.median(values[n]))}
            for n in others
        },
    }
    return Proposal(
        method=method,
        tokens=round(study.tokens),
        weights=named(weights_K / weights_K.sum()),
        low=named(low_K),
        high=named(high_K),
        predicted_objective=float(np.median(value_D)),
        predicted_low=float(predicted[0]),
        predicted_high=float(predicted[1]),
        p_beats=p_beats,
        warnings=tuple(warnings),
        details=details,
    )


def _p_below(a_D: np.ndarray, b_D: np.ndarray) -> float:
    """P(a < b); mixtures that are the same count half."""
    return float((a_D < b_D).mean() + (a_D == b_D).mean() / 2)


def _undecided(p_beats: Mapping[str, float]) -> list[str]:
    """Which mixtures the proposal may as well be worse than."""
    open_ = [f"{n} (beats it with probability {p:.2f})" for n, p in p_beats.items() if p < SURE]
    return [f"the proposal cannot be told apart from {', '.join(open_)}"] if open_ else []


def _details(
    study: Study, judge: Selection, gain_D: np.ndarray, loss_DxE: np.ndarray
) -> dict[str, Any]:
    """The objective, gain over the reference, predicted losses, the laws' errors and the noise."""
    loss_3xE = np.percentile(loss_DxE, [50, 5, 95], axis=0)
    return {
        "objective": study.objective,
        "losses": dict(zip(study.arrays.eval_domains, loss_3xE.T.tolist(), strict=True)),
        "gain_percent": [100 * float(v) for v in np.percentile(gain_D, [50, 5, 95])],
        "laws": {
            name: {
                "held_out_contrast": judge.contrast[name],
                "held_out_mae": judge.mae[name],
                "share": judge.shares.get(name, 0.0),
                "undecided": _named_where(study, judge, name),
            }
            for name in judge.contrast
        },
        "held_out": judge.held_out,
        "noise": {
            "source": judge.noise.source,
            "correlation": judge.noise.correlation,
            "sd": dict(zip(study.arrays.eval_domains, judge.noise.sd_E.tolist(), strict=True)),
        },
    }


def _named_where(study: Study, judge: Selection, law: str) -> list[str]:
    """Evaluation domains for which not the runs alone but the priors, too, fix a law."""
    if law not in judge.fits:
        return []
    decided_E = judge.fits[law].decided_E
    return [e for e, ok in zip(study.arrays.eval_domains, decided_E, strict=True) if not ok]


def _gain(reference_D: np.ndarray, value_D: np.ndarray) -> np.ndarray:
    """Relative reduction of the objective below the reference's."""
    return 1 - value_D / reference_D


def _warnings(
    study: Study, judge: Selection, optima_DxK: np.ndarray, trust: float, sure: float,
    rule: PaperRule | None,
) -> list[str]:  # fmt: skip
    names = study.arrays.domains
    lines = []
    if trust < 1:
        lines.append(
            "the predicted gain is small against its interval (unshrunk, the mixture beats the "
            f"reference with probability {sure:.2f}): weights moved {100 * (1 - trust):.0f}% of "
            "the way to it"
        )
    pairs = []
    for i, j in itertools.combinations(range(len(names)), 2):
        gap_D = optima_DxK[:, i] - optima_DxK[:, j]
        if len(gap_D) and 0.1 < (gap_D > 0).mean() < 0.9:
            low, high = np.percentile(gap_D, [5, 95])
            if high - low > APART:
                pairs.append(f"{names[i]} and {names[j]}")
    if pairs:
        lines.append(f"weights cannot be told apart: {'; '.join(pairs)}")
    for name, fit in judge.fits.items():
        bad = [e for e, ok in zip(study.arrays.eval_domains, fit.ok_E, strict=True) if not ok]
        if bad:
            lines.append(f"{name}: the fit of {', '.join(bad)} did not converge")
        if fit.misfit > 2:
            lines.append(f"{name}: misses the runs by {fit.misfit:.1f} times their noise")
    if "folds" in judge.held_out:
        lines.append("one budget only: laws were compared at that scale, not at a larger one")
    reach = study.tokens / study.arrays.tokens_RxK.sum(1).max()
    if reach > 20:
        lines.append(f"the target is {reach:.0f} times the largest run: far beyond the data")
    if rule is not None:
        lines += [f"paper's rule: {line}" for line in rule.warnings]
    return lines


def _others(
    study: Study, ensemble: Ensemble, rule: PaperRule | None,
    reference: str | Mapping[str, float], natural: Mapping[str, float] | None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Mixtures that the proposal is compared with, the reference first."""
    others = _references(study, reference, natural)
    if rule is not None:
        return others | {
            "keep": rule.keep_K,
            "autoscale": rule.weights_K,
            "autoscale, shrunk": rule.shrunk_K,
        }
    largest = float(study.arrays.tokens_RxK.sum(1).max())
    keep_K = ensemble.expected_optimum(largest, study.lower_K, study.upper_K)
    return others | {"keep": keep_K}


def _references(
    study: Study, reference: str | Mapping[str, float], natural: Mapping[str, float] | None
) -> dict[str, np.ndarray]:
    """The reference first, then uniform and natural; each as it is, bounds or not."""
    k, names = len(study.arrays.domains), study.arrays.domains
    found = {"uniform": np.full(k, 1 / k)}
    if natural is not None:
        found["natural"] = _mixture(natural, names, "natural")
    if isinstance(reference, Mapping):
        first = _mixture(reference, names, "reference")
    elif reference in found:
        first = found[reference]
    else:
        known = "'uniform', 'natural' (with natural=) or weights by name"
        raise BadInput(f"reference = {reference!r}: give {known}")
    return {"reference": first} | found


def _mixture(weights: Mapping[str, float], names: tuple[str, ...], field: str) -> np.ndarray:
    w_K = by_name(weights, names, field, 0.0)
    if not np.isfinite(w_K).all() or (w_K < 0).any() or abs(w_K.sum() - 1) > 1e-3:
        raise BadInput(f"{field} = {dict(weights)}: weights are 0 or more and sum to 1")
    return w_K / w_K.sum()


def _paper(
    study: Study, noise: float | None, samples: int, seed: int, *, required: bool
) -> PaperRule | None:
    """The paper's rule where the runs are DDO's."""
    tokens_RxK = np.asarray(study.arrays.tokens_RxK, dtype=np.float64)
    value_R = objective_value(np.asarray(study.arrays.loss_RxE), study.objective, study.v_E)
    try:
        return paper_rule(
            tokens_RxK, value_R, study.tokens, lower=study.lower_K, upper=study.upper_K,
            noise=noise, samples=samples, seed=seed, names=study.arrays.domains,
        )  # fmt: skip
    except BadInput:
        if required:
            raise
        return None  # not a DDO design: the laws answer alone
