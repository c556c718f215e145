"""Weights with intervals from CSVs of runs: python -m autoscale_jax.fit RUNS.csv --tokens=10e9"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from autoscale_jax.fit import plots
from autoscale_jax.fit.law import losses
from autoscale_jax.fit.next_run import NextRun, next_run
from autoscale_jax.fit.objective import Objective
from autoscale_jax.fit.recommend import RULES, recommend
from autoscale_jax.fit.repetition import effective_runs
from autoscale_jax.fit.selection import LAWS, arrays_of, select
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Proposal

NAMED = "NAME=NUMBER,..."
SHOWN = 5  # names of runs that a note lists


def main(argv: list[str] | None = None) -> int:
    """Print the proposal; 2 and one line on bad input."""
    args = parser().parse_args(argv)
    try:
        answer(args)
    except (BadInput, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """What can be asked; maps and bounds stay text, `answer` reads them."""
    ask = argparse.ArgumentParser(prog="python -m autoscale_jax.fit", description=__doc__)
    ask.add_argument("runs", nargs="+", type=Path, help="tidy CSVs, e.g. one for each budget")
    ask.add_argument("--tokens", type=float, required=True, help="the target's tokens")
    ask.add_argument("--run-tokens", type=float, help="tokens of a run, where no column tells")
    ask.add_argument("--size", metavar="NAME", help="only runs whose column size is NAME")
    ask.add_argument("--method", choices=(*RULES, *LAWS), default="auto")
    ask.add_argument("--objective", choices=get_args(Objective), default="mean_perplexity")
    ask.add_argument("--eval-weights", metavar=NAMED, help="of the evaluation domains")
    bound = f"NUMBER or {NAMED}"
    ask.add_argument("--lower", metavar=bound, help="floors on the weights")
    ask.add_argument("--upper", metavar=bound, help="caps on the weights")
    ask.add_argument("--unique", metavar=NAMED, help="unique tokens there are of a domain")
    ask.add_argument("--max-epochs", type=float, help="most epochs over unique tokens (4)")
    ask.add_argument(
        "--natural", metavar=NAMED, help="natural proportions (else in proportion to --unique)"
    )
    ask.add_argument(
        "--reference", metavar=f"uniform, natural or {NAMED}", help="the mixture to beat (uniform)"
    )
    ask.add_argument("--noise", type=float, help="sd of one run's loss, nats")
    ask.add_argument("--samples", type=int, help="resampled fits of each law (100)")
    ask.add_argument("--seed", type=int, help="of the resampling (0)")
    ask.add_argument("--next", type=int, metavar="N", default=0, help="also the N runs worth most")
    ask.add_argument("--json", type=Path, metavar="FILE", help="also write the proposal here")
    ask.add_argument("--plot", type=Path, metavar="FILE", help="also draw it: .png, .svg or .pdf")
    return ask


def answer(args: argparse.Namespace) -> None:
    """Read, propose, print, write. Raises `BadInput` before anything is computed, where it can."""
    check_files(args)
    judged = {
        "objective": args.objective,
        "eval_weights": named("--eval-weights", args.eval_weights),
        "noise": args.noise,
    }
    question = {
        **judged,
        "lower": bound_of("--lower", args.lower),
        "upper": bound_of("--upper", args.upper),
        **given({"samples": args.samples, "seed": args.seed}),
    }
    unique, natural = named("--unique", args.unique), named("--natural", args.natural)
    limits = given({"unique": unique, "max_epochs": args.max_epochs})
    reference = args.reference
    if reference is not None and "=" in reference:
        reference = named("--reference", reference)
    table = of_size(RunTable.from_csvs(args.runs, tokens=args.run_tokens), args.size)
    arrays = arrays_of(table)
    for line in notes_of(table):
        print(f"note: {line}")
    if unique and natural is None:
        natural = natural_of(unique, arrays.domains)
    proposal = recommend(
        table, args.tokens, method=args.method, natural=natural, **question, **limits,
        **given({"reference": reference}),
    )  # fmt: skip
    print(describe(proposal))
    worth_most: list[NextRun] = []
    if args.next:
        worth_most = next_run(table, args.tokens, **question, **limits)[: args.next]
        print(describe_next(worth_most))
    if args.json:
        args.json.write_text(json.dumps(dataclasses.asdict(proposal), indent=1) + "\n")
    if args.plot:
        chosen = select(table, laws=tuple(proposal.details["laws"]), **judged)
        predicted_RxE = losses(chosen.law, effective_runs(arrays))
        plots.save(args.plot, proposal, arrays, predicted_RxE, worth_most)


def check_files(args: argparse.Namespace) -> None:
    """Refuse places and numbers that would only fail once everything is computed."""
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path is not None and not path.parent.is_dir():
            raise BadInput(f"{option} = {path}: no folder {path.parent}: create it first")
        if path is not None and path.is_dir():
            raise BadInput(f"{option} = {path}: is a folder: give the name of a file in it")
    if args.plot is not None:
        plots.check_format(args.plot)
    if args.next < 0:
        raise BadInput(f"--next = {args.next}: give how many runs to list, 0 or more")


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given: the others keep the defaults of what they are passed to."""
    return {name: value for name, value in options.items() if value is not None}


def named(option: str, text: str | None) -> dict[str, float] | None:
    """Numbers by name from NAME=NUMBER,..."""
    if text is None:
        return None
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.rpartition("="))
        try:
            value = float(number)
        except ValueError:
            name = ""
        if not name:
            raise BadInput(f"{option} = {text!r}: {part!r} is not NAME=NUMBER: write {NAMED}")
        if name in found:
            raise BadInput(f"{option} = {text!r}: {name!r} is there twice: name it once")
        found[name] = value
    return found


def bound_of(option: str, text: str | None) -> float | dict[str, float] | None:
    """One number for all domains, or numbers by name."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return named(option, text)


def natural_of(unique: dict[str, float], domains: tuple[str, ...]) -> dict[str, float] | None:
    """Weights in proportion to unique tokens; None, with a note, where a domain's are unknown."""
    unknown = [name for name in domains if name not in unique]
    if unknown:
        names = ", ".join(unknown)
        print(f"note: no --unique of {names}: natural proportions are not compared")
        return None
    total = sum(unique.values())
    return {name: n / total for name, n in unique.items()} if total > 0 else None


def of_size(table: RunTable, size: str | None) -> RunTable:
    """The runs of one model size; the table itself where none is asked for."""
    if size is None:
        return table
    kept = RunTable(run for run in table if run.spec.size == size)
    if not len(kept):
        sizes = sorted({run.spec.size for run in table} - {""})
        there = f"there are {', '.join(sizes)}" if sizes else "no column size names any"
        raise BadInput(f"--size = {size!r}: no runs of that size; {there}")
    kept.notes = table.notes
    return kept


def notes_of(table: RunTable) -> list[str]:
    """The table's notes, and which runs are left out because they did not end well."""
    left_out = [run.spec.label or run.key for run in table if run.status != "ok"]
    if not left_out:
        return list(table.notes)
    more = f" and {len(left_out) - SHOWN} more" if len(left_out) > SHOWN else ""
    names = f"{', '.join(left_out[:SHOWN])}{more}"
    runs = "1 run is" if len(left_out) == 1 else f"{len(left_out)} runs are"
    return [*table.notes, f"{runs} marked diverged or failed and left out: {names}"]


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
    lines.append("predicted losses, nats per token:")
    width = max(map(len, proposal.details["losses"]))
    for name, (middle, low, high) in proposal.details["losses"].items():
        lines.append(f"  {name:{width}}  {middle:.4f}  [{low:.4f}, {high:.4f}]")
    for name, p in proposal.p_beats.items():
        lines.append(f"beats {name} with probability {p:.2f}")
    lines.append(f"laws, held out on {proposal.details['held_out']}:")
    for name, law in proposal.details["laws"].items():
        priors = f"  its priors decide, too: {', '.join(law['undecided'])}" * bool(law["undecided"])
        error, share = law["held_out_contrast"], law["share"]
        lines.append(f"  {name:34}  error {error:.5f}  share {share:.2f}{priors}")
    return "\n".join([*lines, *(f"note: {line}" for line in proposal.warnings)])


def describe_next(runs: Sequence[NextRun]) -> str:
    """The runs worth most as text: what each takes off the expected regret, and its tokens."""
    lines = ["runs worth most for their cost:"]
    width = max((len(run.label) for run in runs), default=0)
    for run in runs:
        gained = f"takes {1e4 * run.regret:.3f}e-4 off the expected regret"
        lines.append(f"  {run.label:{width}}  {gained} with {sum(run.tokens.values()):,.0f} tokens")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
