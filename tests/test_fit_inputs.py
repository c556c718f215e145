"""Bad numbers are refused everywhere, in one line that names place, value and remedy."""

import dataclasses

import jax
import numpy as np
import pytest
from fit_worlds import ddo_tokens, effective_world, noisy_runs

from autoscale_jax import fit
from autoscale_jax.fit.law import Points
from autoscale_jax.fit.parametric import FittedLaw, fit_law
from autoscale_jax.fit.power import PowerLaw
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec

K = 3
NAN, INF = float("nan"), float("inf")
X, Y = [0.2, 1.0, 3.0], [1.1, 1.0, 0.95]
TOKENS = ddo_tokens(K, (1e5, 4e5), 1)
WORLD = effective_world(np.random.default_rng(0), K)
RUNS = noisy_runs(WORLD, TOKENS, 0.005, np.random.default_rng(1))
DESIGN, VALUE = TOKENS[:7], np.exp(RUNS.loss_RxE[:7]).mean(1)
POWER = PowerLaw(np.ones(2), np.full(2, 0.3), np.ones(2), np.float64(1.0))
THETA = np.array([[1.0, 0.5, 0.0, -1.0, 0.0, 1, 0.1], [2.0, 0.7, 0.0, -1.0, 0.0, 0.1, 1]])
LAW = FittedLaw(THETA, np.ones(2), 1.0, fit.LAWS["effective data"])


def changed(name, where, value):
    """RUNS with one number put in."""
    array = np.array(getattr(RUNS, name), dtype=float)
    array[where] = value
    return dataclasses.replace(RUNS, **{name: array})


def points(**values):
    whole = {"tokens_RxK": TOKENS, "loss_RxE": RUNS.loss_RxE, "size_R": np.ones(len(TOKENS))}
    return Points(**(whole | {"sd_RxE": np.full(RUNS.loss_RxE.shape, 0.01)} | values))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit.fit_power_law(X, Y, offset="fre"), "offset = 'fre': give one of free, zero"),
        (lambda: fit.fit_power_law(X, Y, branch="steap"), "branch = 'steap'"),
        (lambda: fit.fit_power_law(X, Y, weights=[1, INF, 1]), r"weights\[1\] = inf"),
        (lambda: fit.fit_power_law(X, Y, weights=[1, -1, 1]), r"weights\[1\] = -1"),
        (lambda: fit.fit_power_law(X, [1, 2]), "x, y, weights have shapes"),
        (lambda: fit.fit_power_law(1.0, 1.0), "give points"),
        (lambda: fit.ddo_optimum(DESIGN, VALUE, total=NAN), "total = nan"),
        (lambda: fit.ddo_optimum(DESIGN, VALUE, total=-5), "total = -5"),
        (lambda: fit.ddo_optimum(DESIGN, VALUE, noise=-0.1), "noise = -0.1"),
        (lambda: fit.ddo_optimum(DESIGN, VALUE, noise=NAN), "noise = nan"),
        (lambda: fit.ddo_optimum(DESIGN, VALUE, names=("a",)), "names = .*: give one for each"),
        (lambda: fit.ddo_optimum(DESIGN, VALUE, samples=-1), "samples = -1"),
        (lambda: fit.optimal_mixture(POWER, NAN), "tokens = nan"),
        (lambda: fit.optimal_mixture(POWER, INF), "tokens = inf"),
        (lambda: fit.optimal_mixture(POWER, 10, lower={"a": 1}), "lower, upper: give one number"),
        (lambda: fit.optimal_mixture(POWER, 10, target_weights=[1]), "a PowerLaw predicts"),
        (
            lambda: fit.optimal_mixture(POWER._replace(exponent_K=np.array([NAN, 1])), 10),
            r"PowerLaw\[0\] = nan: the law's parameters",
        ),
        (lambda: fit.optimal_mixture(LAW, 10, objective="mean"), "objective = 'mean'"),
        (lambda: fit.optimal_mixture(LAW, 10, target_weights=[-1, 2]), "eval_weights = "),
        (lambda: fit.optimal_mixture(LAW, 10, target_weights=[1, 1, 1]), "3 given for 2"),
        (lambda: fit.optimal_mixture(LAW, 10, starts_TxK=[[NAN, NAN]]), r"starts_TxK\[0, 0\]"),
        (lambda: fit.optimal_mixture(LAW, 10, starts_TxK=[[1.0]]), "give T mixtures of 2"),
        (lambda: fit.epoch_caps([1, 2], NAN, 4), "tokens = nan"),
        (lambda: fit.epoch_caps([1, 2], 1, 0), "max_epochs = 0"),
        (lambda: fit.extrapolate([1, 1], [3, 2], 9, log_sd=(NAN, 0.1)), r"log_sd\[0\] = nan"),
        (lambda: fit.extrapolate([1, 1], [3, 2], 9, log_sd=0.1), "give two"),
        (lambda: fit.extrapolate([1, 1], [3, 2], 9, n0=[1, 1, 1]), "n0 has shape"),
        (lambda: fit.extrapolate([3, 2], [1, 1], 3), "give the smaller scale first"),
        (lambda: fit.extrapolate(["a", 1], [1, 1], 3), "n1 = .*: give tokens above 0"),
        (lambda: fit.extrapolate_scales([[5, 5], [3, 2], [1, 1]], 9), "smaller scale first"),
        (lambda: fit.extrapolate_scales([[1, 1]], 9), "give two scales or more"),
        (
            lambda: fit.extrapolate_scales([[1, 1], [3, 2]], 9, log_sd_SxK=[[0, 1], [1, 1]]),
            r"log_sd_SxK\[0, 0\] = 0",
        ),
        (lambda: fit.fit_gp(points(tokens_RxK=TOKENS * NAN)), "row 0, domain 0: tokens = nan"),
        (lambda: fit.fit_gp(points(sd_RxE=RUNS.loss_RxE * 0)), "row 0, sd 0 = 0"),
        (
            lambda: fit_law(LAW.law, points(size_R=np.zeros(len(TOKENS))), np.arange(K)),
            r"size\[0\] = 0",
        ),
        (lambda: fit.recommend(RUNS, 1e6, samples=0), "samples = 0: give a whole number, 2"),
        (lambda: fit.recommend(RUNS, 1e6, lower="a"), r"lower\['arxiv'\] = 'a': give a number"),
        (lambda: fit.next_run(RUNS, 1e6, flops_per_token=-1), "flops_per_token = -1"),
        (lambda: fit.select(changed("loss_RxE", (2, 1), 1e300)), "more nats per token than"),
        (lambda: fit.select(changed("loss_RxE", (2, 1), -0.1)), "is 0 or more"),
        (lambda: fit.select(changed("tokens_RxK", (2, 1), INF)), "run 'run2', domain 'books'"),
        (
            lambda: fit.select(dataclasses.replace(RUNS, loss_RxE=RUNS.loss_RxE[:3])),
            r"loss_RxE has shape \(3, 3\): give 14 runs",
        ),
    ],
)
def test_bad_numbers_are_refused(call, words):
    with pytest.raises(BadInput, match=words) as refused:
        call()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("call", [fit.select, lambda runs: fit.recommend(runs, 1e6)])
def test_what_chooses_by_its_data_says_so_inside_a_trace(call):
    def traced(loss_RxE):
        call(dataclasses.replace(RUNS, loss_RxE=loss_RxE))
        return 0.0

    with pytest.raises(BadInput, match="call it outside of jit"):
        jax.jit(traced)(RUNS.loss_RxE)
    with pytest.raises(BadInput, match="ddo_optimum chooses by its data"):
        jax.jit(lambda value_R: fit.ddo_optimum(DESIGN, value_R).weights_K)(VALUE)


def test_runs_of_several_model_sizes_are_not_mixed():
    table = RunTable()
    for size in ("small", "large"):
        for i, tokens_K in enumerate(TOKENS):
            tokens = dict(zip(RUNS.domains, map(round, tokens_K), strict=True))
            loss = dict(zip(RUNS.eval_domains, RUNS.loss_RxE[i].tolist(), strict=True))
            spec = RunSpec(tokens, i, size=size)
            table.add(Run(spec, f"{size} {i}", "ok", loss, tokens, {}))
    with pytest.raises(BadInput, match="the runs are of models 'large', 'small'"):
        fit.select(table)
    one = table.arrays(lambda run: run.spec.size == "small")
    assert fit.select(one, laws=("additive log",)).fits["additive log"].ok_E.all()


def test_too_few_runs_to_rank_laws_are_counted():
    few = [0, 1, 7, 8]
    runs = dataclasses.replace(
        RUNS, tokens_RxK=TOKENS[few], loss_RxE=RUNS.loss_RxE[few], seed_R=RUNS.seed_R[few],
        names_R=tuple(RUNS.names_R[i] for i in few),
    )  # fmt: skip
    with pytest.raises(BadInput, match="4 runs, 1 of them held out to rank the laws: 4 must be"):
        fit.select(runs)
