"""Each law recovers its own world; noise, budgets, processes and data limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_worlds import ddo_tokens, effective_world, noisy_runs

from autoscale_jax import fit
from autoscale_jax.fit.budgets import budgets_of, replicates_of
from autoscale_jax.fit.law import FittedLaw, Points, fit_law, predict
from autoscale_jax.fit.noise import noise_of
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
    beyond = np.array([[1, 1, 1], [2, 1, 0.5]]) / 3 * 9.6e5
    assert np.abs(predict(found.fitted, beyond) - predict(law, beyond)).max() < 0.03


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


def test_a_process_interpolates_and_is_differentiable():
    rng = np.random.default_rng(0)
    world = effective_world(rng, K)
    tokens = rng.dirichlet(np.ones(K), 60) * 1e6
    loss = world.loss(tokens)
    points = Points(tokens, loss, np.full(loss.shape, 0.002), np.ones(60))
    process = fit.fit_gp(points)
    new = rng.dirichlet(np.full(K, 3.0), 20) * 1e6
    with scope():
        process = jax.tree.map(jnp.asarray, process)
        error = np.asarray(process.predict(jnp.asarray(new))) - world.loss(new)
        slope = jax.grad(lambda t: process.predict(t)[0])(jnp.full(K, 3e5))
    assert np.sqrt((error**2).mean()) < 0.1 * loss.std()
    assert np.isfinite(slope).all()


def test_budgets_and_replicates_are_recognised():
    tokens = ddo_tokens(K, (1e5, 2e5), replicates=2)
    groups = budgets_of(tokens)
    assert [len(g) for g in groups] == [8, 8]
    assert [g.tolist() for g in replicates_of(tokens)] == [[0, 1], [8, 9]]
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


def test_caps_and_matched_pools():
    np.testing.assert_allclose(fit.epoch_caps([10, 100], 100, 4), [0.4, 1.0])
    with pytest.raises(BadInput, match="fewer than the target's"):
        fit.epoch_caps([1, 2], 100, 4)
    pools = fit.matched_pools(
        {"wiki": 1000, "web": 10_000}, {"wiki": 4000, "web": 5000}, {"wiki": 40, "web": 50}
    )
    assert pools == {"wiki": 10, "web": 10_000}  # 4 epochs of wiki in both; web is not repeated
    with pytest.raises(BadInput, match=r"proxy\['wikki'\]"):
        fit.matched_pools({}, {}, {"wikki": 1})
