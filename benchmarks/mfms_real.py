"""MFMS-BO against DDO + AutoScale at equal FLOPs, on real trainings.

    python benchmarks/mfms_real.py [--seeds=3] [--budget=4] [--target_tokens=300000]
        [--target_seeds=2] [--domains=NAME=GLOB,NAME=GLOB,...] [--folder=DIR] [--json=FILE]

Each of `seeds` studies spends the FLOPs of `budget` trainings of the target twice: MFMS-BO on
mixtures, model sizes and steps of its choice; DDO and the laws of "auto" on the 2m+1 runs of two
token budgets, one four times the other, of the target's model. Both proposals, uniform and natural
are then trained at the target with `target_seeds` seeds each, paired. All runs keep a constant
rate. Domains are those of the embedded corpus or of the files given. A `folder` keeps the runs: the
same command continues there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from autoscale_jax import verify
from autoscale_jax.config import default_config, validate
from autoscale_jax.data import Corpus, prepare
from autoscale_jax.pipeline import make_execute
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import RunSpec
from autoscale_jax.study import Study

METHODS = ("mfms_bo", "auto")
SIZES = {f"d{d}": {"num_layers": 1, "d_model": d, "num_heads": 4} for d in (16, 32)}
STEPS = (128, 384, 1152)
STEP_TOKENS = 4 * 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=4.0)
    parser.add_argument("--target_tokens", type=int, default=300_000)
    parser.add_argument("--target_seeds", type=int, default=2)
    parser.add_argument("--domains", default="")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        corpus = prepare(_config(args, 0, "mfms_bo", 5).data.to_dict(), folder / "corpus")
        studies = [_study(args, corpus, folder / f"seed{s}", s) for s in range(args.seeds)]
    result = _compare(studies)
    _print(result, studies)
    if args.json:
        args.json.write_text(json.dumps(result | {"studies": studies}, indent=1) + "\n")


def _config(args: argparse.Namespace, seed: int, method: str, domains: int) -> ConfigDict:
    """The quickstart's model and rows; `domains` decides the budgets of equal FLOPs."""
    config = default_config()
    config.seed = seed
    if args.domains:
        config.data.source = "files"
        config.data.domains = dict(pair.split("=", 1) for pair in args.domains.split(","))
    config.train.update({"schedule": "constant", "warmup_ratio": 0.0, "warmup_steps": 16})
    config.train.eval_every_tokens = 32 * STEP_TOKENS
    config.study.update({"method": method, "target_tokens": args.target_tokens})
    steps = [n for n in STEPS if n * STEP_TOKENS <= args.target_tokens]
    config.search.update({"steps": tuple(steps), "budget": args.budget, "sizes": SIZES})
    runs = config.study.base_seeds + 2 * domains + config.study.factor + 1 / config.study.factor - 2
    largest = args.budget * args.target_tokens / (1.25 * runs)
    config.study.budgets = (round(largest / 4), round(largest))
    config.execute.update({"slots": 2, "population": 1})
    validate(config)
    return config


def _study(args: argparse.Namespace, corpus: Corpus, folder: Path, seed: int) -> dict[str, Any]:
    """What both methods propose for the same FLOPs, and what the target makes of it."""
    found: dict[str, Any] = {"seed": seed, "weights": {}, "flops": {}, "runs": {}}
    for method in METHODS[::-1]:  # so that the last one's `execute` knows the target's size
        config = _config(args, seed, method, len(corpus.domains))
        (folder / method).mkdir(parents=True, exist_ok=True)
        with RunTable.open(folder / method / "runs.jsonl") as table:
            study = Study(config, corpus, table)
            study.check()
            execute = make_execute(config, corpus, folder / method, lambda spec, at: None)
            _train(study, execute, study.method.ask)
            found["weights"][method] = dict(study.propose().weights)
            found["flops"][method] = study.spent()
            found["runs"][method] = len(table)
            if method == "mfms_bo":
                found["objective"] = _verify(args, study, execute, found["weights"])
                execute.release()
    return found


def _train(study: Study, execute: Any, ask: Callable[[RunTable], Sequence[RunSpec]]) -> None:
    while specs := ask(study.table):
        for run in execute(specs):
            study.table.add(run)
            value = study.objective(run.loss) if run.status == "ok" else run.message
            print(f"seed {study.config.seed}, {run.spec.label}: {value}", flush=True)


def _verify(
    args: argparse.Namespace, study: Study, execute: Any, weights: dict[str, dict[str, float]]
) -> dict[str, dict[int, float]]:
    """Objective at the target by mixture and seed."""
    mixtures = {"uniform": study.uniform, "natural": study.natural, **weights}
    specs = {
        name: verify.specs({name: w}, args.target_tokens, args.target_seeds, study.target_size)
        for name, w in mixtures.items()
    }
    every = dict.fromkeys(spec for some in specs.values() for spec in some)
    _train(study, execute, lambda table: [spec for spec in every if table.find(spec) is None])
    return {
        name: {
            spec.seed: study.objective(run.loss)
            for spec in some
            if (run := study.table.find(spec)) is not None and run.status == "ok"
        }
        for name, some in specs.items()
    }


def _compare(studies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each method's gain over all other mixtures, paired over studies and seeds."""
    values: dict[str, dict[int, float]] = {}
    for found in studies:
        for name, by_seed in found["objective"].items():
            for seed, value in by_seed.items():
                values.setdefault(name, {})[found["seed"] * 10_000 + seed] = value
    gains = {method: verify.gains(values, method) for method in METHODS}
    return {
        "objective": {name: float(np.mean(list(v.values()))) for name, v in values.items()},
        "gain": {
            method: {name: dataclasses.asdict(gain) for name, gain in found.items()}
            for method, found in gains.items()
        },
    }


def _print(result: dict[str, Any], studies: Sequence[dict[str, Any]]) -> None:
    print("| mixture | mean objective | " + " | ".join(f"{m} against it" for m in METHODS) + " |")
    print("|---|---|" + "---|" * len(METHODS))
    for name, value in result["objective"].items():
        cells = [_gain(result["gain"][method].get(name)) for method in METHODS]
        print(f"| {name} | {value:.3f} | {' | '.join(cells)} |")
    print("| seed | method | runs | FLOPs | weights |")
    print("|---|---|---|---|---|")
    for found in studies:
        for method in METHODS:
            weights = ", ".join(f"{n} {w:.1%}" for n, w in found["weights"][method].items())
            runs, flops = found["runs"][method], found["flops"][method]
            print(f"| {found['seed']} | {method} | {runs} | {flops:.3g} | {weights} |")


def _gain(gain: dict[str, Any] | None) -> str:
    if gain is None:
        return ""
    span = "" if gain["low"] is None else f" [{gain['low']:+.1%}, {gain['high']:+.1%}]"
    return f"{gain['relative']:+.1%}{span}, lower in {gain['wins']} of {gain['pairs']}"


if __name__ == "__main__":
    main()
