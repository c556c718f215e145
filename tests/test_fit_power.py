"""Eq. 2 and DDO: known laws, the published example, and bad input."""

import csv
import doctest
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax import fit
from autoscale_jax.specs import BadInput

RUNS = Path(__file__).resolve().parents[2] / "shared" / "data" / "runs"
DDO = RUNS / "autoscale_ddo_gpt2large_1p2B.csv"
X_P = np.array([0.2, 1.0, 3.0])


def test_the_examples_of_the_package_hold():
    assert doctest.testmod(fit).failed == 0


def curve(x, a, b, c):
    return (np.asarray(x) + a) ** -b + c


@settings(max_examples=30)
@given(st.floats(0.2, 5), st.floats(0.1, 2.5), st.floats(-0.5, 1))
def test_a_known_law_is_among_the_exact_solutions(a, b, c):
    found = fit.fit_power_law(X_P, curve(X_P, a, b, c))
    assert found.ok
    assert np.abs(found.residual).max() < 1e-8
    distance = np.nanmin(np.abs(found.solutions[:, :2] - [a, b]).max(-1))
    predicted = [curve(X_P, *s) for s in found.solutions if np.isfinite(s).all()]
    assert all(np.abs(p - curve(X_P, a, b, c)).max() < 1e-6 for p in predicted)
    assert distance < 1e-2 * max(a, b)


def test_more_points_than_parameters_decide_the_law():
    x_P = np.array([0.1, 0.3, 1.0, 3.0, 10.0, 30.0])
    found = fit.fit_power_law(x_P, curve(x_P, 0.7, 0.5, 0.2))
    assert found.decided and found.ok
    np.testing.assert_allclose(found.solutions[0], [0.7, 0.5, 0.2], rtol=1e-6)


def test_three_points_have_two_solutions_and_do_not_decide():
    y_P = curve(X_P, 2.67, 1.25, 0.8)
    found = fit.fit_power_law(X_P, y_P)
    assert np.isfinite(found.solutions[:, 0]).sum() == 2
    assert not found.decided
    flat = fit.fit_power_law(X_P, y_P, branch="flat")
    assert flat.exponent < found.exponent
    assert np.abs(flat.residual).max() < 1e-9


def branches(a, b, c):
    """Every (N0, b) whose curve passes through three points, by a fine scan of log N0."""
    y_P = curve(X_P, a, b, c)
    log_a = np.linspace(np.log(1e-4), np.log(100), 40_000)
    shift = np.exp(log_a)
    exponent = np.full(len(shift), 0.5)
    # The ratio of the curve's two falls grows with b at any N0: bisection finds it.
    low, high = np.full(len(shift), 1e-6), np.full(len(shift), 30.0)
    for _ in range(60):
        exponent = (low + high) / 2
        f = (X_P + shift[:, None]) ** -exponent[:, None]
        steep = (f[:, 0] - f[:, 1]) / (f[:, 1] - f[:, 2]) > (y_P[0] - y_P[1]) / (y_P[1] - y_P[2])
        low, high = np.where(steep, low, exponent), np.where(steep, exponent, high)
    f = (X_P + shift[:, None]) ** -exponent[:, None]
    miss = (f[:, 0] - f[:, 2]) - (y_P[0] - y_P[2])
    inside = (exponent > 2e-6) & (exponent < 29.9)
    found = np.flatnonzero((miss[1:] * miss[:-1] < 0) & inside[1:] & inside[:-1])
    t = miss[found] / (miss[found] - miss[found + 1])
    between = lambda v: v[found] * (1 - t) + v[found + 1] * t  # noqa: E731
    return list(zip(np.exp(between(log_a)), between(exponent), strict=True))


def test_every_exact_solution_is_reported_and_no_other():
    rng, seen = np.random.default_rng(0), []
    for _ in range(60):
        a, b = np.exp(rng.uniform(np.log(0.02), np.log(15))), np.exp(rng.uniform(-2.5, 1.2))
        c = rng.uniform(0, 1)
        expected = sorted(branches(a, b, c), key=lambda s: -s[1])
        if len(expected) == 2 and expected[0][0] < 1.1 * expected[1][0]:
            continue  # nearly one double solution: what lies between is as good, to rounding
        found = fit.fit_power_law(X_P, curve(X_P, a, b, c)).solutions
        found = found[np.isfinite(found[:, 0]), :2]
        assert len(found) == len(expected), (a, b, c)
        np.testing.assert_allclose(found, expected, rtol=2e-3)
        seen.append(len(expected))
    assert set(seen) == {1, 2} and len(seen) > 50


def test_without_offset_it_is_algorithm_1():
    found = fit.fit_power_law(X_P, X_P**-0.3 + 0.1, offset="zero")
    np.testing.assert_allclose([found.offset, found.exponent, found.constant], [0, 0.3, 0.1])


def test_a_batch_is_its_parts_and_works_under_jit_and_vmap():
    rng = np.random.default_rng(0)
    y_SxKxP = curve(X_P, 1.5, 0.8, 0.3) * (1 + 0.003 * rng.standard_normal((4, 3, 3)))
    whole = fit.fit_power_law(X_P, y_SxKxP)
    part = fit.fit_power_law(X_P, y_SxKxP[1, 2])
    np.testing.assert_allclose(whole.exponent[1, 2], part.exponent, rtol=1e-9)
    with jax.enable_x64(True):
        f = jax.jit(jax.vmap(lambda y: fit.fit_power_law(X_P, y).exponent))
        np.testing.assert_allclose(f(y_SxKxP), whole.exponent, rtol=1e-9)
    with pytest.raises(BadInput, match="enable_x64"):
        jax.jit(lambda y: fit.fit_power_law(X_P, y).exponent)(y_SxKxP[0])


def test_a_harmful_domain_gets_no_exponent():
    found = fit.fit_power_law(X_P, [0.99, 1.0, 1.02], offset="zero")
    assert found.exponent < 1e-5


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([0.2, 1, 3], [1, np.nan, 1], r"y\[1\] = nan"),
        ([0.2, 1, np.inf], [1, 1, 1], r"x\[2\] = inf"),
        ([0.0, 1, 3], [1, 1, 1], r"x\[0\] = 0"),
        ([1, 1, 3], [1, 1, 1], "2 distinct amounts for 3 parameters"),
    ],
)
def test_bad_points_are_named(x, y, words):
    with pytest.raises(BadInput, match=words):
        fit.fit_power_law(np.array(x, float), np.array(y, float))


def official():
    with DDO.open() as file:
        rows = list(csv.DictReader(file))
    ppl = {r["run"]: float(r["ppl_average"]) for r in rows}
    names = tuple(n.split(":")[0] for n in ppl if n.endswith("x1/3"))
    tokens = np.ones((15, 7))
    tokens[1:8][np.eye(7, dtype=bool)] = 1 / 5
    tokens[8:][np.eye(7, dtype=bool)] = 3
    value = [ppl["base"], *(ppl[f"{n}:x1/3"] for n in names), *(ppl[f"{n}:x3"] for n in names)]
    return names, tokens, np.array(value)


@pytest.fixture(scope="module")
def published():
    if not DDO.exists():
        pytest.skip(f"{DDO} is not there")
    names, tokens, value = official()
    found = fit.ddo_optimum(tokens, value, lower=0.2 / 7, noise=0.005, samples=400, names=names)
    return value, found


def test_the_published_ddo_weights_to_1e_5(published):
    value, found = published
    weights = (1.62475, 0.2, 1.27415, 1.17980, 1.85190, 0.63716, 0.23224)
    assert np.abs(7 * found.weights_K - weights).max() < 1e-5
    assert abs(value[0] - 28.114) < 1e-3 and abs(found.value - 26.483) < 1e-3
    assert any("two laws fit equally well" in w for w in found.warnings)


def test_half_a_per_cent_of_noise_moves_the_published_weights_as_measured(published):
    _, found = published
    sd_K = (7 * found.weights_SxK).std(0)
    np.testing.assert_allclose(sd_K, [0.13, 0.03, 0.09, 0.08, 0.15, 0.19, 0.14], atol=0.04)


def test_ddo_finds_its_design_in_any_order_and_averages_replicates():
    rng = np.random.default_rng(1)
    b, c = np.array([0.3, 0.1, 0.2]), 5.0
    base = np.array([40.0, 40.0, 40.0])
    rows = [base, base]
    rows += [np.where(np.arange(3) == i, base * f, base) for i in range(3) for f in (3, 1 / 3)]
    tokens = np.array(rows)
    value = c * (1 + ((tokens / 40) ** -b - 1).sum(1))
    order = rng.permutation(len(rows))
    found = fit.ddo_optimum(tokens[order], value[order], offset="zero")
    np.testing.assert_allclose(found.law.exponent_K, b, rtol=1e-6)
    marginal = b * (found.tokens_K / 40) ** (-b - 1)
    np.testing.assert_allclose(marginal, marginal[0], rtol=1e-8)  # KKT
    assert found.kkt < 1e-10


def test_ddo_refuses_what_is_no_design():
    with pytest.raises(BadInput, match="not a DDO design"):
        fit.ddo_optimum([[1, 2], [3, 4], [5, 6]], [1, 2, 3])
    with pytest.raises(BadInput, match="domain wiki: no run changes it"):
        fit.ddo_optimum([[1, 1], [3, 1], [0.3, 1]], [1, 0.9, 1.1], names=("arxiv", "wiki"))
    with pytest.raises(BadInput, match="row 1: objective = nan"):
        fit.ddo_optimum([[1, 1], [3, 1], [0.3, 1]], [1, np.nan, 1.1])
    with pytest.raises(BadInput, match="row 0, column 1: tokens = -1"):
        fit.ddo_optimum([[1, -1], [3, 1], [0.3, 1]], [1, 1, 1.1])
