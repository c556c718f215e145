"""Speed of one decision of MFMS-BO against BoTorch's, in one process, after warming up.

    python benchmarks/mfms_speed.py [--observations 500] [--threads 2] [--repeats 3] [--json FILE]

A decision refits the surrogate's hyperparameters and chooses mixture, size and steps: ours both
from new starts and, as most are, from the last parameters. BoTorch's (extra `peers`) are those of
its tutorials: a multi-fidelity GP with the knowledge gradient over cost, which is the same step,
and a plain GP with expected improvement over the same inputs, which is its quickest. Both sides see
the same simulated runs, in float64. Reads ../shared/data/mfms.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

METRIC = "c4"
FANTASIES = 8  # of the knowledge gradient; its default, 64, takes over 20 GiB here


class Seconds(NamedTuple):
    """Of a CPU and on the wall, the mean of a few decisions."""

    cpu: float
    wall: float


def timed(decide: Callable[[], Any], repeats: int) -> Seconds:
    began, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        decide()
    cpu = time.process_time() - began
    return Seconds(cpu / repeats, (time.perf_counter() - wall) / repeats)


def simulated(count: int) -> list[Any]:
    """Runs of random mixtures, sizes and steps, without curves and noise."""
    import dataclasses

    from mfms_study import simulator, space_of, stepped

    from autoscale_jax.methods.mixtures import draws
    from autoscale_jax.methods.space import Trial

    space, rng = stepped(space_of("whole")), np.random.default_rng(0)
    mixtures = draws(space, "dirichlet", 0)
    trials = [
        Trial(next(mixtures), int(rng.integers(len(space.sizes))), int(rng.choice(space.steps)))
        for _ in range(count)
    ]
    specs = [space.spec(trial) for trial in trials]
    return list(dataclasses.replace(simulator(), shares=())(specs))


def ours(runs: list[Any], repeats: int) -> dict[str, Seconds]:
    """Decisions of a search that was told these runs."""
    from mfms_study import BUDGET, mean_of, space_of, stepped

    from autoscale_jax.methods.mfms_design import Settings
    from autoscale_jax.methods.mfms_walk import Walk

    space = stepped(space_of("whole"))
    settings = Settings(space, mean_of(METRIC), BUDGET, 0, 1, "value", (), 0.0)
    walk = Walk(settings)
    walk.tell(runs)
    while len(walk.jobs) > 1:  # what is left of its first design
        walk.tell([])

    def anew() -> None:
        walk.surrogate = None
        goes_on()

    def goes_on() -> None:
        walk.tell([])
        assert len(walk.jobs) == 1

    anew()
    for _ in range(4):  # compiles: at the target and below it there are other numbers of options
        goes_on()
    return {"from new starts": timed(anew, repeats), "goes on": timed(goes_on, repeats)}


def botorch(runs: list[Any], repeats: int) -> dict[str, Seconds]:
    """Decisions from these runs, one candidate each."""
    import mfms_botorch
    from mfms_study import mean_of, space_of, stepped

    from autoscale_jax.methods.space import observations

    space = stepped(space_of("whole"))

    def gradient(runs: list[Any]) -> None:
        found = mfms_botorch.fitted(space, observations(runs, space, mean_of(METRIC)), 0)
        mfms_botorch.decide(space, found, 0, fixed_cost=0.01, count=1, fantasies=FANTASIES)

    def improvement(runs: list[Any]) -> None:
        observed = observations(runs, space, mean_of(METRIC))
        mfms_botorch.expected_improvement(space, observed, 0)

    improvement(runs[:20])  # nothing compiles, but the library is loaded
    return {
        "plain GP, expected improvement": timed(lambda: improvement(runs), repeats),
        "knowledge gradient": timed(lambda: gradient(runs), repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--observations", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # before either library is imported
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(args.threads > 1).lower()}"
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])

    from published import show

    runs = simulated(args.observations)
    mine, theirs = ours(runs, args.repeats), botorch(runs, args.repeats)
    rows: list[dict[str, Any]] = [
        {"decision": f"{who}: {how}", "CPU s": f"{s.cpu:.2f}", "wall s": f"{s.wall:.2f}"}
        | {f"times ours {other}, CPU": f"{s.cpu / t.cpu:.1f}" for other, t in mine.items()}
        for who, found in (("ours", mine), ("BoTorch", theirs))
        for how, s in found.items()
    ]
    show(f"One decision from {len(runs)} observations on {args.threads} threads", rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
