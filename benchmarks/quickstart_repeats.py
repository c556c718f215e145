"""How often does the quickstart's prediction win, and how much would be there to win?

    python benchmarks/quickstart_repeats.py [--repeats=5] [--workdir=workdir/repeats] [--json=FILE]

Each repeat is the whole study with its own seed: another held-out split, tokeniser, initialisation
and order of sequences; proxies, fit, extrapolation and verification share nothing with the other
repeats. The paper's own extrapolation is verified beside the four mixtures of the quickstart, and
so is the mixture in hindsight: the mean over repeats of what is recommended from all trainings of
one, those at the target included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np

from autoscale_jax import fit
from autoscale_jax.pipeline import run_study
from autoscale_jax.runs import RunTable

ROOT = Path(__file__).parent.parent
MIXTURES = ("uniform", "natural", "keep", "autoscale", "predicted")
HINDSIGHT = "in hindsight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--workdir", type=Path, default=ROOT / "workdir/repeats")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    repeats = range(1, args.repeats + 1)
    studies = [_study(args.config, args.workdir, repeat) for repeat in repeats]
    found = [
        _in_hindsight(study, args.workdir / str(r))
        for r, study in zip(repeats, studies, strict=True)
    ]
    weights = {name: float(np.mean([of[name] for of in found])) for name in found[0]}
    studies = [_study(args.config, args.workdir, r, {HINDSIGHT: weights}) for r in repeats]
    result = _mixtures(studies)
    _print(result, len(studies))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _study(file: str, workdir: Path, repeat: int, extra: dict | None = None) -> dict:
    spec = importlib.util.spec_from_file_location("config", ROOT / file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    config.seed = config.data.seed = repeat
    config.verify.mixtures = MIXTURES
    config.verify.extra = extra
    jax.config.update("jax_num_cpu_devices", int(config.execute.slots))
    return run_study(config, workdir / str(repeat))


def _by_mixture(study: dict) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {name: [] for name in (*MIXTURES, HINDSIGHT)}
    for row in study["verification"]:
        rows[row["mixture"]].append(row)
    return rows


def _change(study: dict, name: str, against: str, measure: str = "mean_perplexity") -> float:
    """Of a mixture against another one, mean over seeds."""
    rows = _by_mixture(study)
    pairs = zip(rows[name], rows[against], strict=True)
    return float(np.mean([a[measure] / b[measure] - 1 for a, b in pairs]))


def _mixtures(studies: list[dict]) -> dict[str, dict]:
    """By mixture: its level, and changes paired by repeat and seed, one a repeat."""
    result = {}
    for name in (*MIXTURES, HINDSIGHT):
        rows = [row for study in studies for row in _by_mixture(study)[name]]
        result[name] = {
            "mean_perplexity": float(np.mean([row["mean_perplexity"] for row in rows])),
            "worst_perplexity": float(np.mean([row["worst_perplexity"] for row in rows])),
            "change": [_change(study, name, "uniform") for study in studies],
            "worst_change": [
                _change(study, name, "uniform", "worst_perplexity") for study in studies
            ],
            "predicted_against_it": [_change(study, "predicted", name) for study in studies],
            "weights": [_by_mixture(study)[name][0]["weights"] for study in studies],
        }
    result["predicted"]["tokens_saved"] = [s["tokens_saved"]["vs_uniform"] for s in studies]
    return result


def _in_hindsight(study: dict, folder: Path) -> dict[str, float]:
    """What is recommended from all runs of a study but those of the mixture in hindsight itself."""
    with RunTable.open(folder / "runs.jsonl", write=False) as table:
        runs = [run for run in table if HINDSIGHT not in run.spec.label]
    runs.sort(key=lambda run: (run.spec.total, run.spec.label))
    target, floor = study["target_tokens"], study["config"]["study.floor"]
    return dict(fit.recommend(RunTable(runs), target, lower=floor).weights)


def _print(result: dict, repeats: int) -> None:
    print(f"\n{repeats} repeats, changes of mean perplexity (negative is better), mean (sd)\n")
    print("| mixture | mean PPL | worst PPL | against uniform | won | predicted against it | won |")
    print("|---|---|---|---|---|---|---|")
    for name, row in result.items():
        changes = (row["change"], row["predicted_against_it"])
        cells = [f"{_percent(x)} | {sum(c < 0 for c in x)} of {repeats}" for x in changes]
        levels = f"{row['mean_perplexity']:.2f} | {row['worst_perplexity']:.1f}"
        print(f"| {name} | {levels} | {' | '.join(cells)} |")
    weights = result[HINDSIGHT]["weights"][0].items()
    print(f"\n{HINDSIGHT}: {', '.join(f'{name} {w:.3f}' for name, w in weights)}")
    saved = [s for s in result["predicted"]["tokens_saved"] if s is not None]
    if saved:
        print(f"tokens saved against uniform: {', '.join(f'{100 * s:.0f}%' for s in saved)}")


def _percent(changes: list[float]) -> str:
    return f"{100 * np.mean(changes):+.1f}% ({100 * np.std(changes, ddof=1):.1f})"


if __name__ == "__main__":
    main()
