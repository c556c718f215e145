"""Does `fit.next_run` name runs that lower the proposal's regret more than runs drawn by chance?

    python benchmarks/next_run.py [--worlds 24] [--json FILE]

Known worlds of every kind of the tests, a whole DDO design with one base run a budget, noise of .02
nats; then as many more runs as a fifth of the design's tokens pay for, each named by
`fit.next_run`, drawn from its candidates, or a base run again. Regret: log objective of the
proposal at the target above the best mixture's, by the true law. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from fit_worlds import KINDS, World, ddo_tokens, noisy_runs

from autoscale_jax import fit
from autoscale_jax.specs import RunArrays

K, BUDGETS, TARGET, SD = 3, (1e5, 4e5), 1.6e6, 0.02
SHARE = 0.2  # of the design's tokens, for further runs
Choose = Callable[[Sequence[fit.NextRun], np.random.Generator], fit.NextRun]
WAYS: dict[str, Choose] = {
    "named": lambda found, rng: found[0],
    "by chance": lambda found, rng: found[rng.integers(len(found))],
    "base again": lambda found, rng: max(
        (run for run in found if run.label.startswith("base")), key=lambda run: run.flops
    ),
}


def regret(world: World, runs: RunArrays) -> float:
    """Of the proposal, and nothing else: no shrinking, which hides what was learnt."""
    unshrunk = fit.recommend(runs, TARGET, noise=SD, samples=60).details["unshrunk"]
    value = world.objective(np.array(list(unshrunk.values())), TARGET)
    return float(np.log(value / world.objective(world.optimum(TARGET), TARGET)))


def with_run(world: World, runs: RunArrays, run: fit.NextRun, seed: int) -> RunArrays:
    """The runs and one more, done."""
    tokens_1xK = np.array([list(run.tokens.values())])
    new = noisy_runs(world, tokens_1xK, SD, np.random.default_rng(seed))
    return dataclasses.replace(
        runs,
        tokens_RxK=np.vstack([runs.tokens_RxK, tokens_1xK]),
        loss_RxE=np.vstack([runs.loss_RxE, new.loss_RxE]),
        names_R=(*runs.names_R, f"extra {len(runs.names_R)}"),
        seed_R=np.append(runs.seed_R, len(runs.seed_R)),
    )


def follow(world: World, runs: RunArrays, choose: Choose, seed: int) -> float:
    """Regret after the further runs."""
    rng, left = np.random.default_rng(seed), SHARE * runs.tokens_RxK.sum()
    while True:
        found = fit.next_run(runs, TARGET, noise=SD, samples=60)
        affordable = [run for run in found if run.flops <= left]
        if not affordable:
            return regret(world, runs)
        run = choose(affordable, rng)
        noise = 1000 * seed + len(runs.names_R)
        runs, left = with_run(world, runs, run, noise), left - run.flops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=24)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kinds, rows = list(KINDS), []
    for seed in range(args.worlds):
        rng = np.random.default_rng(4000 + seed)
        kind = kinds[seed % len(kinds)]
        world = KINDS[kind](rng, K)
        runs = noisy_runs(world, ddo_tokens(K, BUDGETS, 1), SD, rng)
        row = {"kind": kind, "before": regret(world, runs)}
        row |= {name: follow(world, runs, choose, seed) for name, choose in WAYS.items()}
        rows.append(row)
        shown = "  ".join(f"{name} {1e3 * row[name]:7.3f}" for name in ("before", *WAYS))
        print(f"{seed:3} {kind:14} {shown}", flush=True)
    table = {name: np.array([row[name] for row in rows]) for name in ("before", *WAYS)}
    for name, values in table.items():
        gain = table["by chance"] - values
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        print(
            f"{name:12} regret {1e3 * values.mean():.3f}e-3, below chance by "
            f"{1e3 * gain.mean():+.3f} +- {1e3 * error:.3f}e-3, in {(gain > 0).sum()}/{len(gain)}"
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
