"""A study as plain JSON: everything that the report shows, gathered from ledger and proposals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_jax import evidence, verify, workdir
from autoscale_jax.fit.objective import eval_weights_of
from autoscale_jax.methods import AutoScale
from autoscale_jax.specs import Proposal, Run
from autoscale_jax.study import Study, candidates

Objective = Callable[[Mapping[str, float]], float]


def build(study: Study, proposal: Proposal | None, problems: Sequence[str] = ()) -> dict[str, Any]:
    """What report.json holds (`report.schema.Study`), as far as the study has come."""
    s, table, objective = study.config.study, study.table, study.objective
    shown, warnings = _shown(study, proposal)
    verified = study.verified(proposal) if proposal else {}
    gain, saved = gains_and_savings(verified, objective, "predicted")
    ledger = list(table)
    weights_E = eval_weights_of(study.eval_weights, study.domains).tolist()
    result = {
        "title": "Data mixture study",
        "config": workdir.flat(study.config.to_dict()),
        "objective": {
            "kind": s.objective,
            "weights": dict(zip(study.domains, weights_E, strict=True)),
        },
        "domains": [
            dataclasses.asdict(domain) | {"max_epochs": s.max_epochs}
            for domain in study.corpus.domains
        ],
        "target_tokens": s.target_tokens,
        "reference": "uniform",
        "recommended": proposal.method if proposal else None,
        "proposals": proposals(study, proposal) if proposal else [],
        "verification": [
            verification_row(run, name, objective)
            for name, runs in verified.items()
            for run in runs
        ],
        "gain": gain,
        "tokens_saved": saved,
        "cost": cost(ledger, sum(map(len, verified.values()))),
        "warnings": [*problems, *study.corpus.warnings, *study.notes, *warnings, *diverged(ledger)],
        "runs": [run_row(run, objective) for run in ledger],
    }
    return finite(result | shown)


def _shown(study: Study, proposal: Proposal | None) -> tuple[dict[str, Any], list[str]]:
    """What the proxy runs show, by key of the report, and warnings."""
    if study.space is not None:
        details = proposal.details if proposal else {}
        return evidence.of_search(
            study.space, study.budget, study.proxies(), study.objective, details
        ), []
    assert isinstance(study.method, AutoScale)
    return evidence.of_designs(study.method, study.table, study.objective, proposal is not None)


def proposals(study: Study, proposal: Proposal) -> list[dict[str, Any]]:
    """The proposal, then the mixtures beside it with the objective the same laws predict."""
    row = dataclasses.asdict(proposal)
    predicted = row.pop("details").get("candidates", {})
    others = [
        {
            "method": name,
            "tokens": proposal.tokens,
            "weights": verify.weights_of(mixture),
            "stages": 1 if isinstance(mixture, Mapping) else len(mixture),
            "low": {},
            "high": {},
            "predicted_objective": predicted.get(name, {}).get("predicted_objective"),
        }
        for name, mixture in (candidates(proposal) | study.mixtures(proposal)).items()
        if name not in ("predicted", proposal.method)
    ]
    return [row, *others]


def cost(ledger: Sequence[Run], verification_runs: int) -> dict[str, Any]:
    """What the runs so far have taken."""
    return {
        "runs": len(ledger),
        "proxy_runs": len(ledger) - verification_runs,
        "verification_runs": verification_runs,
        "tokens": sum(sum(run.realised.values()) for run in ledger),
        "flops": sum(run.flops for run in ledger),
        "seconds": sum(run.seconds for run in ledger),
    }


def diverged(ledger: Sequence[Run]) -> list[str]:
    """A warning for each run without a result."""
    return [
        f"{run.spec.label or run.key}: {run.status} ({run.message})"
        for run in ledger
        if run.status != "ok"
    ]


def verification_row(run: Run, mixture: str, objective: Objective) -> dict[str, Any]:
    """One training at the target."""
    ok = run.status == "ok"
    return {
        "mixture": mixture,
        "seed": run.spec.seed,
        "tokens": run.spec.total,
        "weights": run.spec.weights,
        "requested": dict(run.spec.tokens),
        "realised": dict(run.realised),
        "epochs": dict(run.epochs),
        "loss": dict(run.loss),
        "mean_perplexity": float(np.mean(list(run.perplexity.values()))) if ok else None,
        "worst_perplexity": max(run.perplexity.values()) if ok else None,
        "objective": objective(run.loss) if ok else None,
        "status": run.status,
        "curve": [
            {"tokens": p.tokens, "objective": objective(p.loss), "loss": dict(p.loss)}
            for p in run.curve
        ],
    }


def run_row(run: Run, objective: Objective) -> dict[str, Any]:
    """One line of the ledger."""
    return {
        "key": run.key,
        "label": run.spec.label,
        "size": run.spec.size,
        "seed": run.spec.seed,
        "status": run.status,
        "total": run.spec.total,
        "tokens": dict(run.spec.tokens),
        "realised": dict(run.realised),
        "epochs": dict(run.epochs),
        "objective": objective(run.loss) if run.status == "ok" else None,
        "loss": dict(run.loss),
        "flops": run.flops,
        "seconds": run.seconds,
        "message": run.message,
    }


def finite(value: Any) -> Any:
    """The same with None for what JSON has no number for, and lists for tuples."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def gains_and_savings(
    runs: Mapping[str, Sequence[Run]], objective: Objective, mixture: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`gain` and `tokens_saved` of the report, from the verification runs by mixture."""
    values = {
        name: {run.spec.seed: objective(run.loss) for run in group if run.status == "ok"}
        for name, group in runs.items()
    }
    gains = verify.gains({n: v for n, v in values.items() if v}, mixture)
    saved: dict[str, Any] = {"vs_uniform": None, "vs_natural": None, "low": {}, "high": {}}
    saved["definition"] = verify.TOKENS_SAVED
    for name, gain in gains.items():
        pair = (runs[mixture], runs[name])
        key = f"vs_{name}"
        saved[key] = verify.tokens_saved(*pair, objective)
        if gain.low is not None and gain.high is not None:
            # the gain's 90% interval, as the value that has to be reached
            half = (math.log1p(gain.high) - math.log1p(gain.low)) / 2
            saved["low"][key] = verify.tokens_saved(*pair, objective, log_shift=-half)
            saved["high"][key] = verify.tokens_saved(*pair, objective, log_shift=half)
    return {f"vs_{name}": dataclasses.asdict(gain) for name, gain in gains.items()}, saved
