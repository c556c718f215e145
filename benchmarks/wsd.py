"""What warm-up-stable-decay saves DDO, and whether the optimum moves.

    python benchmarks/wsd.py [--budgets=80000,320000] [--seed=0] [--decay_ratio=0.2] [--json=FILE]

The DDO runs of the quickstart are trained twice with the same seeds: with linear decay, each from
its start, and with "wsd", where a run at a larger budget continues from its twin at the smaller one
(warm-up: a tenth of the steps of the smallest base run). Tokens are those that were trained on, CPU
seconds include compilation. Effects are log objective (changed run) - log objective (base run, mean
of its seeds). Two weights are told apart when their difference is outside its 90% interval, the
root of the sum of squares of both half-widths.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from autoscale_jax.config import default_config, validate
from autoscale_jax.data import Corpus, prepare
from autoscale_jax.pipeline import make_execute
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Proposal, Run
from autoscale_jax.study import Study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", default="80000,320000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decay_ratio", type=float, default=0.2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    studies, result = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for schedule in ("linear", "wsd"):
            config = _config(args, schedule)
            corpus = prepare(config.data.to_dict(), Path(folder) / "corpus")
            studies[schedule], cost = _train(config, corpus, Path(folder) / schedule)
            proposal = studies[schedule].propose()
            result[schedule] = cost | _said(proposal)
    result["budgets"] = _compare(studies["linear"], studies["wsd"])
    result["apart"] = _apart(result["linear"], result["wsd"])
    _print(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _config(args: argparse.Namespace, schedule: str) -> ConfigDict:
    config = default_config()
    config.seed = args.seed
    config.study.budgets = tuple(int(n) for n in args.budgets.split(","))
    config.execute.update({"slots": 2, "population": 1})
    if schedule == "wsd":
        steps = config.study.budgets[0] // (config.train.batch_size * config.model.seq_len)
        config.train.update({"warmup_ratio": 0.0, "warmup_steps": steps // 10})
        config.train.update({"schedule": schedule, "decay_ratio": args.decay_ratio})
    validate(config)
    return config


def _train(config: ConfigDict, corpus: Corpus, folder: Path) -> tuple[Study, dict[str, float]]:
    """A study whose ledger holds its proxies, and what they cost."""
    study, trained, began = Study(config, corpus, RunTable([])), [], time.process_time()
    execute = make_execute(
        config, corpus, folder, lambda spec, at: trained.append(at.tokens_per_second * at.seconds)
    )
    for run in execute(study.method.ask(study.table)):
        print(f"{config.train.schedule} {run.spec.label}: {study.objective(run.loss):.2f}")
        study.table.add(run)
    cpu = time.process_time() - began
    asked = sum(sum(run.realised.values()) for run in study.table)
    return study, {"asked": asked, "trained": round(sum(trained)), "cpu_seconds": cpu}


def _said(proposal: Proposal) -> dict[str, Any]:
    names = ("weights", "low", "high")
    return {name: dict(getattr(proposal, name)) for name in names} | {
        "objective": [
            proposal.predicted_objective,
            proposal.predicted_low,
            proposal.predicted_high,
        ]
    }


def _compare(linear: Study, wsd: Study) -> list[dict[str, float]]:
    """By budget: losses under "wsd" less those under "linear", and what each says of effects."""
    rows = []
    for ddo in linear.method.budgets:
        pairs = [(linear.table.find(s), wsd.table.find(s)) for s in ddo.design()]
        loss_RxS = np.array([[_mean_loss(run) for run in pair] for pair in pairs])
        log_RxS = np.log([[linear.objective(run.loss) for run in pair] for pair in pairs])
        base_S = log_RxS[: ddo.base_seeds].mean(0)
        effect_RxS = log_RxS[ddo.base_seeds :] - base_S
        apart_R = loss_RxS[:, 1] - loss_RxS[:, 0]
        rows.append(
            {
                "budget": ddo.budget,
                "loss_linear": float(loss_RxS[:, 0].mean()),
                "loss_difference": float(apart_R.mean()),
                "loss_difference_sd": float(apart_R.std(ddof=1)),
                "effect_rms": float(np.sqrt((effect_RxS[:, 0] ** 2).mean())),
                "effect_difference_rms": float(np.sqrt((np.diff(effect_RxS) ** 2).mean())),
                "effect_correlation": float(np.corrcoef(effect_RxS.T)[0, 1]),
            }
        )
    return rows


def _mean_loss(run: Run | None) -> float:
    assert run is not None and run.status == "ok"
    return float(np.mean(list(run.loss.values())))


def _apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[float]]:
    """Difference of each weight and the half-width of its 90% interval."""
    found = {}
    for name, weight in one["weights"].items():
        half = [(x["high"][name] - x["low"][name]) / 2 for x in (one, other)]
        found[name] = [other["weights"][name] - weight, float(np.hypot(*half))]
    return found


def _print(result: dict[str, Any]) -> None:
    linear, wsd = result["linear"], result["wsd"]
    print("| schedule | tokens trained | CPU s | objective predicted at the target |")
    print("|---|---|---|---|")
    for name, row in (("linear", linear), ("wsd", wsd)):
        objective = "{:.2f} [{:.2f}, {:.2f}]".format(*row["objective"])
        print(f"| {name} | {row['trained']:,} | {row['cpu_seconds']:.0f} | {objective} |")
    print(f"saved: {1 - wsd['trained'] / linear['trained']:.1%} of the tokens")
    print("| budget | loss, linear | wsd - linear (sd) | effects, rms | differ by | correlation |")
    print("|---|---|---|---|---|---|")
    for row in result["budgets"]:
        print(
            f"| {row['budget']:,} | {row['loss_linear']:.3f} | {row['loss_difference']:+.3f} "
            f"({row['loss_difference_sd']:.3f}) | {row['effect_rms']:.2%} "
            f"| {row['effect_difference_rms']:.2%} | {row['effect_correlation']:+.3f} |"
        )
    print("| domain | linear | wsd | difference | told apart |")
    print("|---|---|---|---|---|")
    for name, (difference, half) in result["apart"].items():
        cells = [
            f"{x['weights'][name]:.1%} [{x['low'][name]:.1%}, {x['high'][name]:.1%}]"
            for x in (linear, wsd)
        ]
        told = "yes" if abs(difference) > half else "no"
        print(f"| {name} | {cells[0]} | {cells[1]} | {difference:+.1%} +- {half:.1%} | {told} |")


if __name__ == "__main__":
    main()
