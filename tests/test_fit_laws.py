"""Each law recovers its own world; noise, budgets, processes and data limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_worlds import ddo_tokens, effective_world, noisy_runs
from hypothesis import given
from hypothesis import strategies as st

from autoscale_jax import fit
from autoscale_jax.fit.budgets import budgets_of, replicates_of
from autoscale_jax.fit.law import Points
from autoscale_jax.fit.noise import noise_of
from autoscale_jax.fit.parametric import FittedLaw, fit_law, predict
from autoscale_jax.fit.precision import scope
from autoscale_jax.fit.repetition import DECAY
from autoscale_jax.specs import BadInput

K = 3
OWN_E = np.arange(K)


def truth(name: str) -> FittedLaw:
    """Parameters of a law near its priors."""
    eye = np.eye(K)
    off = 0.15 * (1 - eye)
    theta = {
        "effective data": np.c_[[2, 1.5, 2.5], [0.5, 0.3, 0.6], [0, 0.2, -0.2], [-1.2, -1.1, -1.3],
                                [0] * 3, eye + off],
        "effective data, saturating": np.c_[[2, 1.5, 2.5], [0.5, 0.3, 0.6], [0, 0.2, -0.2],
                                            [-1.2, -1.1, -1.3], [-0.6, -0.5, -0.7], eye + off],
        "additive power": np.c_[[2, 1.5, 2.5], [-1.2] * 3, eye + off, [[-1.2, -1.0, -1.4]] * 3],
        "additive log": np.c_[[4, 4.5, 5], [-2.3] * 3, 0.3 * eye + 0.1 * off],
        "data mixing": np.c_[[2, 1.5, 2.5], [1, 0.5, 0.8], [-1.6] * 3, [-1.6] * 3, -eye],
    }[name]  # fmt: skip
    return FittedLaw(theta, np.full(K, 2e4), 1.0, fit.LAWS[name])


@pytest.mark.parametrize(
    "name",
    [
        "effective data",
        "effective data, saturating",
        "additive power",
        "additive log",
        "data mixing",
    ],
)
def test_a_law_predicts_its_own_world_beyond_the_data(name):
    law = truth(name)
    design = ddo_tokens(K, (6e4, 2.4e5), 1)
    mixtures = np.random.default_rng(0).dirichlet(np.ones(K), 20)
    tokens = np.vstack([design, mixtures * 6e4, mixtures[:10] * 2.4e5])
    loss = predict(law, tokens)
    points = Points(tokens, loss, np.full(loss.shape, 0.001), np.ones(len(tokens)))
    found = fit_law(fit.LAWS[name], points, OWN_E)
    assert found.ok_E.all()
    assert np.abs(found.residual_RxE).max() < 0.003
    # What the saturating law adds to its shape takes more than two budgets to tell.
    assert found.decided_E.all() == (name != "effective data, saturating")
    few = Points(*(v[:4] for v in points))
    assert not fit_law(fit.LAWS[name], few, OWN_E).decided_E.any()
    beyond = np.array([[1, 1, 1], [2, 1, 0.5]]) / 3 * 9.6e5
    assert np.abs(predict(found.fitted, beyond) - predict(law, beyond)).max() < 0.03


def test_nested_data_mixing_laws_recover_a_nested_world():
    """Steps and size each take off a term whose amplitude depends on the mixture."""
    rng = np.random.default_rng(0)
    w_MxK, t_ExK = (
        rng.dirichlet(np.ones(K), 14),
        np.array([[-2, 0, 0.5], [0, -1.5, 0], [0.3, 0, -1]]),
    )

    def loss(w, n, size):
        mixed = 0.3 * np.exp(w @ t_ExK.T)
        return 2 + mixed + (0.2 + mixed) * n**-0.5 + 0.5 * mixed * size**-0.4

    rows = [(w, n, s) for w in w_MxK for n in (1, 1.5, 2.0, 3.0) for s in (1.0, 2.0, 4.0, 8.0)]
    tokens = np.array([w * n for w, n, _ in rows]) * 1e6
    losses = np.array([loss(*row) for row in rows])
    size_R = np.array([s for _, _, s in rows])
    points = Points(tokens, losses, np.full(losses.shape, 1e-4), size_R)
    found = fit.fit_nested(points, OWN_E, tokens=1e7, size=20.0)
    new = rng.dirichlet(np.ones(K), 5)
    error = predict(found.fitted, new * 1e7) - loss(new, 10.0, 20.0)
    assert found.ok_E.all() and found.decided_E.all()
    # The truth's law is additive in steps and size, so extrapolating in turn is exact but for the
    # exponents' priors; staying at the largest run would miss by more than .05.
    assert np.abs(error).max() < 0.005
    assert np.abs(loss(new, 3.0, 8.0) - loss(new, 10.0, 20.0)).max() > 0.05
    one = points._replace(size_R=np.ones(len(rows)))
    with pytest.raises(BadInput, match="model size: no mixture has runs at two, and none at 20"):
        fit.fit_nested(one, OWN_E, tokens=1e7, size=20.0)


def test_left_out_losses_have_no_influence():
    world = effective_world(np.random.default_rng(0), K)
    tokens = ddo_tokens(K, (1e5, 4e5), 1)
    loss = world.loss(tokens)
    sd = np.full(loss.shape, 0.005)
    sd[-3:] = np.inf
    wild = loss.copy()
    wild[-3:] += 7
    fits = [
        fit_law(fit.LAWS["effective data"], Points(tokens, v, sd, np.ones(len(v))), OWN_E)
        for v in (loss, wild)
    ]
    np.testing.assert_array_equal(fits[0].fitted.theta_ExP, fits[1].fitted.theta_ExP)


def test_too_few_runs_and_bad_losses_are_named():
    tokens = ddo_tokens(K, (1e5,), 1)
    loss = np.ones((len(tokens), K))
    law = fit.LAWS["effective data"]
    with pytest.raises(BadInput, match="3 runs are too few"):
        fit_law(law, Points(tokens[:3], loss[:3], loss[:3], np.ones(3)), OWN_E)
    loss[2, 1] = np.inf
    with pytest.raises(BadInput, match="row 2, loss 1 = inf"):
        fit_law(law, Points(tokens, loss, np.ones_like(loss), np.ones(len(loss))), OWN_E)


posterior = jax.jit(lambda process, tokens, size: process.posterior(tokens, size))


@pytest.fixture(scope="module")
def process():
    """A world, tokens of 30 mixtures, each run twice at other sizes, and the process fitted."""
    rng = np.random.default_rng(0)
    world = effective_world(rng, K)
    tokens = np.tile(rng.dirichlet(np.ones(K), 30) * 1e6, (2, 1))
    size_R = np.repeat([1.0, 4.0], 30)
    loss = world.loss(tokens) - 0.1 * np.log(size_R)[:, None]
    fitted = fit.fit_gp(Points(tokens, loss, np.full(loss.shape, 0.002), size_R))
    with scope():
        return world, tokens, jax.tree.map(jnp.asarray, fitted)


def test_a_process_interpolates_in_mixture_and_size(process):
    world, _, fitted = process
    new = np.random.default_rng(1).dirichlet(np.full(K, 3.0), 20) * 1e6
    with scope():
        mean, cov = map(np.asarray, posterior(fitted, jnp.asarray(new), 2.0))
        slope = jax.jit(jax.grad(lambda t: fitted.predict(t)[0]))(jnp.full(K, 3e5))
    error = mean - (world.loss(new) - 0.1 * np.log(2.0))
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2)).T
    assert np.sqrt((error**2).mean()) < 0.1 * world.loss(new).std()
    assert np.abs(error / sd).mean() < 2
    assert np.isfinite(slope).all()


def test_functions_drawn_from_a_process_have_its_mean_and_covariance(process):
    _, tokens, fitted = process
    far = np.array([[0.9, 0.05, 0.05], [0.8, 0.15, 0.05], [0.1, 0.1, 0.8]]) * 3e6
    with scope():
        query = jnp.asarray(np.vstack([tokens[:1], far]))
        mean, cov = map(np.asarray, posterior(fitted, query, 1.0))
        drawn = jax.tree.map(jnp.asarray, fit.draw(fitted, 1000))
        values = jax.jit(jax.vmap(lambda i: drawn.sample(i).predict(query)))(jnp.arange(1000))
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2)).T
    z = (np.asarray(values) - mean) / sd
    np.testing.assert_allclose(z.mean(0), 0, atol=0.2)
    np.testing.assert_allclose(z.std(0), 1, rtol=0.2)
    for e in range(K):
        truth = cov[e] / np.sqrt(np.outer(np.diag(cov[e]), np.diag(cov[e])))
        np.testing.assert_allclose(np.corrcoef(z[:, :, e].T), truth, atol=0.2)


def test_runs_that_repeat_each_other_do_not_break_a_process():
    rng = np.random.default_rng(0)
    tokens = np.repeat(rng.dirichlet(np.ones(K), 6) * 1e6, 5, axis=0)
    loss = effective_world(rng, K).loss(tokens)
    points = Points(tokens, loss, np.full(loss.shape, 1e-9), np.ones(30))
    with scope():
        fitted = jax.tree.map(jnp.asarray, fit.fit_gp(points))
        mean, cov = posterior(fitted, jnp.asarray(tokens), 1.0)
    np.testing.assert_allclose(mean, loss, atol=0.01)
    assert np.isfinite(cov).all()


def test_budgets_and_replicates_are_recognised():
    tokens = ddo_tokens(K, (1e5, 2e5), replicates=2)
    groups = budgets_of(tokens)
    assert [len(g) for g in groups] == [8, 8]
    assert [g.tolist() for g in replicates_of(tokens)] == [[0, 1], [8, 9]]
    partial = np.delete(tokens, [2, 3, 12], axis=0)  # runs that diverged
    assert [len(g) for g in budgets_of(partial)] == [6, 7]
    free = np.random.default_rng(0).dirichlet(np.ones(K), 12)
    tokens = np.vstack([free[:6] * 1e5, free[6:] * 1e6])
    assert [len(g) for g in budgets_of(tokens)] == [6, 6]


@pytest.mark.parametrize(("replicates", "source"), [(6, "replicates"), (1, "residuals")])
def test_noise_is_found(replicates, source):
    rng = np.random.default_rng(3)
    world = effective_world(rng, K)
    found = []
    for _ in range(6):
        runs = noisy_runs(world, ddo_tokens(K, (1e5, 4e5), replicates), 0.01, rng)
        noise = noise_of(runs, OWN_E)
        assert noise.source == source
        found.append(noise.sd_E.mean())
    assert 0.006 < np.mean(found) < 0.015
    assert noise_of(runs, OWN_E, 0.02).sd_E.tolist() == [0.02] * K


def test_repeated_tokens_count_less_and_less():
    assert fit.effective_tokens(5.0, 10.0) == 5.0
    assert fit.effective_tokens(1e9, np.inf) == 1e9
    # Four epochs are nearly fresh data; endless repetition is worth (1 + R*) times the data.
    assert 3.6 < fit.effective_tokens(40.0, 10.0) / 10 < 3.75
    assert abs(fit.effective_tokens(1e9, 10.0) / 10 - (1 + DECAY)) < 1e-6
    x = np.linspace(1, 200, 400)
    assert (np.diff(fit.effective_tokens(x, 10.0)) > 0).all()


def test_caps():
    np.testing.assert_allclose(fit.epoch_caps([10, 100], 100, 4), [0.4, 1.0])
    with pytest.raises(BadInput, match="fewer than the target's"):
        fit.epoch_caps([1, 2], 100, 4)


@given(st.integers(1, 10**6), st.integers(1, 10**9), st.integers(1, 1000), st.floats(0.01, 1))
def test_equal_weights_repeat_alike_at_both_scales(unique, budget, times, weight):
    target = budget * times
    pool = fit.matched_pools({"wiki": unique}, budget, target)["wiki"]
    assert 1 <= pool <= unique
    at_target, at_proxy = weight * target / unique, weight * budget / pool
    assert at_proxy <= at_target * (1 + 1e-12)  # rounded up: never more often
    assert at_proxy * (1 + times / unique) >= at_target * (1 - 1e-12)  # and by less than one


def test_pools_are_at_most_what_there_is():
    assert fit.matched_pools({"wiki": 70, "web": 0}, 10, 100) == {"wiki": 7, "web": 0}
    assert fit.matched_pools({"wiki": 70}, 100, 100) == {"wiki": 70}
    assert fit.matched_pools({"wiki": 70}, 300, 100) == {"wiki": 70}
    with pytest.raises(BadInput, match="target_tokens = 0: give training tokens, above 0"):
        fit.matched_pools({"wiki": 70}, 100, 0)
