"""How often does the quickstart's prediction win, and how much of the headroom does it capture?

    python benchmarks/quickstart_repeats.py [--repeats=5] [--workdir=workdir/repeats] [--json=FILE]

Each repeat is the whole study with its own seed: another held-out split, tokeniser, initialisation
and order of sequences; proxies, fit, extrapolation and verification share nothing with the other
repeats. The paper's own extrapolation is verified beside the four mixtures of the quickstart.

Headroom: the effective-data law, fitted in hindsight to all verification runs (losses relative to
the repeat's uniform runs), gives the best mixture at the target and its predicted gain.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
from pathlib import Path

import jax
import numpy as np

from autoscale_jax import fit
from autoscale_jax.pipeline import run_study
from autoscale_jax.specs import RunArrays

ROOT = Path(__file__).parent.parent
MIXTURES = ("uniform", "natural", "keep", "autoscale", "predicted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--workdir", type=Path, default=ROOT / "workdir/repeats")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    studies = [_study(args.config, args.workdir, repeat) for repeat in range(1, args.repeats + 1)]
    result = {"mixtures": _mixtures(studies), "headroom": _headroom(studies)}
    _print(result, len(studies))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _study(file: str, workdir: Path, repeat: int) -> dict:
    spec = importlib.util.spec_from_file_location("config", ROOT / file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.seed = config.data.seed = repeat
    config.verify.mixtures = MIXTURES
    jax.config.update("jax_num_cpu_devices", int(config.execute.slots))
    return run_study(config, workdir / str(repeat))


def _by_mixture(study: dict) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {name: [] for name in MIXTURES}
    for row in study["verification"]:
        rows[row["mixture"]].append(row)
    return rows


def _mixtures(studies: list[dict]) -> dict[str, dict]:
    """Change against uniform, paired by repeat and seed: mean over repeats, wins in repeats."""
    result = {}
    for name in MIXTURES:
        change, worst, saved = [], [], []
        for study in studies:
            rows = _by_mixture(study)
            pairs = list(zip(rows[name], rows["uniform"], strict=True))
            change.append(
                np.mean([a["mean_perplexity"] / b["mean_perplexity"] - 1 for a, b in pairs])
            )
            worst.append(
                np.mean([a["worst_perplexity"] / b["worst_perplexity"] - 1 for a, b in pairs])
            )
            if name == "predicted":
                saved.append(study["tokens_saved"]["vs_uniform"])
        rows_of = [row for study in studies for row in _by_mixture(study)[name]]
        result[name] = {
            "mean_perplexity": float(np.mean([row["mean_perplexity"] for row in rows_of])),
            "worst_perplexity": float(np.mean([row["worst_perplexity"] for row in rows_of])),
            "change": [float(x) for x in change],
            "worst_change": [float(x) for x in worst],
            "wins": int(np.sum(np.array(change) < 0)),
            "weights": [_by_mixture(study)[name][0]["weights"] for study in studies],
            "tokens_saved": saved,
        }
    return result


def _headroom(studies: list[dict]) -> dict:
    """The best mixture in hindsight: a law fitted to what was trained at the target."""
    tokens, loss = [], []
    evals = sorted(studies[0]["verification"][0]["loss"])
    names = sorted(studies[0]["verification"][0]["weights"])
    uniform = [
        np.mean([[row["loss"][e] for e in evals] for row in _by_mixture(s)["uniform"]], 0)
        for s in studies
    ]
    for study, mine_E in zip(studies, uniform, strict=True):
        for row in study["verification"]:
            tokens.append([row["realised"][name] for name in names])
            loss.append([row["loss"][e] for e in evals] - mine_E + np.mean(uniform, 0))
    arrays = RunArrays(
        tuple(names),
        tuple(evals),
        tuple(str(i) for i in range(len(tokens))),
        np.array(tokens, float),
        np.array(loss),
        np.zeros(len(tokens), int),
    )
    target, floor = studies[0]["target_tokens"], studies[0]["config"]["study.floor"]
    best = fit.recommend(arrays, target, method="effective data", lower=floor)
    unshrunk = best.details["unshrunk"]
    gain = -best.details["gain_percent"][0] / 100
    captured = {
        name: float(np.mean(values["change"])) / gain if gain else math.nan
        for name, values in _mixtures(studies).items()
    }
    return {"weights": unshrunk, "change": gain, "captured": captured, "runs": len(tokens)}


def _print(result: dict, repeats: int) -> None:
    print(f"\n{repeats} repeats, change of mean perplexity against uniform (negative is better)\n")
    print("| mixture | mean PPL | worst PPL | change, mean (sd) | repeats won | of the headroom |")
    print("|---|---|---|---|---|---|")
    for name, row in result["mixtures"].items():
        change = np.array(row["change"])
        share = result["headroom"]["captured"][name]
        print(
            f"| {name} | {row['mean_perplexity']:.2f} | {row['worst_perplexity']:.1f} "
            f"| {100 * change.mean():+.1f}% ({100 * change.std(ddof=1):.1f}) "
            f"| {row['wins']} of {repeats} | {100 * share:.0f}% |"
        )
    head = result["headroom"]
    weights = ", ".join(f"{name} {w:.3f}" for name, w in head["weights"].items())
    print(
        f"\nheadroom in hindsight ({head['runs']} runs): {100 * head['change']:+.1f}% at {weights}"
    )
    saved = [s for s in result["mixtures"]["predicted"]["tokens_saved"] if s is not None]
    if saved:
        print(f"tokens saved against uniform: {', '.join(f'{100 * s:.0f}%' for s in saved)}")


if __name__ == "__main__":
    main()
