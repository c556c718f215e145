"""Gains from paired trainings and the paper's steps saved, on numbers worked out by hand."""

import math

import numpy as np
import pytest

from autoscale_jax import verify
from autoscale_jax.specs import CurvePoint, Run, RunSpec


def run(seed, curve, tokens=1000):
    points = tuple(CurvePoint(n, {"a": x}) for n, x in curve)
    spec = RunSpec({"a": tokens}, seed)
    return Run(spec, f"k{seed}", "ok", points[-1].loss, {"a": tokens}, {"a": 1.0}, points)


def objective(loss):
    return math.exp(loss["a"])


def test_gain_is_the_paired_relative_change():
    values = {"uniform": {0: 10.0, 1: 12.0}, "predicted": {0: 9.0, 1: 10.8}}
    gain = verify.gains(values, "predicted")["uniform"]
    assert gain.relative == pytest.approx(-0.1)
    assert gain.low == pytest.approx(-0.1) and gain.high == pytest.approx(-0.1)  # no noise left
    assert (gain.pairs, gain.wins) == (2, 2)


def test_one_seed_gives_no_interval():
    gain = verify.gains({"uniform": {0: 10.0}, "predicted": {0: 9.0}}, "predicted")["uniform"]
    assert gain.low is None and gain.high is None


def test_seeds_that_a_mixture_lacks_are_left_out():
    values = {"uniform": {0: 10.0, 1: 12.0}, "predicted": {1: 10.8}}
    assert verify.gains(values, "predicted")["uniform"].pairs == 1
    assert verify.gains({"uniform": {0: 10.0}, "predicted": {1: 9.0}}, "predicted") == {}


def test_intervals_hold_the_truth_nine_times_in_ten():
    """2,000 worlds: seed effects common to all mixtures, 1% noise, 4 mixtures, 2 seeds."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(2000):
        log_MxS = rng.normal(0, 0.05, 2) + rng.normal(0, 0.01, (4, 2))
        log_MxS[3] -= 0.03
        names = ["uniform", "natural", "keep", "predicted"]
        values = {n: dict(enumerate(np.exp(row))) for n, row in zip(names, log_MxS, strict=True)}
        gain = verify.gains(values, "predicted")["uniform"]
        hits += gain.low <= math.expm1(-0.03) <= gain.high
    assert 0.88 < hits / 2000 < 0.92


def test_tokens_to_reach_is_log_linear_between_points():
    curve = [CurvePoint(100, {"a": math.log(20)}), CurvePoint(400, {"a": math.log(10)})]
    assert verify.tokens_to_reach(curve, objective, 15) == pytest.approx(200)
    assert verify.tokens_to_reach(curve, objective, 25) == 100
    assert verify.tokens_to_reach(curve, objective, 9) == math.inf


def test_tokens_saved_is_the_papers_share_of_steps():
    uniform = run(0, [(500, math.log(20)), (1000, math.log(15))])
    better = run(0, [(250, math.log(20)), (1000, math.log(10))])
    assert verify.tokens_saved([better], [uniform], objective) == pytest.approx(0.5)
    assert verify.tokens_saved([uniform], [better], objective) is None
    assert verify.tokens_saved([better], [run(1, [(1000, 1.0)])], objective) is None


def test_every_mixture_gets_every_seed_with_exact_tokens():
    specs = verify.specs(
        {"uniform": {"a": 0.5, "b": 0.5}, "keep": {"a": 1 / 3, "b": 2 / 3}}, 1001, 3
    )
    assert len(specs) == 6
    assert all(spec.total == 1001 for spec in specs)
    assert {spec.seed for spec in specs} == {1000, 1001, 1002}


def test_a_curriculum_has_whole_tokens_in_each_stage():
    stages = (
        verify.Stage(0.8, {"a": 0.5, "b": 0.5}),
        verify.Stage(0.2, {"a": 0.0, "b": 1.0}),
    )
    one, two = verify.specs({"b last": stages}, 1001, 2)
    assert one.stages == two.stages == ({"a": 401, "b": 400}, {"a": 0, "b": 200})
    assert one.tokens == {"a": 401, "b": 600} and one.seed == 1000 and two.seed == 1001
    assert verify.weights_of(stages) == pytest.approx({"a": 0.4, "b": 0.6})
    assert verify.weights_of({"a": 0.4, "b": 0.6}) == {"a": 0.4, "b": 0.6}
