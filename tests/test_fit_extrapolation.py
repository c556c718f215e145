"""AutoScale's extrapolation: the paper's own examples, known worlds, bounds, and no root."""

import jax
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from autoscale_jax import fit
from autoscale_jax.specs import BadInput

REMARK_1 = [
    (900, 400), (2700, 800), (8100, 1600), (24300, 3200), (72900, 6400), (218700, 12800),
    (656100, 25600),
]  # fmt: skip


@pytest.mark.parametrize("expected", REMARK_1)
def test_remark_1_to_the_digit(expected):
    found = fit.extrapolate([100, 100], [300, 200], sum(expected))
    np.testing.assert_allclose(found.tokens_K, expected, rtol=1e-12)
    assert fit.autoscale_ladder([100, 100], [300, 200], sum(expected)).tolist() == list(expected)


def optimum(beta, gamma, n0, total, lower=0.0, upper=1.0):
    """True optimum of sum beta (N + n0)^-gamma by its multiplier."""

    def tokens(log_mu):
        n = np.exp((np.log(beta * gamma) - log_mu) / (gamma + 1)) - n0
        return np.clip(n, lower * total, upper * total)

    log_mu = brentq(lambda m: tokens(m).sum() - total, -200, 50, xtol=1e-13)
    return tokens(log_mu)


worlds = st.integers(0, 10_000).map(np.random.default_rng)


def draw(rng, k=5):
    return rng.uniform(0.5, 3, k), rng.uniform(0.1, 0.6, k)


@settings(max_examples=40)
@given(worlds, st.floats(0.05, 1000))
@example(np.random.default_rng(0), 1000.0)
def test_theorem_1_worlds_at_any_target(rng, factor):
    beta, gamma = draw(rng)
    n1, n2 = (optimum(beta, gamma, 0, t) for t in (1e8, 2e8))
    found = fit.extrapolate(n1, n2, 2e8 * factor)
    assert found.ok
    np.testing.assert_allclose(found.tokens_K, optimum(beta, gamma, 0, 2e8 * factor), rtol=1e-9)


@settings(max_examples=40)
@given(worlds, st.floats(1, 1000))
@example(np.random.default_rng(0), 1000.0)
def test_shifted_worlds(rng, factor):
    beta, gamma = draw(rng)
    n0 = rng.uniform(0.001, 0.02, 5) * 1e8
    n1, n2 = (optimum(beta, gamma, n0, t) for t in (3e8, 1.2e9))
    assume(min(n1.min(), n2.min()) > 0)  # a domain at zero is censored: no exact answer is claimed
    found = fit.extrapolate(n1, n2, 1.2e9 * factor, n0=n0)
    truth = optimum(beta, gamma, n0, 1.2e9 * factor)
    np.testing.assert_allclose(found.tokens_K, truth, rtol=1e-6)


@settings(max_examples=40)
@given(worlds, st.floats(1, 300))
def test_floors_and_caps_of_the_target_are_in_the_kkt_system(rng, factor):
    beta, gamma = draw(rng)
    n1, n2 = (optimum(beta, gamma, 0, t) for t in (1e8, 2e8))
    total = 2e8 * factor
    truth = optimum(beta, gamma, 0, total, lower=0.1, upper=0.3)
    found = fit.extrapolate(n1, n2, total, lower=0.1, upper=0.3)
    assert found.ok
    np.testing.assert_allclose(found.tokens_K, truth, rtol=1e-8)


def test_one_root_between_the_scales_and_the_scales_themselves():
    for total in (200, 300, 499.9, 500):
        found = fit.extrapolate([100, 100], [300, 200], total)
        assert -1e-12 <= found.t <= 1 + 1e-12 and found.ok
        assert abs(found.tokens_K.sum() - total) < 1e-9 * total


def test_no_root_is_said_and_keep_is_returned():
    found = fit.extrapolate([100, 100], [300, 80], 150)
    assert not found.ok
    assert np.isnan(found.weights_K).all()
    np.testing.assert_allclose(found.keep_K, [300 / 380, 80 / 380])
    np.testing.assert_allclose(found.shrunk_K, found.keep_K)
    text = " ".join(found.explain(("a", "b")))
    assert "no t reaches the total" in text and "b: the optimum takes fewer tokens" in text


def test_a_domain_at_its_floor_at_both_scales_stays_there():
    found = fit.extrapolate([450, 50, 500], [950, 100, 950], 8000, lower=0.05)
    np.testing.assert_allclose(found.weights_K[1], 0.05)
    assert found.censored_K.tolist() == [False, True, False]
    assert "b: at a floor or cap" in " ".join(found.explain(("a", "b", "c")))


def test_noise_shrinks_towards_keep():
    sure = fit.extrapolate([100, 100], [300, 200], 5000, log_sd=(0.01, 0.01))
    unsure = fit.extrapolate([100, 100], [300, 200], 5000, log_sd=(0.5, 0.5))
    assert sure.trust > 0.95
    assert unsure.trust == 0
    np.testing.assert_allclose(unsure.shrunk_K, unsure.keep_K)
    np.testing.assert_allclose(sure.keep_K, [0.6, 0.4])


@settings(max_examples=20)
@given(worlds)
def test_more_than_two_scales(rng):
    beta, gamma = draw(rng)
    n_SxK = np.stack([optimum(beta, gamma, 0, t) for t in (1e8, 2e8, 5e8, 1e9)])
    found = fit.extrapolate_scales(n_SxK, 1e10, log_sd_SxK=0.1)
    np.testing.assert_allclose(found.tokens_K, optimum(beta, gamma, 0, 1e10), rtol=1e-6)
    two = fit.extrapolate_scales(n_SxK[:2], 1e10)
    np.testing.assert_allclose(two.tokens_K, fit.extrapolate(*n_SxK[:2], 1e10).tokens_K, rtol=1e-9)


def test_scales_weigh_by_their_noise_and_know_offsets():
    beta, gamma = draw(np.random.default_rng(4))
    n0 = np.array([0.001, 0.002, 0.004, 0.003, 0.002]) * 1e8
    n_SxK = np.stack([optimum(beta, gamma, n0, t) for t in (1e8, 2e8, 5e8)])
    truth = optimum(beta, gamma, n0, 1e10)
    np.testing.assert_allclose(
        fit.extrapolate_scales(n_SxK, 1e10, n0=n0).tokens_K, truth, rtol=1e-6
    )
    wrong = n_SxK.copy()
    wrong[1] *= [1.5, 0.7, 1.2, 0.8, 1.0]
    sd = np.array([0.01, 9.0, 0.01])[:, None] * np.ones(5)
    weighed = fit.extrapolate_scales(wrong, 1e10, n0=n0, log_sd_SxK=sd)
    np.testing.assert_allclose(weighed.tokens_K, truth, rtol=1e-3)
    blind = fit.extrapolate_scales(wrong, 1e10, n0=n0)
    assert np.abs(blind.tokens_K / truth - 1).max() > 0.05


def test_bad_scales_inside_a_trace_are_not_ok():
    with jax.enable_x64(True):
        solve = jax.jit(lambda n1, n2, total: fit.extrapolate(n1, n2, total))
        for n1, n2 in (([100.0, -5.0], [300.0, 200.0]), ([300.0, 200.0], [100.0, 100.0])):
            found = solve(np.array(n1), np.array(n2), 1000.0)
            assert not found.ok and np.isnan(found.weights_K).all()
            assert "not in ascending order" in found.explain(("a", "b"))[0]


def test_it_is_pure_jnp():
    with jax.enable_x64(True):
        f = jax.jit(jax.vmap(lambda t: fit.extrapolate([100, 100], [300, 200], t).tokens_K))
        out = f(np.array([1300.0, 3500.0]))
        np.testing.assert_allclose(out, [(900, 400), (2700, 800)], rtol=1e-12)
        scales = np.array([[100.0, 100.0], [300.0, 200.0], [900.0, 400.0]])
        f = jax.jit(jax.vmap(lambda t: fit.extrapolate_scales(scales, t).tokens_K))
        np.testing.assert_allclose(f(np.array([3500.0])), [(2700, 800)], rtol=1e-9)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (([100, -1], [300, 200], 1000), r"n1\[1\] = -1"),
        (([100, np.nan], [300, 200], 1000), r"n1\[1\] = nan"),
        (([100, 0], [300, 200], 1000), "give tokens above 0"),
        (([100, 100, 1], [300, 200], 1000), "give K tokens each"),
        (([100, 100], [300, 200], -5), "total = -5"),
    ],
)
def test_bad_scales_are_named(args, words):
    with pytest.raises(BadInput, match=words):
        fit.extrapolate(*args)
    with pytest.raises(BadInput):
        fit.autoscale_ladder([100, 100], [90, 100], 1000)
