"""The mixture of a law: a known law's optimum found from few runs, and silence where it knows
nothing."""

import numpy as np
import pytest

from autoscale_jax.fit.effective import EffectiveData
from autoscale_jax.fit.parametric import FittedLaw, predict
from autoscale_jax.fit.simplex import optimal_mixture
from autoscale_jax.methods.law_mixture import law_mixture
from autoscale_jax.methods.space import Size, Space, Trial
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Run

NAMES = ("a", "b", "c")
SPACE = Space(
    NAMES, (Size("s", 1e6, 1.0, 1000), Size("l", 1e7, 10.0, 1000)), (100, 300, 1000), 1000,
    (0.02,) * 3, (0.9,) * 3,
)  # fmt: skip
SCALE = 1e5 / 3  # tokens of a domain in the shortest run of the three alike
# E, log beta, log k0, log gamma, log rho, and what each domain's tokens are worth to the others
THETA_ExP = np.array(
    [
        [1.5, 1.0, -0.5, np.log(0.4), 0.0, 1.0, 0.05, 0.0],
        [2.0, 0.3, -0.2, np.log(0.3), 0.0, 0.1, 1.0, 0.05],
        [1.0, 0.8, -1.0, np.log(0.35), 0.0, 0.0, 0.1, 1.0],
    ]
)
LAW = FittedLaw(THETA_ExP, np.full(3, SCALE), 1.0, EffectiveData())


def perplexity(loss):
    return float(np.mean([np.exp(loss[name]) for name in NAMES]))


def runs(rng, count, names=NAMES, losses=predict):
    """Short runs of mixtures at the target's size, and useless ones of the smaller model."""
    for i in range(2 * count):
        trial = Trial(rng.dirichlet(np.ones(3)), i % 2, (100, 300)[i // 2 % 2])
        spec = SPACE.spec(trial)
        tokens_K = np.array([spec.tokens[name] for name in NAMES], float)
        loss_E = losses(LAW, tokens_K[None])[0] + rng.normal(0, 0.002, 3)
        loss_E = loss_E if trial.size else rng.uniform(1, 5, 3)
        loss = dict(zip(names, loss_E.tolist(), strict=True))
        yield Run(spec, str(i), "ok", loss, spec.tokens, dict.fromkeys(NAMES, 0.0))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_optimum_of_a_known_law_is_found_from_few_short_runs(seed):
    table = RunTable(runs(np.random.default_rng(seed), 8))
    found_K = law_mixture(table, SPACE, perplexity, (), np.full(3, 1 / 3))
    best = optimal_mixture(LAW, 1e6, lower=0.02, upper=0.9)

    def at(weights_K):
        return perplexity(dict(zip(NAMES, predict(LAW, 1e6 * weights_K[None])[0], strict=True)))

    assert found_K.sum() == pytest.approx(1) and found_K.min() >= 0.02 - 1e-9
    gap = at(np.full(3, 1 / 3)) - at(np.asarray(best.weights_K))
    assert at(found_K) - at(np.asarray(best.weights_K)) < 0.1 * gap  # of short runs, 8


def test_only_losses_that_the_objective_depends_on_are_asked_of_the_law():
    def below_zero(law, tokens_RxK):
        return predict(law, tokens_RxK) * [1, 1, -1]

    table = RunTable(runs(np.random.default_rng(0), 8, losses=below_zero))
    found_K = law_mixture(table, SPACE, lambda loss: loss["b"], (), np.full(3, 1 / 3))
    assert found_K[1] == pytest.approx(0.9, abs=1e-3)  # the cap: b's own tokens are worth most


def test_there_is_none_where_laws_know_nothing():
    rng, start_K = np.random.default_rng(0), np.full(3, 1 / 3)
    foreign = RunTable(runs(rng, 8, names=("x", "y", "z")))
    assert law_mixture(foreign, SPACE, lambda loss: loss["x"], (), start_K) is None
    few = RunTable(runs(rng, 5))
    assert law_mixture(few, SPACE, perplexity, (), start_K) is None
    below = RunTable(runs(rng, 8, losses=lambda law, tokens: predict(law, tokens) - 9))
    assert law_mixture(below, SPACE, perplexity, (), start_K) is None
