"""Evidence and summary on synthetic studies whose truth is known."""

import math

import numpy as np
import pytest

from autoscale_jax import evidence, summary
from autoscale_jax.execute import Synthetic
from autoscale_jax.methods import DDO
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import CurvePoint, Run, RunSpec

NAMES = ("art", "law", "sea")
SLOPES = np.array([0.05, 0.1, 0.2])


def world(tokens_K):
    """Each domain's loss falls by its own slope with the log of its own tokens."""
    return 3 - SLOPES * np.log(tokens_K / 1000)


def objective(loss):
    return float(np.mean(np.exp(list(loss.values()))))


@pytest.fixture(scope="module")
def ddo():
    return DDO(NAMES, 30_000)


@pytest.fixture(scope="module")
def table(ddo):
    return RunTable(Synthetic(world, NAMES, shared_sd=0.01)(ddo.design()))


def test_effects_are_the_true_ones_and_shared_noise_cancels(ddo, table):
    effects = evidence.effects(ddo, ddo.runs(table))
    expected = -np.diag(SLOPES) * math.log(3)
    np.testing.assert_allclose(effects["change"], expected, atol=1e-9)
    assert effects["domains"] == list(NAMES) and effects["eval_domains"] == list(NAMES)


def test_noise_is_that_of_the_base_replicates(ddo, table):
    values = [objective(r.loss) for r in table if r.spec.tokens == ddo.design()[0].tokens]
    noise = evidence.noise([ddo], table, objective)
    assert noise["replicates"] == 3
    assert noise["objective_sd"] == pytest.approx(np.std(values, ddof=1))
    assert evidence.noise([DDO(NAMES, 999)], table, objective) == {}


def test_laws_pass_through_the_points_they_show(ddo, table):
    optimum = ddo.optimum(table, objective, floor=0.02, samples=5, seed=0)
    rows = evidence.laws(ddo, optimum, ddo.runs(table), objective)
    assert [row["domain"] for row in rows] == list(NAMES)
    for row in rows:
        assert len(row["points"]) == 3 + 2  # base replicates, x3 and /3
        curve = row["curve"]
        for point in row["points"]:
            at = np.interp(
                math.log(point["tokens"]),
                [math.log(c["tokens"]) for c in curve],
                [c["objective"] for c in curve],
            )
            assert at == pytest.approx(point["objective"], rel=0.02)


def test_optima_without_runs_become_a_warning(ddo):
    found, warnings = evidence.optima([ddo], RunTable(), objective, floor=0.02, samples=5, seed=0)
    assert found == {} and len(warnings) == 1
    assert warnings[0].startswith("no law at 30,000 tokens")


def target_run(mixture, seed, end):
    curve = tuple(CurvePoint(n, {"a": end + 0.5 * math.log(800 / n)}) for n in (200, 400, 800))
    spec = RunSpec({"a": 800}, seed, mixture)
    return Run(spec, f"{mixture}{seed}", "ok", {"a": end}, {"a": 800}, {"a": 1.0}, curve)


def test_gains_and_savings_with_their_intervals():
    """A loss lower by 0.1 on a slope of 0.5 a log token saves 1 - exp(-0.2) of the tokens."""
    verified = {
        "uniform": [target_run("uniform", s, 2.0 + 0.05 * s) for s in (0, 1)],
        "predicted": [target_run("predicted", s, 1.9 + 0.05 * s) for s in (0, 1)],
    }
    gain, saved = summary.gains_and_savings(verified, lambda loss: loss["a"], "predicted")
    ratios = [1.9 / 2.0, 1.95 / 2.05]
    assert gain["vs_uniform"]["relative"] == pytest.approx(np.exp(np.mean(np.log(ratios))) - 1)
    assert gain["vs_uniform"]["wins"] == 2
    assert saved["vs_uniform"] == pytest.approx(1 - math.exp(-0.2))
    assert saved["low"]["vs_uniform"] < saved["vs_uniform"] < saved["high"]["vs_uniform"]


def test_a_diverged_training_at_the_target_leaves_its_mixture_out():
    diverged = Run(RunSpec({"a": 800}, 0), "d", "diverged", {}, {"a": 800}, {"a": 1.0})
    verified = {"uniform": [diverged], "predicted": [target_run("predicted", 0, 1.9)]}
    gain, saved = summary.gains_and_savings(verified, lambda loss: math.exp(loss["a"]), "predicted")
    assert gain == {} and saved["vs_uniform"] is None


def test_finite_leaves_no_nan():
    value = {"a": [1.0, float("nan")], "b": (np.float64(2), {"c": float("inf")}), "d": "x"}
    assert summary.finite(value) == {"a": [1.0, None], "b": [2.0, {"c": None}], "d": "x"}
