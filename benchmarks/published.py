"""Published runs replayed: every law side by side on four published tables.

    python benchmarks/published.py [--json FILE] [--only ddo,regmix,redpajama,5mix]

Reads ../shared/data/runs beside the repository; a table that is not there is skipped, saying so.
Exits 1 when a figure misses what `REQUIRED` asks of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from published_runs import DATA, Checkpoints, arrays_of, read, take
from required import Required, judge
from scipy.stats import spearmanr

from autoscale_jax import fit
from autoscale_jax.fit.law import Points, losses
from autoscale_jax.fit.noise import noise_of
from autoscale_jax.fit.parametric import fit_law, predict
from autoscale_jax.fit.selection import LAWS, own_domains
from autoscale_jax.specs import RunArrays

DDO = "autoscale_ddo_gpt2large_1p2B.csv"
PUBLISHED = (1.62475, 0.2, 1.27415, 1.17980, 1.85190, 0.63716, 0.23224)
EARLY, LAST = (10000, 13000, 16000, 20000), 30000  # steps to learn from, and to predict
Rows = list[dict[str, Any]]


def ddo() -> Rows:
    """The official DDO example: weights relative to uniform (sum 7) by branch, x and floor."""
    ppl = {r["run"]: float(r["ppl_average"]) for r in read(DDO)}
    names = tuple(r["run"].split(":")[0] for r in read(DDO) if r["run"].endswith(":x1/3"))
    value_R = np.array(
        [ppl["base"], *(ppl[f"{n}:x1/3"] for n in names), *(ppl[f"{n}:x3"] for n in names)]
    )
    out: Rows = []
    for x, branch, floor in (
        (1 / 5, "steep", 0.2), (1 / 5, "flat", 0.2), (1 / 3, "steep", 0.2), (1 / 3, "flat", 0.2),
        (1 / 5, "steep", 0.0), (1 / 5, "flat", 0.0), (1 / 3, "steep", 0.0), (1 / 3, "flat", 0.0),
    ):  # fmt: skip
        tokens_RxK = np.ones((15, 7))
        tokens_RxK[1:8][np.eye(7, dtype=bool)] = x
        tokens_RxK[8:][np.eye(7, dtype=bool)] = 3
        found = fit.ddo_optimum(
            tokens_RxK, value_R, lower=floor / 7, branch=branch, noise=0.005, samples=1000,
            names=names,
        )  # fmt: skip
        low_K, high_K = np.percentile(7 * found.weights_SxK, [5, 95], axis=0)
        row: dict[str, Any] = {"x": round(x, 3), "branch": branch, "floor": floor}
        row |= {n: f"{7 * w:.5f}" for n, w in zip(names, found.weights_K, strict=True)}
        row["from published"] = float(np.abs(7 * found.weights_K - PUBLISHED).max())
        row["90% at .5% noise"] = " ".join(
            f"{a:.2f}-{b:.2f}" for a, b in zip(low_K, high_K, strict=True)
        )
        out.append(row)
    return out


def regmix() -> Rows:
    """Laws fitted to 512 runs of a 1M model, judged on 256 mixtures at 1M and at 60M."""
    rows, large = read("regmix_1m.csv"), read("regmix_60m.csv")
    train = arrays_of([r for r in rows if r["split"] == "train"], [1e9] * 512)
    test = arrays_of([r for r in rows if r["split"] == "test"], [1e9] * 256)
    loss_60m = arrays_of(large, [1e9] * 256).loss_RxE
    predictions: dict[str, np.ndarray] = {}
    chosen, seconds = laws_and_selection(train, test.tokens_RxK, predictions, None)
    try:
        predictions["LightGBM"] = lightgbm(train, test)
    except ImportError:
        print("LightGBM is not installed: pip install lightgbm for that row")
    out: Rows = []
    for name, loss_RxE in predictions.items():
        out.append(
            {
                "law": name,
                "1M MAE": float(np.abs(loss_RxE - test.loss_RxE).mean()),
                "1M rho": mean_rho(loss_RxE, test.loss_RxE),
                "60M rho": mean_rho(loss_RxE, loss_60m),
                "s": round(seconds.get(name, 0.0), 1),
            }
        )
    print(chosen)
    return out


def mean_rho(predicted_RxE: np.ndarray, loss_RxE: np.ndarray) -> float:
    pairs = zip(predicted_RxE.T, loss_RxE.T, strict=True)
    return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))


def lightgbm(train: RunArrays, test: RunArrays) -> np.ndarray:
    """RegMix's own regressor with its published settings, one for each evaluation domain."""
    import lightgbm as lgb

    settings = {"learning_rate": 1e-2, "seed": 42, "verbosity": -1, "num_threads": 1}
    columns = []
    for e in range(len(train.eval_domains)):
        data = lgb.Dataset(train.tokens_RxK / 1e9, train.loss_RxE[:, e])
        model = lgb.train(settings, data, num_boost_round=1000)
        columns.append(model.predict(test.tokens_RxK / 1e9))
    return np.stack(columns, 1)


def laws_and_selection(
    train: RunArrays, tokens_RxK: np.ndarray, out: dict[str, np.ndarray], v_E: Any
) -> tuple[fit.Selection, dict[str, float]]:
    """Each law alone and `fit.select`'s choice, as predicted losses; seconds of each."""
    noise, seconds = noise_of(train, own_domains(train)), {}
    for name in LAWS:
        began = time.perf_counter()
        law = fit.select(train, laws=(name,), noise=noise).law
        out[name] = losses(law, tokens_RxK)
        seconds[name] = time.perf_counter() - began
    began = time.perf_counter()
    chosen = fit.select(train, objective="mean_loss", eval_weights=v_E, noise=noise)
    out["selected"] = losses(chosen.law, tokens_RxK)
    seconds["selected"] = time.perf_counter() - began
    return chosen, seconds


NESTED = "data mixing, nested"


def points_of(runs: RunArrays, size_R: np.ndarray) -> Points:
    return Points(runs.tokens_RxK, runs.loss_RxE, np.full(runs.loss_RxE.shape, 0.01), size_R)


def nested(points: Points, own_E: np.ndarray, tokens_RxK: np.ndarray, size: float) -> np.ndarray:
    """Losses at one scale by the paper's nesting of step, size and mixing laws."""
    total = float(tokens_RxK.sum(1).mean())
    return predict(fit.fit_nested(points, own_E, tokens=total, size=size).fitted, tokens_RxK)


def mixing_laws(name: str, splits: int) -> Rows:
    """A quarter of the mixtures held out at 70M, 30k steps; then 20k -> 30k; then 70M -> 160M."""
    table = Checkpoints(name)
    final, large = table.at("70M", (LAST,)), table.at("160M", (LAST,))
    assert final is not None
    error: dict[str, list[float]] = {}
    later: dict[str, list[float]] = {}
    for split in range(splits):
        order = np.random.default_rng(split).permutation(len(final.names_R))
        held, kept = np.split(order, [round(len(order) / 4)])
        test = take(final, held)
        learnt = [(take(final, kept), error)]
        if split < 3:  # trained to 20k steps on the kept mixtures, judged on the others at 30k
            seen = table.at("70M", EARLY, tuple(final.names_R[i] for i in kept))
            assert seen is not None
            learnt.append((seen, later))
        for runs, misses in learnt:
            for law, loss_RxE in every_law(runs, test.tokens_RxK, table.v_E).items():
                misses.setdefault(law, []).append(table.miss(loss_RxE, test))
    out: Rows = [
        {
            "law": law,
            "overall MAE": float(np.mean(error[law])),
            "s.e.": float(np.std(error[law]) / np.sqrt(splits)),
            "20k->30k MAE": float(np.mean(later[law])),
        }
        for law in error
    ]
    if large is not None:
        larger(table, final, large, out)
    return out


def every_law(runs: RunArrays, tokens_RxK: np.ndarray, v_E: np.ndarray) -> dict[str, np.ndarray]:
    """Losses by each law, by the selected ones and by the paper's nesting, all from these runs."""
    found: dict[str, np.ndarray] = {}
    laws_and_selection(runs, tokens_RxK, found, v_E)
    points = points_of(runs, np.ones(len(runs.names_R)))
    return found | {NESTED: nested(points, own_domains(runs), tokens_RxK, 1.0)}


def larger(table: Checkpoints, final: RunArrays, large: RunArrays, out: Rows) -> None:
    """70M -> 160M: ranking and regret by 70M alone, beside those of a random choice; then losses.

    For the losses, the laws of the model's size see every 70M checkpoint up to 20k steps and those
    of half the 160M runs, and the selected laws, which know no size, these 160M checkpoints alone;
    they are judged on the other half at 30k steps.
    """
    found = every_law(final, large.tokens_RxK, table.v_E)
    order = np.random.default_rng(0).permutation(len(large.names_R))
    held, kept = np.array_split(order, 2)
    test, names = take(large, held), tuple(large.names_R[i] for i in kept)
    small, seen = table.at("70M", EARLY), table.at("160M", EARLY, names)
    assert small is not None and seen is not None
    both = np.vstack([small.tokens_RxK, seen.tokens_RxK])
    loss_RxE = np.vstack([small.loss_RxE, seen.loss_RxE])
    size_R = np.repeat([1.0, 160 / 70], [len(small.names_R), len(seen.names_R)])
    points = Points(both, loss_RxE, np.full(loss_RxE.shape, 0.01), size_R)
    own_E = own_domains(small)
    joint = fit_law(fit.LAWS["data mixing"], points, own_E).fitted
    chosen = fit.select(seen, objective="mean_loss", eval_weights=table.v_E)
    at_160m = {
        "data mixing": predict(joint, test.tokens_RxK, np.full(len(held), 160 / 70)),
        NESTED: nested(points, own_E, test.tokens_RxK, 160 / 70),
        "selected": losses(chosen.law, test.tokens_RxK),
    }
    truth_R = large.loss_RxE @ table.v_E
    for row in out:
        overall_R = found[row["law"]] @ table.v_E
        row["160M rho"] = float(spearmanr(overall_R, truth_R).statistic)
        row["160M regret"] = float(truth_R[overall_R.argmin()] - truth_R.min())
        if row["law"] in at_160m:
            row["160M MAE"] = table.miss(at_160m[row["law"]], test)
    chance = float(truth_R.mean() - truth_R.min())
    out.append({"law": f"a random one of {len(truth_R)}", "160M rho": 0.0, "160M regret": chance})


def show(title: str, rows: Rows) -> None:
    print(f"\n{title}")
    columns = list(dict.fromkeys(c for row in rows for c in row))
    text = [{c: f"{v:.4g}" if isinstance(v, float) else v for c, v in r.items()} for r in rows]
    width = {c: max(len(c), *(len(r.get(c, "")) for r in text)) for c in columns}
    print("  ".join(c.rjust(width[c]) for c in columns))
    for row in text:
        print("  ".join(row.get(c, "").rjust(width[c]) for c in columns))


TABLES = {
    "ddo": (DDO, "DDO, GPT-2 Large, 1.2B tokens: weights relative to uniform", ddo),
    "regmix": ("regmix_1m.csv", "RegMix: 512 runs at 1M", regmix),
    "redpajama": (
        "mixinglaws_redpajama.csv",
        "Data Mixing Laws, RedPajama, 70M",
        lambda: mixing_laws("mixinglaws_redpajama.csv", 10),
    ),
    "5mix": (
        "mixinglaws_5mix_70M.csv",
        "Data Mixing Laws, 5 Pile domains, 70M",
        lambda: mixing_laws("mixinglaws_5mix_70M.csv", 5),
    ),
}

CHOSEN = {"law": "selected"}
REQUIRED = {
    "ddo": [Required({"x": 0.2, "branch": "steep", "floor": 0.2}, "from published", 1e-5)],
    "regmix": [
        Required(CHOSEN, "1M rho", 0.990, least=True),
        Required(CHOSEN, "60M rho", 0.985, least=True),
        Required(CHOSEN, "1M MAE", 0.055),
    ],
    "redpajama": [Required(CHOSEN, "overall MAE", 0.0130), Required(CHOSEN, "20k->30k MAE", 0.025)],
    "5mix": [Required(CHOSEN, "overall MAE", 0.0075), Required(CHOSEN, "20k->30k MAE", 0.025)],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default=",".join(TABLES))
    args = parser.parse_args()
    found: dict[str, Rows] = {}
    met = True
    for key in args.only.split(","):
        if key not in TABLES:
            parser.error(f"--only: {key!r}: give some of {','.join(TABLES)}")
        file, title, run = TABLES[key]
        if not (DATA / file).exists():
            print(f"skipped {key}: {DATA / file} is not there")
            continue
        found[key] = run()
        show(title, found[key])
        met &= judge(REQUIRED[key], found[key])
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
