"""The surrogate of the search: its gradient, what it transfers, and input that breaks others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autoscale_jax.fit.gp_transfer import (
    _noisy,
    _objective,
    fit_surrogate,
    inputs,
    kernel,
    posterior,
    prior,
    told,
    unpack,
)
from autoscale_jax.fit.marginal import negative_log_marginal
from autoscale_jax.fit.precision import scope
from autoscale_jax.specs import BadInput

K, TARGET = 3, (1e9, 20_000.0)


def some(rng, count, sizes=(2e7, 3e8, 1e9), steps=(2000, 20_000)):
    weights_RxK = rng.dirichlet(np.ones(K), count)
    return inputs(weights_RxK, rng.choice(sizes, count), rng.choice(steps, count), TARGET)


def at(fitted, x_QxD):
    with scope():
        return [np.asarray(v) for v in posterior(fitted, jnp.asarray(x_QxD))]


def test_the_gradient_of_the_marginal_likelihood_is_the_factorisations_own():
    rng = np.random.default_rng(0)

    def plain(k, y):
        chol = jnp.linalg.cholesky(k)
        half = jax.scipy.linalg.solve_triangular(chol, y, lower=True)
        return 0.5 * half @ half + jnp.log(jnp.diag(chol)).sum()

    with scope():
        root = jnp.asarray(rng.standard_normal((6, 6)))
        k, y = root @ root.T + jnp.eye(6), jnp.asarray(rng.standard_normal(6))
        ours = jax.grad(negative_log_marginal, (0, 1))(k, y)
        theirs = jax.grad(plain, (0, 1))(k, y)
        for a, b in zip(ours, theirs, strict=True):
            both = (b + b.T) / 2 if b.ndim == 2 else b  # k is symmetric
            np.testing.assert_allclose(np.asarray(a), np.asarray(both), rtol=1e-9)


def test_any_kernel_within_its_priors_is_positive_definite():
    rng = np.random.default_rng(1)
    mean_P, sd_P = prior(K)
    x_RxD = some(rng, 40)
    x_RxD = np.concatenate([x_RxD, x_RxD[:10]])  # repeated observations
    covariance, noise = jax.jit(kernel), jax.jit(_noisy)
    with scope():
        for _ in range(30):
            theta_P = jnp.asarray(mean_P + sd_P * rng.standard_normal(len(mean_P)))
            least = np.linalg.eigvalsh(np.asarray(covariance(theta_P, x_RxD, x_RxD))).min()
            assert least > -1e-8
            noisy = noise(theta_P, jnp.asarray(x_RxD), jnp.ones(50))
            assert np.isfinite(np.linalg.cholesky(np.asarray(noisy))).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_small_models_transfer_with_either_sign(sign):
    """A few runs of large models tell how to read many of small ones."""
    rng = np.random.default_rng(2)

    def truth(x_RxD):
        effect_R, grown_R = x_RxD[:, 0] - 0.7 * x_RxD[:, 1], x_RxD[:, K] * x_RxD[:, K + 1]
        return 3 - grown_R + effect_R * (1 + (sign - 1) * grown_R)  # times 1, or +1 to -1

    small = some(rng, 60, (2e7, 1e8), (2000,))
    large = some(rng, 6, (1e9,), (20_000,))
    held = some(rng, 100, (1e9,), (20_000,))
    x_RxD = np.concatenate([small, large])
    mean_Q, sd_Q = at(fit_surrogate(x_RxD, truth(x_RxD)), held)
    assert np.corrcoef(mean_Q, truth(held))[0, 1] > 0.9
    assert np.mean(np.abs(mean_Q - truth(held)) < 1.645 * sd_Q) > 0.8


@pytest.mark.parametrize("logs", [False, True])
def test_whether_weights_count_by_their_logs_is_learnt(logs):
    """Where every domain is needed, the best mixture lies inside, though few runs are near it."""
    rng = np.random.default_rng(7)
    share_K = np.array([0.5, 0.3, 0.2])

    def truth(x_RxD):
        seen_RxK = np.log(x_RxD[:, :K] + 0.005) if logs else x_RxD[:, :K]
        return 3 - x_RxD[:, K] - 0.1 * x_RxD[:, K + 1] - seen_RxK @ share_K

    x_RxD = np.concatenate([some(rng, 20), inputs(np.eye(K), [1e9] * K, [2000] * K, TARGET)])
    fitted = fit_surrogate(x_RxD, truth(x_RxD))
    bend = float(np.exp(unpack(fitted.theta_P, K).bend))
    assert bend < 0.05 if logs else bend > 0.5
    held = some(rng, 500, (1e9,), (20_000,))
    mean_Q, _ = at(fitted, held)
    expected_K = share_K if logs else np.eye(K)[0]
    np.testing.assert_allclose(held[mean_Q.argmin(), :K], expected_K, atol=0.1)


def test_padding_changes_nothing():
    rng = np.random.default_rng(3)
    x_RxD = some(rng, 20)
    y_R = x_RxD[:, 0] ** 2 + 0.1 * rng.standard_normal(20)
    fitted = fit_surrogate(x_RxD, y_R)
    assert len(fitted.y_R) == 64
    with scope():
        z_R = (y_R - fitted.centre) / fitted.scale
        value, slope_P = _objective(fitted.theta_P, x_RxD, z_R, np.ones(20))
        padded, padded_P = _objective(fitted.theta_P, fitted.x_RxD, fitted.y_R, fitted.used_R)
        k_RxR = np.asarray(jax.jit(_noisy)(fitted.theta_P, jnp.asarray(x_RxD), jnp.ones(20)))
        cross_QxR = np.asarray(jax.jit(kernel)(fitted.theta_P, x_RxD, x_RxD))
    np.testing.assert_allclose([value, *slope_P], [padded, *padded_P], rtol=1e-8, atol=1e-8)
    mean_Q, _ = at(fitted, x_RxD)
    by_hand = fitted.centre + fitted.scale * cross_QxR @ np.linalg.solve(k_RxR, z_R)
    np.testing.assert_allclose(mean_Q, by_hand, rtol=1e-8)


def test_a_pending_observation_leaves_means_and_takes_uncertainty():
    rng = np.random.default_rng(4)
    x_RxD = some(rng, 64)  # the pending one needs more padding
    fitted = fit_surrogate(x_RxD, x_RxD[:, 0] + 0.01 * rng.standard_normal(64))
    new = some(rng, 50)
    before, sd_before = at(fitted, new)
    after, sd_after = at(told(fitted, new[0]), new)
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert (sd_after < sd_before + 1e-9).all()
    noise, variance = float(fitted.noise()) * fitted.scale**2, sd_before[0] ** 2
    np.testing.assert_allclose(sd_after[0] ** 2, variance * noise / (variance + noise), rtol=1e-3)


def test_constant_and_repeated_observations_are_fitted():
    rng = np.random.default_rng(5)
    x_RxD = np.repeat(some(rng, 3), 8, 0)
    mean_Q, sd_Q = at(fit_surrogate(x_RxD, np.full(24, 2.5)), x_RxD)
    np.testing.assert_allclose(mean_Q, 2.5, atol=1e-6)
    assert np.isfinite(sd_Q).all()
    noisy = fit_surrogate(x_RxD, np.tile([1.0, 1.2], 12))  # the same run, two results
    assert float(noisy.noise()) > 0.1  # of a variance of 1


def test_too_few_observations_and_nan_are_named():
    x_RxD = some(np.random.default_rng(6), 4)
    with pytest.raises(BadInput, match="1 observations: the surrogate needs 2 or more"):
        fit_surrogate(x_RxD[:1], np.ones(1))
    with pytest.raises(BadInput, match="all finite"):
        fit_surrogate(x_RxD, np.array([1, 2, np.nan, 3]))
