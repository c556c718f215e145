"""Weights with intervals from CSVs of runs: python -m autoscale_jax.fit RUNS.csv --tokens=10e9"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import get_args

from autoscale_jax.fit.objective import Objective
from autoscale_jax.fit.recommend import METHODS, recommend
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Proposal


def main(argv: list[str] | None = None) -> int:
    """Print the proposal; 2 and one line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m autoscale_jax.fit", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="tidy CSVs, e.g. one for each budget")
    parser.add_argument("--tokens", type=float, required=True, help="the target's tokens")
    parser.add_argument("--run-tokens", type=float, help="tokens of a run, where no column tells")
    parser.add_argument("--method", choices=METHODS, default="auto")
    parser.add_argument("--objective", choices=get_args(Objective), default="mean_perplexity")
    parser.add_argument("--lower", type=float, help="floor on every weight")
    parser.add_argument("--upper", type=float, help="cap on every weight")
    parser.add_argument("--noise", type=float, help="sd of one run's loss, nats")
    parser.add_argument("--json", type=Path, help="also write the proposal here")
    args = parser.parse_args(argv)
    try:
        table = RunTable()
        for number, path in enumerate(args.runs):
            for run in RunTable.from_csv(path, tokens=args.run_tokens):
                # Two files may both have a run called "base".
                table.add(dataclasses.replace(run, key=f"{number}/{run.key}"))
        proposal = recommend(
            table, args.tokens, method=args.method, objective=args.objective,
            lower=args.lower, upper=args.upper, noise=args.noise,
        )  # fmt: skip
    except (BadInput, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(proposal))
    if args.json:
        args.json.write_text(json.dumps(dataclasses.asdict(proposal), indent=1) + "\n")
    return 0


def describe(proposal: Proposal) -> str:
    """A proposal as text: weights with 90% intervals, objective, comparisons, laws, warnings."""
    lines = [f"{proposal.method}: weights for {proposal.tokens:,} tokens (90% intervals)"]
    width = max(map(len, proposal.weights))
    for name, weight in sorted(proposal.weights.items(), key=lambda item: -item[1]):
        low, high = proposal.low[name], proposal.high[name]
        lines.append(f"  {name:{width}}  {weight:6.3f}  [{low:.3f}, {high:.3f}]")
    middle, low, high = proposal.details["gain_percent"]
    lines.append(
        f"predicted {proposal.details['objective'].replace('_', ' ')}: "
        f"{proposal.predicted_objective:.4g} "
        f"[{proposal.predicted_low:.4g}, {proposal.predicted_high:.4g}]"
    )
    lines.append(f"gain over the reference: {middle:.2f}% [{low:.2f}, {high:.2f}]")
    for name, p in proposal.p_beats.items():
        lines.append(f"beats {name} with probability {p:.2f}")
    lines.append(f"laws, held out on {proposal.details['held_out']}:")
    for name, law in proposal.details["laws"].items():
        lines.append(f"  {name:34}  error {law['held_out_contrast']:.5f}  share {law['share']:.2f}")
    return "\n".join([*lines, *(f"note: {line}" for line in proposal.warnings)])


if __name__ == "__main__":
    sys.exit(main())
