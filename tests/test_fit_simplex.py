"""The optimum on the capped simplex against SLSQP, and its certificates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize

from autoscale_jax import fit
from autoscale_jax.fit.objective import SHARPNESS
from autoscale_jax.fit.parametric import FittedLaw, predict
from autoscale_jax.fit.power import PowerLaw
from autoscale_jax.fit.precision import scope
from autoscale_jax.fit.simplex import project
from autoscale_jax.specs import BadInput


class Losses(NamedTuple):
    """The same law as a `PowerLaw`, through the general solver: it predicts a loss."""

    scale_K: Any
    law: PowerLaw

    def predict(self, tokens):
        return self.law.predict(tokens)


def problem(seed, k):
    """A random problem; every fourth has zero exponents, every fifth all caps but one active."""
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0.1, 3, k), rng.uniform(0.05, 2, k)
    if seed % 4 == 0:
        b[rng.random(k) < 0.3] = 0.0
    lower = rng.uniform(0, 0.5 / k, k)
    upper = np.minimum(1, rng.uniform(1, 4, k) / k)
    if seed % 5 == 0:
        upper = np.full(k, 0.8 / k)
        upper[rng.integers(k)] = 1.0
    if upper.sum() < 1:
        upper = np.minimum(upper * 1.2 / upper.sum(), 1)
    return PowerLaw(a, b, np.full(k, 1 / k), 1.0), lower, upper


def slsqp(law, lower, upper):
    k = len(lower)

    def f(w):
        return (
            1
            + ((law.offset_K + k * w) ** -law.exponent_K).sum()
            - ((law.offset_K + 1) ** -law.exponent_K).sum()
        )

    def gradient(w):
        return -k * law.exponent_K * (law.offset_K + k * w) ** (-law.exponent_K - 1)

    start = np.clip(np.full(k, 1 / k), lower, upper)
    result = minimize(
        f, start, jac=gradient, bounds=list(zip(lower, upper, strict=True)), method="SLSQP",
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(k)},
        options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    feasible = abs(result.x.sum() - 1) < 1e-9
    return result.fun if feasible else np.inf


def check(law, lower, upper, general):
    k = len(lower)
    solved: Any = Losses(np.ones(k), law) if general else law
    objective = "mean_loss" if general else "mean_perplexity"
    found = fit.optimal_mixture(solved, 1.0, lower=lower, upper=upper, objective=objective)
    w = found.weights_K
    assert abs(w.sum() - 1) < 1e-9
    assert (w >= lower - 1e-12).all() and (w <= upper + 1e-12).all()
    # Never worse than the peer; the duality gap bounds the distance to the optimum from above.
    assert found.value <= slsqp(law, lower, upper) + 1e-8
    assert found.gap < 1e-8 and found.kkt < 1e-5 and found.ok
    return w, lower, upper


@pytest.mark.parametrize("k", [2, 7, 100])
def test_random_problems_equal_slsqp_by_bisection(k):
    for seed in range(5 if k == 100 else 20):
        check(*problem(seed, k), general=False)


@pytest.mark.parametrize("k", [2, 7])
def test_random_problems_equal_slsqp_by_projected_gradient(k):
    for seed in range(20):
        check(*problem(seed, k), general=True)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("k", [2, 7, 30])
def test_degenerate_problems(k, general):
    rng = np.random.default_rng(k)
    a, b = rng.uniform(0.1, 3, k), rng.uniform(0.5, 2, k)
    law, zero = PowerLaw(a, b, np.full(k, 1 / k), 1.0), np.zeros(k)
    # All caps but one active: the last domain must take what they leave.
    upper = np.full(k, 0.8 / k)
    upper[-1] = 1.0
    weak = law._replace(exponent_K=np.where(np.arange(k) == k - 1, 1e-3, b))
    w, _, upper = check(weak, zero, upper, general)
    assert (w[:-1] > upper[:-1] - 1e-9).all()
    # Caps, or floors, that leave one mixture only.
    for lower, upper in ((zero, np.full(k, 1 / k)), (np.full(k, 1 / k), np.ones(k))):
        w, *_ = check(law, lower, upper, general)
        np.testing.assert_allclose(w, 1 / k, atol=1e-9)
    # No domain has a say.
    check(law._replace(exponent_K=zero), zero, np.ones(k), general)


@pytest.mark.parametrize("general", [False, True])
def test_the_optimum_under_jit_and_vmap(general):
    power, lower, upper = problem(1, 5)
    law: Any = Losses(np.ones(5), power) if general else power

    def solve(law, tokens, lower, upper):
        return fit.optimal_mixture(
            law, tokens, lower=lower, upper=upper, objective="mean_loss"
        ).weights_K

    tokens = np.array([0.5, 1.0, 2.0])
    one = [solve(law, t, lower, upper) for t in tokens]
    with jax.enable_x64(True):
        many = jax.jit(jax.vmap(solve, in_axes=(None, 0, None, None)))
        found = many(jax.tree.map(jnp.asarray, law), tokens, lower, upper)
    np.testing.assert_allclose(found, one, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n"), [(2, 300), (7, 500), (30, 150), (100, 50)])
@pytest.mark.parametrize("general", [False, True])
def test_a_thousand_random_problems(k, n, general):
    for seed in range(n):
        check(*problem(seed, k), general)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([2, 5, 12]))
def test_projection_is_the_nearest_feasible_point(seed, k):
    rng = np.random.default_rng(seed)
    lower, upper = rng.uniform(0, 0.4 / k, k), rng.uniform(1.2 / k, 1, k)
    v = rng.normal(0, 1, k)
    with scope():
        w = np.asarray(project(jnp.asarray(v), jnp.asarray(lower), jnp.asarray(upper)))
    assert abs(w.sum() - 1) < 1e-12
    assert (w >= lower).all() and (w <= upper).all()
    # Variational inequality: (v - w).(u - w) <= 0 for every feasible u.
    best = linprog(
        -(v - w), A_eq=np.ones((1, k)), b_eq=[1], bounds=list(zip(lower, upper, strict=True))
    )
    assert (v - w) @ (best.x - w) < 1e-9


def test_a_worst_domain_objective_lifts_the_worst():
    law = fit.LAWS["effective data"]
    theta = np.array(
        [
            [1.0, 0.5, 0.0, -1.0, 0.0, 1, 0, 0],
            [2.0, 0.7, 0.0, -1.0, 0.0, 0, 1, 0],
            [1.0, 0.0, 0.0, -1.0, 0.0, 0, 0, 1],
        ]
    )
    fitted = FittedLaw(theta, np.full(3, 1.0), 1.0, law)
    worst = fit.optimal_mixture(
        fitted, 300.0, objective="worst_loss", target_weights=np.full(3, 1 / 3), lower=0.01
    )
    top, second, _ = np.sort(predict(fitted, worst.weights_K[None] * 300)[0])[::-1]
    uniform = predict(fitted, np.full((1, 3), 100.0))[0]
    assert worst.ok and top < uniform.max()
    # Either no other domain comes near the worst, which then takes all, or the two are level.
    assert top - second < 0.02 or worst.weights_K.max() > 0.97
    first = fit.optimal_mixture(
        fitted, 300.0, objective="worst_loss", target_weights=np.array([1.0, 0, 0])
    )
    assert first.weights_K[0] > 0.99


def least_worst(fitted, tokens, k):
    """The least that the worst loss can be, by its epigraph."""
    result = minimize(
        lambda v: v[-1], np.append(np.full(k, 1 / k), 10.0), method="SLSQP",
        bounds=[(1e-6, 1)] * k + [(0, 20)],
        constraints=[
            {"type": "eq", "fun": lambda v: v[:-1].sum() - 1},
            {"type": "ineq", "fun": lambda v: v[-1] - predict(fitted, v[None, :-1] * tokens)[0]},
        ],
        options={"ftol": 1e-10, "maxiter": 300},
    )  # fmt: skip
    return result.fun


def test_the_smooth_worst_is_within_its_bound_of_the_least_worst():
    rng, k = np.random.default_rng(3), 3
    for _ in range(3):
        floor, beta = rng.uniform(1, 2, k), rng.uniform(0.3, 1, k)
        theta = np.c_[floor, np.log(beta), np.zeros(k), np.full(k, -1.0), np.zeros(k), np.eye(k)]
        fitted = FittedLaw(theta, np.ones(k), 1.0, fit.LAWS["effective data"])
        found = fit.optimal_mixture(fitted, 300.0, objective="worst_loss")
        truth = predict(fitted, found.weights_K[None] * 300)[0].max()
        bound = np.log(k) / SHARPNESS
        assert truth <= least_worst(fitted, 300.0, k) + bound
        assert truth <= found.value <= truth + bound


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"lower": 0.6}, "floors sum to 1.2"),
        ({"upper": 0.4}, "caps sum to 0.8"),
        ({"lower": [0.5, 0], "upper": [0.4, 1]}, "domain 0: floor 0.5 and cap 0.4"),
        ({"lower": [0.1, 0.1, 0.1]}, "one number or 2"),
        ({"lower": -0.1}, "floor -0.1"),
    ],
)
def test_impossible_bounds_are_named(bounds, words):
    law = PowerLaw(np.ones(2), np.ones(2), np.ones(2), 1.0)
    with pytest.raises(BadInput, match=words):
        fit.optimal_mixture(law, 10.0, **bounds)
