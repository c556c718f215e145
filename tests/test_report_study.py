"""A realistic study for the report's tests, computed from a known law; and its way through JSON."""

from __future__ import annotations

import json
import math
import random
import zlib
from typing import Any

import pytest

from autoscale_jax.report import store
from autoscale_jax.specs import BadInput, split_tokens

DOMAINS = ("code", "docs", "headers", "unicode", "b64")
BUDGETS = (50_000, 200_000)
TARGET = 800_000
SHARES = {
    50_000: (0.27, 0.30, 0.16, 0.19, 0.08),
    200_000: (0.33, 0.35, 0.15, 0.11, 0.06),
    400_000: (0.36, 0.375, 0.145, 0.07, 0.05),
    800_000: (0.39, 0.39, 0.14, 0.04, 0.04),
    3_200_000: (0.42, 0.40, 0.13, 0.02, 0.03),
}
_NATURAL = (0.30, 0.34, 0.12, 0.19, 0.05)
_FLOOR = (1.15, 1.35, 1.2, 0.7, 2.3)
_SCALE = (16.0, 12.0, 8.5, 60.0, 2.0)
_POWER = (0.21, 0.19, 0.20, 0.46, 0.16)
_OWN = 0.75


def losses(tokens: dict[str, float], noise: float = 0.0, seed: int = 0) -> dict[str, float]:
    """Loss of each domain: a power law in its own tokens and a share of all the others."""
    draw = random.Random(f"{sorted(tokens.items())}{seed}")
    total = sum(tokens.values())
    found = {}
    for i, name in enumerate(DOMAINS):
        use = _OWN * tokens.get(name, 0) + (1 - _OWN) * total / 3
        found[name] = _FLOOR[i] + _SCALE[i] * use ** -_POWER[i] + draw.gauss(0, noise)
    return found


def mean_perplexity(loss: dict[str, float]) -> float:
    return sum(math.exp(x) for x in loss.values()) / len(loss)


def _shares(values: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(DOMAINS, values, strict=True))


def _around(weights: dict[str, float], spread: float) -> dict[str, dict[str, float]]:
    log = {d: spread * (0.6 + 0.2 * i) for i, d in enumerate(weights)}
    return {
        "low": {d: w * math.exp(-log[d]) for d, w in weights.items()},
        "high": {d: min(0.95, w * math.exp(log[d])) for d, w in weights.items()},
    }


def _run(label: str, tokens: dict[str, int], seed: int) -> dict[str, Any]:
    loss = losses(dict(tokens), 0.004, seed)
    total = sum(tokens.values())
    return {
        "key": f"{zlib.crc32(f'{label} {seed}'.encode()):016x}",
        "label": label,
        "seed": seed,
        "status": "ok",
        "total": total,
        "tokens": dict(tokens),
        "realised": dict(tokens),
        "epochs": {d: n / 400_000 for d, n in tokens.items()},
        "objective": mean_perplexity(loss),
        "loss": loss,
        "flops": 6 * 110_000 * total,
        "seconds": total / 30_000,
        "message": "",
    }


def _proxies() -> list[dict[str, Any]]:
    runs = []
    for budget in BUDGETS:
        base = {d: budget // len(DOMAINS) for d in DOMAINS}
        runs += [_run(f"base {budget // 1000}k", base, seed) for seed in range(3)]
        for d in DOMAINS:
            for word, factor in (("x3", 3.0), ("x1/3", 1 / 3)):
                changed = {**base, d: round(base[d] * factor)}
                runs.append(_run(f"{d} {word} {budget // 1000}k", changed, 0))
    return runs


def _laws(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    laws = []
    for budget in BUDGETS:
        base = {d: budget // len(DOMAINS) for d in DOMAINS}
        for d in DOMAINS:
            mine = [
                r
                for r in runs
                if r["label"].endswith(f" {budget // 1000}k")
                and (r["label"].startswith("base") or r["label"].startswith(f"{d} "))
            ]
            grid = [base[d] / 3 * 9 ** (i / 24) for i in range(25)]
            laws.append(
                {
                    "budget": budget,
                    "domain": d,
                    "points": [
                        {"tokens": r["tokens"][d], "objective": r["objective"], "seed": r["seed"]}
                        for r in mine
                    ],
                    "curve": [
                        {"tokens": n, "objective": mean_perplexity(losses({**base, d: n}))}
                        for n in grid
                    ],
                    "formula": "(N0 + N)^-b + c",
                    "params": {"N0": 1234.5, "b": 0.1234, "c": 3.21},
                    "ok": True,
                    "decided": d != "b64",
                    "note": "" if d != "b64" else "two solutions fit equally well",
                }
            )
    return laws


def _verification() -> list[dict[str, Any]]:
    mixtures = {
        "uniform": _shares((0.2,) * 5),
        "natural": _shares(_NATURAL),
        "keep": _shares(SHARES[200_000]),
        "predicted": _shares(SHARES[800_000]),
    }
    rows = []
    for mixture, weights in mixtures.items():
        for seed in (0, 1):
            requested = split_tokens(weights, TARGET)
            wobble = random.Random(seed)
            shared = [wobble.gauss(0, 0.006) for _ in range(21)]
            curve = []
            for step in range(1, 21):
                tokens = TARGET * step // 20
                loss = losses({d: w * tokens for d, w in weights.items()}, 0.0025, seed)
                rate = 0.25 * (1 - step / 20) ** 0.7 + shared[step] * (1 - step / 20)
                loss = {d: x + rate for d, x in loss.items()}
                curve.append({"tokens": tokens, "objective": mean_perplexity(loss), "loss": loss})
            final = curve[-1]["loss"]
            rows.append(
                {
                    "mixture": mixture,
                    "seed": seed,
                    "tokens": TARGET,
                    "weights": weights,
                    "requested": requested,
                    "realised": {d: n - n % 64 for d, n in requested.items()},
                    "epochs": {d: n / 400_000 for d, n in requested.items()},
                    "loss": final,
                    "mean_perplexity": mean_perplexity(final),
                    "worst_perplexity": max(math.exp(x) for x in final.values()),
                    "objective": mean_perplexity(final),
                    "status": "ok",
                    "curve": curve,
                }
            )
    return rows


def _gain(rows: list[dict[str, Any]], reference: str) -> dict[str, Any]:
    value = {(r["mixture"], r["seed"]): r["objective"] for r in rows}
    changes = [value["predicted", s] / value[reference, s] - 1 for s in (0, 1)]
    mean = sum(changes) / 2
    return {
        "relative": mean,
        "low": mean - 0.012,
        "high": mean + 0.012,
        "pairs": 2,
        "wins": sum(c < 0 for c in changes),
        "text": f"predicted against {reference}: {100 * mean:+.1f}% in two pairs",
    }


def _proposals() -> list[dict[str, Any]]:
    rows = []
    for method, shares, beats in (
        ("autoscale", SHARES[800_000], {"uniform": 0.96, "natural": 0.91, "keep": 0.74}),
        ("joint", (0.37, 0.38, 0.14, 0.07, 0.04), {"uniform": 0.95, "natural": 0.9, "keep": 0.7}),
        ("keep", SHARES[200_000], {"uniform": 0.88, "natural": 0.8}),
        ("natural", _NATURAL, {"uniform": 0.7}),
        ("uniform", (0.2,) * 5, {}),
    ):
        weights = _shares(shares)
        value = mean_perplexity(losses({d: w * TARGET for d, w in weights.items()}))
        fitted = method in ("autoscale", "joint")
        rows.append(
            {
                "method": method,
                "tokens": TARGET,
                "weights": weights,
                **(_around(weights, 0.2) if fitted else {"low": {}, "high": {}}),
                "predicted_objective": value,
                "predicted_low": value * 0.985,
                "predicted_high": value * 1.015,
                "p_beats": beats,
                "warnings": [],
            }
        )
    rows[0]["warnings"] = ["weights for docs and headers cannot be told apart"]
    return rows


def _trajectory() -> list[dict[str, Any]]:
    return [
        {
            "tokens": n,
            "weights": _shares(shares),
            **_around(_shares(shares), 0.1 if n in BUDGETS else 0.08 * math.log(n / 5e4)),
            "kind": "measured optimum" if n in BUDGETS else "extrapolated",
        }
        for n, shares in SHARES.items()
    ]


def _effects() -> dict[str, Any]:
    base = {d: BUDGETS[-1] // len(DOMAINS) for d in DOMAINS}
    before = losses(dict(base))
    change = [[losses({**base, d: 3 * base[d]})[e] - before[e] for e in DOMAINS] for d in DOMAINS]
    change[4][0] = 0.031
    return {
        "domains": list(DOMAINS),
        "eval_domains": list(DOMAINS),
        "change": change,
        "caption": "Runs of the 200k base with one domain tripled, less the mean base run.",
    }


def _diverged() -> dict[str, Any]:
    return {
        **_run("unicode x9 50k", {"unicode": 90_000, "code": 10_000}, 0),
        "status": "diverged",
        "objective": None,
        "loss": {},
        "message": "loss is NaN at step 40",
    }


def make_study() -> dict[str, Any]:
    """A finished study of five domains."""
    runs = _proxies()
    rows = _verification()
    return {
        "title": "Five domains of a Python installation",
        "created": "2025-06-01 12:00",
        "config": {"model": "gpt2, 1 layer, 64 wide", "learning_rate": 0.003, "seeds": [0, 1]},
        "objective": {"kind": "mean_perplexity", "weights": dict.fromkeys(DOMAINS, 0.2)},
        "domains": [
            {
                "name": d,
                "train_tokens": 400_000,
                "eval_tokens": 20_000,
                "train_documents": 800,
                "eval_documents": 40,
                "max_epochs": 4.0,
            }
            for d in DOMAINS
        ],
        "target_tokens": TARGET,
        "budgets": list(BUDGETS),
        "reference": "uniform",
        "recommended": "autoscale",
        "proposals": _proposals(),
        "trajectory": _trajectory(),
        "laws": _laws(runs),
        "effects": _effects(),
        "verification": rows,
        "gain": {f"vs_{m}": _gain(rows, m) for m in ("uniform", "natural", "keep")},
        "tokens_saved": {
            "vs_uniform": 0.17,
            "vs_natural": 0.12,
            "low": {"vs_uniform": 0.09, "vs_natural": 0.02},
            "high": {"vs_uniform": 0.24, "vs_natural": 0.2},
            "definition": "1 - (tokens at which the predicted mixture first reaches the other "
            "mixture's final objective) / (the other mixture's tokens).",
        },
        "cost": {
            "runs": len(runs) + len(rows),
            "proxy_runs": len(runs),
            "verification_runs": len(rows),
            "tokens": sum(r["total"] for r in runs) + 8 * TARGET,
            "flops": 6.1e12,
            "seconds": 512.3,
        },
        "noise": {
            "objective_sd": 0.083,
            "relative_sd": 0.0052,
            "paired_sd": 0.061,
            "replicates": 3,
        },
        "next_run": {
            "label": "200k base with 3x unicode, seed 1",
            "reason": "It would halve the interval of the share that changes most with scale.",
        },
        "warnings": ["The law of b64 is not decided by the data at 50k and 200k tokens."],
        "runs": runs
        + [_run(f"verify {r['mixture']}", r["realised"], r["seed"]) for r in rows]
        + [_diverged()],
    }


def test_study_round_trips_through_json() -> None:
    study = make_study()
    assert json.loads(store.dumps(study)) == json.loads(json.dumps(study))
    assert list(json.loads(store.dumps(study))) == list(study)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": {"seconds": float("nan")}}, r"study\.cost\.seconds = nan"),
        ({"runs": [{"loss": {"a": math.inf}}]}, r"study\.runs\[0\]\.loss\.a = inf"),
        ({"config": {"x": object()}}, r"study\.config\.x is a object"),
        ({"config": {3: 1}}, r"study\.config has the key 3"),
    ],
)
def test_what_json_cannot_hold_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        store.dumps({**make_study(), **change})


def test_loads_fills_what_is_missing_and_spells_out_control_characters() -> None:
    view = store.loads('{"title": "a\\u0000b\\u202e", "cost": null, "gain": {"vs_keep": null}}')
    assert view["title"] == "a\\x00b\\u202e"
    assert view["cost"] == {} and view["runs"] == [] and view["gain"] == {}
    assert view["reference"] == "uniform"
