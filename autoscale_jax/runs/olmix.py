"""Runs in Olmix's layout: `ratios.csv` and `metrics.csv`, joined on the column `run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoscale_jax.runs.csvfile import Row, Tokens, read_rows, run_total, split_weights, write_rows
from autoscale_jax.runs.tidy import ROUNDING
from autoscale_jax.specs import BadInput, Run, RunArrays

# Olmix takes every other column of ratios.csv for a domain, and of metrics.csv for a metric.
IDS = ("run", "run_id", "name", "index")
OURS = ("tokens", "seed", "size")


def read(ratios: Path, metrics: Path, tokens: Tokens = None) -> list[Run]:
    """Runs of the two files: domains are the columns of `ratios`, losses those of `metrics`.

    The key is `run` (or `run_id`), the label `name`; `index` is not used. Columns `tokens`, `seed`
    and `size`, in either file, tell a run's training tokens, seed and model size; without one,
    `tokens` is the argument, the seed 0 and the size "". Ratios are divided by their sum. Raises
    `BadInput` naming file, line, column and value, and the runs that only one of the files has.
    """
    ratio_rows, metric_rows = _by_run(ratios), _by_run(metrics)
    for one, other, path, there in (
        (ratio_rows, metric_rows, metrics, ratios),
        (metric_rows, ratio_rows, ratios, metrics),
    ):
        lost = [key for key in one if key not in other]
        if lost:
            more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
            raise BadInput(
                f"{path}: no row of run {', '.join(lost[:5])}{more}, which {there} has: "
                "add the rows or take them out of both"
            )
    return [_run(ratio_rows[key], metric_rows[key], key, tokens) for key in ratio_rows]


def write(runs: Sequence[Run], arrays: RunArrays, folder: Path) -> None:
    """Writes the two files into `folder`. arrays: those of `runs`.

    `tokens`, `seed` and, where there is one, `size` go into `metrics.csv`, since Olmix takes any
    column of `ratios.csv` for a domain. A domain that a run does not name gets ratio 0, and comes
    back with 0 tokens.
    """
    for name in (*arrays.domains, *arrays.eval_domains):
        if name in IDS or name in OURS or not name:
            raise BadInput(
                f"domain {name!r}: this name has another meaning in Olmix's files: rename it"
            )
    ids = [[run.key, run.spec.label, i] for i, run in enumerate(runs)]
    weights = [
        [n / run.spec.total for n in tokens_K]
        for run, tokens_K in zip(runs, arrays.tokens_RxK.tolist(), strict=True)
    ]
    several = any(run.spec.size for run in runs)
    ours = OURS if several else OURS[:2]
    own = [[run.spec.total, run.spec.seed, run.spec.size][: len(ours)] for run in runs]
    write_rows(
        folder / "ratios.csv",
        ["run", "name", "index", *arrays.domains],
        [a + b for a, b in zip(ids, weights, strict=True)],
    )
    write_rows(
        folder / "metrics.csv",
        ["run", "name", "index", *arrays.eval_domains, *ours],
        [a + b + c for a, b, c in zip(ids, arrays.loss_RxE.tolist(), own, strict=True)],
    )


def _by_run(path: Path) -> dict[str, Row]:
    header, rows = read_rows(path)
    column = next((c for c in ("run", "run_id") if c in header), None)
    if column is None:
        raise BadInput(f"{path} line 1: no column run: add one that names the runs")
    if not _data(header):
        raise BadInput(f"{path} line 1: no columns but {', '.join(header)}: add one per domain")
    found: dict[str, Row] = {}
    for row in rows:
        key = row.cells[column] or row.refuse(column, "give the run a name")
        if key in found:
            row.refuse(column, f"line {found[key].line} has the same: name each run once")
        found[key] = row
    return found


def _data(columns: Sequence[str]) -> list[str]:
    return [c for c in columns if c not in IDS and c not in OURS]


def _run(ratios: Row, metrics: Row, key: str, tokens: Tokens) -> Run:
    total_row = metrics if "tokens" in metrics.cells else ratios
    seed_row = metrics if "seed" in metrics.cells else ratios
    domains = _data(list(ratios.cells))
    counts = split_weights(ratios, {d: d for d in domains}, run_total(total_row, tokens), ROUNDING)
    label = ratios.cells.get("name") or metrics.cells.get("name") or ""
    seed = seed_row.count("seed") if "seed" in seed_row.cells else 0
    size = metrics.cells.get("size") or ratios.cells.get("size") or ""
    return Run(
        spec=ratios.spec(counts, seed, label, size, {}),
        key=key,
        status="ok",
        loss={name: metrics.number(name) for name in _data(list(metrics.cells))},
        realised={},
        epochs={},
    )
