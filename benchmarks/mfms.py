"""MFMS-BO on the simulator: methods x metrics x domains x seeds, then tables.

    python benchmarks/mfms.py [--methods random,hyperband] [--metrics c4,arxiv] [--domains whole]
        [--seeds 20] [--jobs 2] [--cache FOLDER] [--json FILE]

Reads ../shared/data/mfms beside the repository. Trajectories are kept in FOLDER, so a command that
was killed goes on; one whose method's settings or code have changed is computed again.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from mfms_scale import SURROGATES, transfer_table
from mfms_study import DATA, DOMAINS, METHODS, METRICS, SLOW, Task, Trajectory, compute, kept
from mfms_tables import AFTER, GAP_COST, Rows, Study
from published import show

from autoscale_jax.data.parallel import Workers

CACHE = Path("~/.cache/autoscale_jax/mfms").expanduser()
# One thread a worker: the workers share the cores.
SINGLE = {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def one(task: Task, cache: Path) -> Trajectory | str:
    """A trajectory, or what went wrong: one that fails does not stop the others."""
    try:
        return compute(task, cache)
    except Exception:
        return traceback.format_exc()


def trajectories(tasks: list[Task], cache: Path, jobs: int) -> tuple[dict[Task, Trajectory], int]:
    """All trajectories by task, kept ones read; and how many failed."""
    cache.mkdir(parents=True, exist_ok=True)
    results = {task: old for task in tasks if (old := kept(task, cache)) is not None}
    todo = [task for task in tasks if task not in results]
    if results:
        print(f"{len(results)} of {len(tasks)} trajectories kept in {cache}", file=sys.stderr)
    if not todo:
        return results, 0
    os.environ.update(SINGLE)
    began, shown, failed = time.monotonic(), 0.0, 0
    with Workers(jobs) as workers:
        done = workers.run(functools.partial(one, cache=cache), todo)
        for count, (i, found) in enumerate(done, 1):
            if isinstance(found, str):
                failed += 1
                print(f"\n{todo[i]} failed:\n{found}", file=sys.stderr)
            else:
                results[todo[i]] = found
            spent = time.monotonic() - began
            if spent > shown + 1 or count == len(todo):
                shown, left = spent, spent / count * (len(todo) - count)
                line = f"{count}/{len(todo)}, {count / spent:.2f} a second, {left:.0f} s left"
                print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    ordered = {task: results[task] for task in tasks if task in results}
    return ordered, failed


def tables(study: Study) -> dict[str, Rows]:
    """Every table by its title."""
    found: dict[str, Rows] = {}
    for domain in study.domains:
        found[f"{domain}: true values"] = study.levels(domain)
        for n in AFTER:
            found[f"{domain}: speed-up over {n} random full runs"] = study.speedups(domain, n)
        for n in AFTER:
            title = f"{domain}: how much faster the row is than the column (worst metric), n = {n}"
            found[title] = study.against(domain, n)
        found[f"{domain}: 1,000 x regret at costs in units, median (10%-90%)"] = study.regrets(
            domain
        )
        title = f"{domain}: share of seeds with half the corner-to-optimum gap closed by {GAP_COST}"
        found[title] = study.gaps(domain)
    return found


def chosen(text: str | None, known: Any, what: str, slow: tuple[str, ...] = ()) -> list[str]:
    """The names of a list; without one all but the slow ones."""
    names = [name for name in known if name not in slow] if text is None else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--{what} {unknown[0]}: use some of {', '.join(known)}")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", help=f"of {', '.join(METHODS)}; default all but {SLOW[0]}")
    parser.add_argument("--metrics", help=f"of {', '.join(METRICS)}; default all")
    parser.add_argument("--domains", help=f"of {', '.join(DOMAINS)}; default both")
    parser.add_argument("--surrogates", help=f"of {', '.join(SURROGATES)}: Figure 3; default all")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"{DATA} is not there: the simulator's files are needed")
    tasks = [
        Task(method, metric, domain, seed)
        for seed in range(args.seeds)
        for domain in chosen(args.domains, DOMAINS, "domains")
        for metric in chosen(args.metrics, METRICS, "metrics")
        for method in chosen(args.methods, METHODS, "methods", SLOW)
    ]
    surrogates = chosen(args.surrogates, [*SURROGATES, "none"], "surrogates")
    results, failed = trajectories(tasks, args.cache, args.jobs)
    study = Study(results)
    found = tables(study)
    metrics = list(dict.fromkeys(task.metric for task in tasks))
    for name in surrogates:
        if name != "none":
            title = f"Figure 3: R2 at the large size, {name}, mean (least-most of 3 seeds)"
            found[title] = transfer_table(SURROGATES[name], metrics)
    for title, rows in found.items():
        show(title, rows)
    if args.json:
        about: dict[str, Any] = {"seeds": args.seeds, "failed": failed, "tables": found}
        about["curves"] = study.curves()
        args.json.write_text(json.dumps(about, indent=1) + "\n")
    if failed:
        raise SystemExit(f"{failed} trajectories failed: their errors are above")


if __name__ == "__main__":
    main()
