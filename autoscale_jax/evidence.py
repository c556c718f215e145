"""What the proxy runs show: laws, optima, effects between domains, noise, or how a search went; as
plain JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_jax.fit import DDOResult
from autoscale_jax.methods import DDO, AutoScale
from autoscale_jax.methods.space import Space
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec

Objective = Callable[[Mapping[str, float]], float]
CURVE_POINTS = 40


def of_designs(
    method: AutoScale, table: RunTable, objective: Objective, proposed: bool
) -> tuple[dict[str, Any], list[str]]:
    """What DDO's runs show, by key of the report, and warnings."""
    found, warnings = optima(
        method.budgets,
        table,
        objective,
        floor=method.floor,
        samples=method.samples,
        seed=method.seed,
    )
    fitted = [(ddo, found[ddo.budget]) for ddo in method.budgets if ddo.budget in found]
    largest = method.budgets[-1]
    shown = {
        "budgets": [ddo.budget for ddo in method.budgets],
        "trajectory": trajectory(method, table) if proposed else [],
        "laws": [row for ddo, fit in fitted for row in laws(ddo, fit, ddo.runs(table), objective)],
        "effects": effects(largest, largest.runs(table)),
        "noise": noise(method.budgets, table, objective),
        "next_run": next_run(method, table) if proposed else None,
    }
    return shown, warnings


def of_search(
    space: Space,
    budget: float,
    runs: Sequence[Run],
    objective: Objective,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """What a search may try and has tried, by key of the report; `details` are its proposal's."""
    return {
        "search": {
            "sizes": [dataclasses.asdict(size) for size in space.sizes],
            "steps": list(space.steps),
            "target_steps": space.target_steps,
            "budget_flops": budget,
            "spent_flops": sum(run.flops for run in runs),
            "trials": trials(space, runs, objective),
            "slices": details.get("slices", []),
            "path": details.get("path", []),
        }
    }


# The label of a search's run: "initial 3: ..." or "search 17: ..." in one count.
_ASKED = re.compile(r"(initial|search) (\d+):")


def trials(space: Space, runs: Sequence[Run], objective: Objective) -> list[dict[str, Any]]:
    """The runs of a search in the order their labels tell; without it, as they ended."""
    labels = [_ASKED.match(run.spec.label) for run in runs]
    order = [int(label[2]) if label else i for i, label in enumerate(labels, 1)]
    rows = [
        {
            "order": number,
            "size": run.spec.size,
            "steps": space.trial(run.spec).steps,
            "flops": run.flops,
            "objective": objective(run.loss) if run.status == "ok" else None,
            "initial": bool(label and label[1] == "initial"),
            "status": run.status,
        }
        for run, number, label in zip(runs, order, labels, strict=True)
    ]
    return sorted(rows, key=lambda row: row["order"])


def optima(
    ddos: Sequence[DDO],
    table: RunTable,
    objective: Objective,
    floor: float,
    samples: int,
    seed: int,
) -> tuple[dict[int, DDOResult], list[str]]:
    """Each budget's optimum by the paper's law, and a warning for each without one."""
    found, warnings = {}, []
    for ddo in ddos:
        try:
            found[ddo.budget] = ddo.optimum(
                table, objective, floor=floor, samples=samples, seed=seed
            )
        except BadInput as error:
            warnings.append(f"no law at {ddo.budget:,} tokens: {error}")
    return found, warnings


def laws(ddo: DDO, result: DDOResult, runs: Sequence[Run], objective: Objective) -> list[dict]:
    """Each domain's measured points at one budget and the curve of Eq. 2 through them."""
    base = result.law.base_tokens_K
    rows = []
    for k, name in enumerate(ddo.domains):
        of_domain = [
            run
            for run in runs
            if all(
                run.spec.tokens[other] == round(base[i])
                for i, other in enumerate(ddo.domains)
                if other != name
            )
        ]
        x_C = np.geomspace(base[k] / ddo.factor / 1.3, base[k] * ddo.factor * 1.3, CURVE_POINTS)
        tokens_CxK = np.where(np.arange(len(base)) == k, x_C[:, None], base)
        curve_C = np.asarray(result.law.predict(tokens_CxK))[:, 0]
        rows.append(
            {
                "budget": ddo.budget,
                "domain": name,
                "points": [
                    {
                        "tokens": run.spec.tokens[name],
                        "objective": objective(run.loss),
                        "seed": run.spec.seed,
                    }
                    for run in of_domain
                ],
                "curve": [
                    {"tokens": float(x), "objective": float(y)}
                    for x, y in zip(x_C, curve_C, strict=True)
                ],
                "formula": "objective / base = (N0 + N / base tokens)^-b + c",
                "params": {
                    "N0": float(result.fit.offset[k]),
                    "b": float(result.fit.exponent[k]),
                    "c": float(result.fit.constant[k]),
                },
                "ok": bool(result.fit.ok[k]),
                "decided": bool(result.fit.decided[k]),
                "note": "",
            }
        )
    return rows


def trajectory(method: AutoScale, table: RunTable) -> list[dict[str, Any]]:
    """The best mixture against the token scale, from the smallest budget to beyond the target, as
    far as the data go; of a single budget, which says nothing about other scales, there."""
    budgets, target = [ddo.budget for ddo in method.budgets], method.target_tokens
    between = np.geomspace(budgets[-1], target, 6)[1:-1].round().tolist()
    beyond = [total for total in (4 * target,) if method.feeds(total)]
    totals = sorted({*budgets, *between, target, *beyond} if len(budgets) > 1 else budgets)
    return [
        {
            "tokens": round(point.tokens),
            "weights": dict(point.weights),
            "low": dict(point.low),
            "high": dict(point.high),
            "kind": "measured optimum" if point.tokens <= budgets[-1] else "extrapolated",
        }
        for point in method.trajectory(table, totals)
    ]


def next_run(method: AutoScale, table: RunTable) -> dict[str, str] | None:
    """The run that would tell most, in words; None where the data feed no further run."""
    best = method.next_run(table)
    if best is None:
        return None
    reason = (
        f"of all changes of one domain and replicates of a base, it takes most off the expected "
        f"regret of the proposal per FLOP: {100 * best.regret:.3f}% of the objective for "
        f"{sum(best.tokens.values()):,.0f} tokens"
    )
    return {"label": best.label, "reason": reason}


def effects(ddo: DDO, runs: Sequence[Run]) -> dict[str, Any]:
    """Change of each evaluation domain's loss when one domain's tokens go up, paired by seed."""
    base = {run.spec.seed: run for run in runs if _is_base(ddo, run.spec)}
    evals = sorted({name for run in runs for name in run.loss})
    change = []
    for name in ddo.domains:
        most = max(spec.tokens[name] for spec in ddo.design())
        raised = [r for r in runs if r.spec.tokens[name] == most and r.spec.seed in base]
        pairs = [[r.loss[e] - base[r.spec.seed].loss[e] for e in evals] for r in raised]
        change.append(np.mean(pairs, 0).tolist() if pairs else [None] * len(evals))
    caption = (
        f"change of held-out loss (nats per token) when a domain's tokens are multiplied by "
        f"{ddo.factor:g} at {ddo.budget:,} tokens"
    )
    return {
        "domains": list(ddo.domains),
        "eval_domains": evals,
        "change": change,
        "caption": caption,
    }


def noise(ddos: Sequence[DDO], table: RunTable, objective: Objective) -> dict[str, Any]:
    """Spread of the objective over the base run's seeds at the largest budget that has several."""
    for ddo in reversed(ddos):
        values = np.array([objective(r.loss) for r in ddo.runs(table) if _is_base(ddo, r.spec)])
        if len(values) > 1:
            return {
                "objective_sd": float(values.std(ddof=1)),
                "relative_sd": float(np.log(values).std(ddof=1)),
                "paired_sd": None,
                "replicates": len(values),
            }
    return {}


def _is_base(ddo: DDO, spec: RunSpec) -> bool:
    return spec.tokens == ddo.design()[0].tokens
