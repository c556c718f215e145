"""Tables of the study: speed-ups, regret against cost, and how far from a corner to the optimum."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mfms_study import (
    DOMAINS,
    FULL,
    METRICS,
    TUNING,
    Task,
    Trajectory,
    columns_of,
    sampler,
    simulator,
    space_of,
    truth,
)

from autoscale_jax.methods.mixtures import draws, vertices

AFTER = (20, 40, 80)  # full runs of random search that a level is named after
COSTS = (100, 200, 400, 800, 1600, 2600)  # units at which regret is shown
REFERENCE_SEEDS = 1000
GAP_COST = 2600
Results = Mapping[Task, Trajectory]
Rows = list[dict[str, Any]]


class Reached(NamedTuple):
    """The cost (units, the final full run included) at which a level is reached for good.

    Where it is not, `cost` is where the search ended, and `short` its last regret over the level's.
    """

    cost: float
    reached: bool
    short: float = 1.0


@functools.cache
def random_values(domain: str, seeds: int = REFERENCE_SEEDS, runs: int = max(AFTER)) -> np.ndarray:
    """True metrics at the target, [seeds, runs, M], of random's mixtures: `RandomSearch`'s."""
    space = space_of(domain)
    weights = [
        list(itertools.islice(draws(space, sampler(space), seed), runs)) for seed in range(seeds)
    ]
    weights_QxK = np.array(weights).reshape(-1, len(space.domains))
    value_QxM = simulator().predict(weights_QxK, space.target.name, space.target_steps)
    return value_QxM.reshape(seeds, runs, -1)


def level(metric: str, domain: str, n: int) -> float:
    """Random's mean best true value after n full runs."""
    return float(columns_of(metric)(random_values(domain))[:, :n].min(1).mean())


@functools.cache
def optimum(metric: str, domain: str) -> float:
    return simulator().optimum(space_of(domain), columns_of(metric))[1]


@functools.cache
def best_corner(metric: str, domain: str) -> float:
    return float(truth(Task("", metric, domain, 0), vertices(space_of(domain))).min())


def values_at(found: Sequence[Trajectory], units_U: np.ndarray) -> np.ndarray:
    """Each trajectory's value at each cost, [seeds, U]: infinite before its first run ended."""
    rows = []
    for one in found:
        index_U = np.searchsorted(one.units, units_U * (1 + 1e-9), side="right") - 1
        rows.append(np.where(index_U < 0, np.inf, np.array(one.value)[np.maximum(index_U, 0)]))
    return np.array(rows)


def reach(found: Sequence[Trajectory], wanted: float, best: float) -> Reached:
    """Where the mean over seeds comes to stay at or below a value; `best` is the optimum's."""
    units_U = np.unique(np.concatenate([one.units for one in found]))
    mean_U = values_at(found, units_U).mean(0)
    above_U = np.flatnonzero(mean_U > wanted)
    if not len(above_U):
        return Reached(units_U[0] + FULL, True)
    if above_U[-1] == len(units_U) - 1:
        return Reached(units_U[-1] + FULL, False, (mean_U[-1] - best) / (wanted - best))
    return Reached(units_U[above_U[-1] + 1] + FULL, True)


class Study:
    """Trajectories by method, metric and domain, and where each method reaches random's levels."""

    def __init__(self, results: Results) -> None:
        self._found: dict[tuple[str, str, str], list[Trajectory]] = {}
        for task in sorted(results, key=lambda task: task.seed):
            self._found.setdefault(task[:3], []).append(results[task])
        self.methods = list(dict.fromkeys(task.method for task in results))
        self.metrics = [m for m in METRICS if any(task.metric == m for task in results)]
        self.domains = [d for d in DOMAINS if any(task.domain == d for task in results)]
        self._reached: dict[tuple[str, str, str, int], Reached] = {}

    def found(self, method: str, metric: str, domain: str) -> list[Trajectory]:
        return self._found.get((method, metric, domain), [])

    def reached(self, method: str, metric: str, domain: str, n: int) -> Reached:
        at = (method, metric, domain, n)
        if at not in self._reached:
            wanted, best = level(metric, domain, n), optimum(metric, domain)
            self._reached[at] = reach(self.found(method, metric, domain), wanted, best)
        return self._reached[at]

    def groups(self) -> dict[str, list[str]]:
        """Metrics to average over; the mean of the losses is apart."""
        single = [m for m in self.metrics if m != "mean_loss"]
        groups = {
            "all": single,
            "tuning": [m for m in single if m in TUNING],
            "held out": [m for m in single if m not in TUNING],
        }
        return {name: metrics for name, metrics in groups.items() if metrics}

    def speedups(self, domain: str, n: int) -> Rows:
        """195 n / cost to reach random's mean best after n full runs; the final run is charged.

        "-(1.3)": never, and at its end 1.3 times the regret of the level. A mean with "<" counts
        such a metric as if it were reached where the search ended.
        """
        rows: Rows = []
        for method in self.methods:
            row: dict[str, Any] = {"method": method}
            one = {m: self.reached(method, m, domain, n) for m in self.metrics}
            for name, metrics in self.groups().items():
                row[name] = mean_ratio([(FULL * n, True)] * len(metrics), [one[m] for m in metrics])
            if single := self.groups().get("all"):
                worst = min(single, key=lambda m: (one[m].reached, FULL * n / one[m].cost))
                row["worst"] = ratio_text(n, one[worst])
            rows.append(row | {m: ratio_text(n, one[m]) for m in self.metrics})
        return rows

    def against(self, domain: str, n: int) -> Rows:
        """Ratio of costs to reach the level: how much faster the row is than the column.

        The geometric mean and the worst over the single metrics.
        """
        rows: Rows = []
        metrics = self.groups().get("all", self.metrics)
        for method in self.methods:
            row: dict[str, Any] = {"method": method}
            ours = [self.reached(method, m, domain, n) for m in metrics]
            for other in self.methods:
                theirs = [self.reached(other, m, domain, n) for m in metrics]
                worst = min(t.cost / o.cost for t, o in zip(theirs, ours, strict=True))
                row[other] = f"{mean_ratio(theirs, ours)} ({worst:.2g})"
            rows.append(row)
        return rows

    def regrets(self, domain: str) -> Rows:
        """Median (10% to 90% of seeds) of 1,000 x (true value - optimum) at fixed costs."""
        rows: Rows = []
        for metric, method in itertools.product(self.metrics, self.methods):
            row: dict[str, Any] = {"metric": metric, "method": method}
            values = values_at(self.found(method, metric, domain), np.array(COSTS, float))
            regret_SxU = 1e3 * (values - optimum(metric, domain))
            for cost, regret_S in zip(COSTS, regret_SxU.T, strict=True):
                if np.isfinite(regret_S).all():
                    low, middle, high = np.percentile(regret_S, [10, 50, 90])
                    row[str(cost)] = f"{middle:.2f} ({low:.2f}-{high:.2f})"
                else:
                    row[str(cost)] = "-"
            rows.append(row)
        return rows

    def curves(self) -> Rows:
        """Mean, median, 10% and 90% of the true value over seeds, at 60 costs from 1 unit on.

        `end` is the cost at which the longest search ended; behind it nothing changes.
        """
        units_U = np.geomspace(1, max(AFTER) * FULL, 60)
        rows: Rows = []
        for (method, metric, domain), found in self._found.items():
            value_SxU = values_at(found, units_U)
            seen_U = np.isfinite(value_SxU).all(0)
            value_SxU = value_SxU[:, seen_U]
            low_U, middle_U, high_U = np.percentile(value_SxU, [10, 50, 90], axis=0)
            row: dict[str, Any] = {"method": method, "metric": metric, "domain": domain}
            row |= {"units": units_U[seen_U].tolist(), "mean": value_SxU.mean(0).tolist()}
            row |= {"optimum": optimum(metric, domain), "end": max(one.units[-1] for one in found)}
            row |= {"low": low_U.tolist(), "median": middle_U.tolist(), "high": high_U.tolist()}
            rows.append(row)
        return rows

    def gaps(self, domain: str) -> Rows:
        """Share of seeds that close half the gap from the best corner to the optimum in time.

        Of the metrics whose optimum is at no corner (gap above 1e-4).
        """
        rows: Rows = []
        for method in self.methods:
            row: dict[str, Any] = {"method": method}
            for metric in self.metrics:
                best, corner = optimum(metric, domain), best_corner(metric, domain)
                if corner - best > 1e-4:
                    found = self.found(method, metric, domain)
                    value_S = values_at(found, np.array([GAP_COST], float))[:, 0]
                    row[metric] = f"{np.mean(value_S <= (best + corner) / 2):.2f}"
            rows.append(row)
        return rows

    def levels(self, domain: str) -> Rows:
        """Random's mean best, the best corner and the optimum."""
        return [
            {"metric": m}
            | {f"random {n}": f"{level(m, domain, n):.5f}" for n in AFTER}
            | {"corner": f"{best_corner(m, domain):.5f}", "optimum": f"{optimum(m, domain):.5f}"}
            for m in self.metrics
        ]


def mean_ratio(above: Sequence[Any], below: Sequence[Any]) -> str:
    """Geometric mean of costs over costs; pairs (cost, reached, ...). Bounds where one is not."""
    ratio = math.exp(np.mean([math.log(a[0] / b[0]) for a, b in zip(above, below, strict=True)]))
    more, less = not all(a[1] for a in above), not all(b[1] for b in below)
    mark = "~" if more and less else ">" if more else "<" if less else ""
    return f"{mark}{ratio:.3g}"


def ratio_text(n: int, one: Reached) -> str:
    return f"{FULL * n / one.cost:.1f}" if one.reached else f"-({one.short:.1f})"
