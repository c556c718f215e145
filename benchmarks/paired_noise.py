"""What common random numbers are worth: noise of a run's effect, paired and unpaired.

    python benchmarks/paired_noise.py [--seeds=6] [--budget=320000] [--json=FILE]

The effect of a change is log objective (changed run) - log objective (base run). Paired, both have
the same seed: the same initialisation and the same sequences of the unchanged domains. Unpaired,
the seeds differ: the variance is the sum of the two runs' own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import jax
import numpy as np

from autoscale_jax.config import default_config
from autoscale_jax.data import prepare
from autoscale_jax.execute import TrainHere
from autoscale_jax.methods import DDO
from autoscale_jax.study import make_recipes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--budget", type=int, default=320_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    with tempfile.TemporaryDirectory() as folder:
        log_by_change = _train(args.budget, args.seeds, Path(folder))
    result = {name: _compare(log_by_change["base"], x) for name, x in log_by_change.items()}
    del result["base"]
    print("| change | paired sd | unpaired sd | ratio | correlation |")
    print("|---|---|---|---|---|")
    for name, row in result.items():
        print(
            f"| {name} | {100 * row['paired']:.2f}% | {100 * row['unpaired']:.2f}% "
            f"| {row['paired'] / row['unpaired']:.2f} | {row['correlation']:+.2f} |"
        )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def _train(budget: int, seeds: int, folder: Path) -> dict[str, np.ndarray]:
    """Log mean perplexity by change and seed: the base, a domain tripled, a domain cut."""
    config = default_config()
    corpus = prepare(config.data.to_dict(), folder / "corpus")
    names = tuple(domain.name for domain in corpus.domains)
    wanted = {"base": "base seed", "docs x3": "docs x3", "numbers /3": "numbers /3"}
    ddo = DDO(names, budget, base_seeds=seeds, perturbed_seeds=seeds)
    specs = [s for s in ddo.design() if any(mark in s.label for mark in wanted.values())]
    train = TrainHere(
        make_recipes(config, corpus), corpus, folder / "checkpoints", 2, 1e9, lambda s, p: None
    )
    log = {name: np.zeros(seeds) for name in wanted}
    for run in train(specs):
        print(f"{run.spec.label}: {np.mean(list(run.perplexity.values())):.3f}", flush=True)
        name = next(name for name, mark in wanted.items() if mark in run.spec.label)
        log[name][run.spec.seed] = np.log(np.mean(list(run.perplexity.values())))
    return log


def _compare(base_S: np.ndarray, changed_S: np.ndarray) -> dict[str, float]:
    return {
        "paired": float(np.std(changed_S - base_S, ddof=1)),
        "unpaired": float(np.sqrt(np.var(changed_S, ddof=1) + np.var(base_S, ddof=1))),
        "correlation": float(np.corrcoef(base_S, changed_S)[0, 1]),
    }


if __name__ == "__main__":
    main()
