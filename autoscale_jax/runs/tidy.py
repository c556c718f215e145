"""Runs in CSV files: one tidy table, a row a run. `olmix.py` holds the two-file layout."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

from autoscale_jax.runs.csvfile import Row, Tokens, read_rows, run_total, split_weights, write_rows
from autoscale_jax.specs import BadInput, Run, Status, split_tokens

FAMILIES = ("tokens_", "w_", "loss_", "ppl_", "realised_", "epochs_", "pool_")
PLAIN = ("run", "label", "seed", "status", "tokens", "flops", "seconds", "message", "stages")
SIZE = "size"  # told apart as other columns are, where `run` repeats; in files of several sizes
STATUSES = ("ok", "diverged", "failed")
ROUNDING = 0.01  # how far from 1 the sum of weights rounded to a few digits may be
SLACK = 0.025  # published tables hold mixtures that are further off; they are noted


def read_tidy(path: Path, tokens: Tokens = None) -> tuple[list[Run], tuple[str, ...]]:
    """Runs of a tidy CSV, and notes on rows and columns that were not taken as they are.

    Columns: `run`; the mixture as `tokens_<domain>`, or as `w_<domain>` (weights, renormalised)
    with `tokens` or the argument of that name, or neither: then `run` is `base` (uniform) or
    `<domain>:x<factor>`, e.g. `wiki:x1/3`, over the evaluation domains; the result as
    `loss_<domain>` (nats per token) or `ppl_<domain>` (its exponential). Optional: `label`, `seed`,
    `size` (the model's, by name), `pool_<domain>` (unique tokens that the run drew on; empty: all),
    `stages` (of a curriculum, as JSON: `[{"wiki": 100}, {"code": 50}]`), `status`,
    `realised_<domain>`, `epochs_<domain>`, `flops`, `seconds`, `message`. Another column (`step`,
    `model_size`) goes into the label as `step=1000`, and into the key where `run` repeats.
    A row without one of its losses is a failed run unless a column `status` says otherwise.
    Raises `BadInput` naming file, line, column and value.
    """
    header, rows = read_rows(path)
    if "run" not in header:
        raise BadInput(f"{path} line 1: no column run: add one that names the runs")
    families = {p: {c[len(p) :]: c for c in header if c.startswith(p)} for p in FAMILIES}
    for one, other in (("tokens_", "w_"), ("loss_", "ppl_")):
        if families[one] and families[other]:
            raise BadInput(f"{path} line 1: columns {one}... and {other}...: keep one kind")
    if not families["loss_"] and not families["ppl_"] and "status" not in header:
        raise BadInput(f"{path} line 1: no columns loss_<domain> or ppl_<domain>: add them")
    notes = _drop_average(path, rows, families["ppl_"])
    extras = [c for c in header if c not in PLAIN and not c.startswith(FAMILIES)]
    times = Counter(row.cells["run"] for row in rows)
    runs: list[Run] = []
    lines: dict[str, int] = {}
    for row in rows:
        name = row.cells["run"] or row.refuse("run", "give the run a name")
        full = " ".join([name, *(f"{c}={row.cells[c]}" for c in extras)])
        key = name if times[name] == 1 else full
        if key in lines:
            row.refuse("run", f"line {lines[key]} has the same: name each run once")
        lines[key] = row.line
        runs.append(_run(row, key, row.cells.get("label", full), families, tokens))
    return runs, (*notes, *_notes(path, rows, runs, families))


def _run(row: Row, key: str, label: str, families: dict, tokens: Tokens) -> Run:
    status = row.cells.get("status", "ok")
    if status not in STATUSES:
        row.refuse("status", f"write one of {', '.join(STATUSES)}")
    loss, message = _losses(row, families, status), row.cells.get("message", "")
    missing = [c for p in ("loss_", "ppl_") for name, c in families[p].items() if name not in loss]
    if missing and "status" not in row.cells:
        status, message = "failed", f"no {', '.join(missing)}"
    if status == "ok" and not loss:
        row.refuse("status", "the row has no losses: write failed")
    seed = row.count("seed") if row.cells.get("seed") else 0
    size = row.cells.get(SIZE, "")
    pool = {d: row.count(c) for d, c in families["pool_"].items() if row.cells[c]}
    return Run(
        spec=row.spec(_tokens(row, families, tokens), seed, label, size, pool, _stages(row)),
        key=key,
        status=cast(Status, status),
        loss=loss,
        realised={d: row.count(c) for d, c in families["realised_"].items() if row.cells[c]},
        epochs={d: row.number(c) for d, c in families["epochs_"].items() if row.cells[c]},
        flops=row.number("flops") if row.cells.get("flops") else 0.0,
        seconds=row.number("seconds") if row.cells.get("seconds") else 0.0,
        message=message,
    )


def _stages(row: Row) -> list[dict[str, int]]:
    """Tokens by domain of each stage of a curriculum; [] for a run of one mixture."""
    remedy = 'write [{"domain": tokens, ...}, ...], or leave it empty for a run of one mixture'
    try:
        stages = json.loads(row.cells.get("stages") or "[]")
    except json.JSONDecodeError:
        row.refuse("stages", remedy)
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        row.refuse("stages", remedy)
    return stages


def _losses(row: Row, families: dict[str, dict[str, str]], status: str) -> dict[str, float]:
    loss = {}
    for name, column in families["loss_"].items():
        if row.cells[column]:
            lost = status != "ok" and row.cells[column].lower() == "nan"
            loss[name] = math.nan if lost else row.number(column)
    for name, column in families["ppl_"].items():
        if row.cells[column]:
            x = row.number(column)
            loss[name] = math.log(x) if x >= 1 else row.refuse(column, "a perplexity is 1 or more")
    return loss


def _tokens(row: Row, families: dict[str, dict[str, str]], tokens: Tokens) -> dict[str, int]:
    if families["tokens_"]:
        if tokens is not None:
            raise BadInput(f"{row.path}: has columns tokens_...: leave out the argument tokens=")
        counts = {d: row.count(c) for d, c in families["tokens_"].items() if row.cells[c]}
        if row.cells.get("tokens") and row.count("tokens") != sum(counts.values()):
            row.refuse("tokens", f"tokens_... sum to {sum(counts.values())}: make them agree")
        return counts
    total = run_total(row, tokens)
    if families["w_"]:
        return split_weights(row, families["w_"], total, SLACK)
    return _perturbed(row, list(families["loss_"] or families["ppl_"]), total)


def _perturbed(row: Row, domains: list[str], total: int) -> dict[str, int]:
    """Uniform over `domains` (`base`), or with one domain's tokens times the factor in the name."""
    domain, _, factor = row.cells["run"].partition(":x")
    if domains and row.cells["run"] == "base":
        return split_tokens(dict.fromkeys(domains, 1 / len(domains)), total)
    scale = _fraction(factor)
    if domain in domains and scale is not None:
        counts = split_tokens(dict.fromkeys(domains, 1 / len(domains)), total)
        return {**counts, domain: round(counts[domain] * scale)}
    row.refuse(
        "run", "add columns tokens_<domain> or w_<domain>, or name it base or <domain>:x<factor>"
    )


def _fraction(text: str) -> Fraction | None:
    """3, 0.5 or 1/3; None for anything else."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _drop_average(path: Path, rows: list[Row], columns: dict[str, str]) -> list[str]:
    """Takes `average` out of the perplexity columns where it is just the mean of the others."""
    column = columns.get("average")
    others = [c for c in columns.values() if c != column]
    if column is None or not others or not rows:
        return []
    for row in rows:
        if not all(row.cells[c] for c in columns.values()):
            continue
        mean = math.fsum(row.number(c) for c in others) / len(others)
        if not math.isclose(row.number(column), mean, rel_tol=1e-3):
            return []
    del columns["average"]
    return [f"column {column} of {path.name} left out: it is the mean of the others"]


def _notes(path: Path, rows: list[Row], runs: list[Run], families: dict) -> list[str]:
    notes = []
    failed = [
        row.line
        for row, run in zip(rows, runs, strict=True)
        if run.status == "failed" and "status" not in row.cells
    ]
    if failed:
        notes.append(
            f"{len(failed)} rows of {path.name} lack a loss and count as failed runs: "
            f"{_lines(failed)}"
        )
    off = [
        row.line
        for row in rows
        if families["w_"]
        and abs(math.fsum(row.number(c) for c in families["w_"].values()) - 1) > ROUNDING
    ]
    if off:
        notes.append(
            f"weights of {len(off)} rows of {path.name} sum to over {ROUNDING:.0%} more or "
            f"less than 1 and were divided by their sum: {_lines(off)}"
        )
    return notes


def _lines(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"lines {', '.join(map(str, numbers[:5]))}{more}"


def write_tidy(runs: Sequence[Run], path: Path) -> None:
    """Writes every run, its key as `run`; an empty cell: not in this run.

    The stages of a curriculum are one cell of JSON. Curves and `data` are left out.
    """
    sizes = [SIZE] if any(run.spec.size for run in runs) else []
    stages = ["stages"] if any(run.spec.stages for run in runs) else []
    maps: dict[str, Callable[[Run], Mapping[str, float]]] = {
        "tokens_": lambda run: run.spec.tokens,
        "loss_": lambda run: run.loss,
        "realised_": lambda run: run.realised,
        "epochs_": lambda run: {d: x for d, x in run.epochs.items() if math.isfinite(x)},
        "pool_": lambda run: run.spec.pool,
    }
    names = {p: sorted({name for run in runs for name in of(run)}) for p, of in maps.items()}
    header = ["run", "label", "seed", "status", "message", "flops", "seconds", *sizes, *stages]
    rows = [
        [run.key, run.spec.label, run.spec.seed, run.status, run.message]
        + [x if math.isfinite(x) else "" for x in (run.flops, run.seconds)]
        + [run.spec.size for _ in sizes]
        + [json.dumps(run.spec.stages) if run.spec.stages else "" for _ in stages]
        + [of(run).get(name, "") for p, of in maps.items() for name in names[p]]
        for run in runs
    ]
    write_rows(path, header + [p + name for p in maps for name in names[p]], rows)
