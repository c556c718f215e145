"""Searches without a model, on a law whose best mixture is known."""

import dataclasses
import itertools
import math
import zlib
from collections import Counter

import numpy as np
import pytest

from autoscale_jax.methods import ASHA, CornerProbe, GridSearch, Hyperband, RandomSearch
from autoscale_jax.methods.hyperband import brackets, rungs
from autoscale_jax.methods.mixtures import draws
from autoscale_jax.methods.space import Size, Space
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run

BEST_K = np.array([0.6, 0.3, 0.1])
FULL = 8100.0  # FLOPs of a full training
SPACE = Space(
    domains=("art", "law", "sea"),
    sizes=(Size("small", 1e6, 1.0, 10_000), Size("large", 1e7, 100.0, 10_000)),
    steps=(1, 3, 9, 27, 81),
    target_steps=81,
    lower_K=(0.0, 0.05, 0.0),
    upper_K=(0.5, 1.0, 1.0),
)
SEARCHES = {
    "dirichlet": lambda space, budget: RandomSearch(space, loss_of, budget, seed=3),
    "logits": lambda space, budget: RandomSearch(space, loss_of, budget, seed=3, sampler="logits"),
    "grid": lambda space, budget: GridSearch(space, loss_of, budget, seed=3),
    "corners": lambda space, budget: CornerProbe(space, loss_of, budget, probe_steps=9),
    "hyperband": lambda space, budget: Hyperband(space, loss_of, budget, seed=3),
    "asha": lambda space, budget: ASHA(space, loss_of, budget, seed=3, workers=8),
}


def loss_of(loss):
    return loss["art"]


def world(spec, space=SPACE):
    """The loss is least at BEST_K; more steps and a larger model lower it everywhere."""
    trial = space.trial(spec)
    loss = 2 - 0.1 * trial.size + trial.steps**-0.5 + ((trial.weights_K - BEST_K) ** 2).sum()
    key = repr(spec.identity())
    return Run(spec, key, "ok", {"art": float(loss)}, dict(spec.tokens), {})


def whole(method, run=world, most=2000):
    """The table when nothing more is asked for, and the number of times that it was asked."""
    table = RunTable()
    for asked in range(most):
        specs = method.ask(table)
        if not specs:
            return table, asked
        for spec in specs:
            table.add(run(spec))
    raise AssertionError("the search never ends")


@pytest.mark.parametrize("name", SEARCHES)
def test_keeps_caps_and_budget_and_finds_its_best(name):
    method = SEARCHES[name](SPACE, 12.5 * FULL)
    table, _ = whole(method)
    spent = SPACE.spent([run.spec for run in table])
    assert 0.8 * method.budget < spent <= method.budget
    for run in table:
        weights_K = SPACE.trial(run.spec).weights_K
        assert (weights_K >= np.array(SPACE.lower_K) - 2e-4).all()  # whole tokens
        assert (weights_K <= np.array(SPACE.upper_K) + 2e-4).all()
    full = [run for run in table if run.spec.size == "large" and run.spec.total == 810_000]
    proposal = method.propose(table, 10**6)
    assert proposal.predicted_objective == min(run.loss["art"] for run in full)
    assert list(proposal.weights.values()) == method.recommend(table).tolist()
    assert 0 <= proposal.predicted_objective - (1.9 + 81**-0.5) < 0.08


@pytest.mark.parametrize("name", SEARCHES)
def test_a_killed_search_goes_on_as_if_it_had_not_been(name):
    method = SEARCHES[name](SPACE, 8 * FULL)
    table, _ = whole(method)
    rng, resumed = np.random.default_rng(0), RunTable()
    while specs := SEARCHES[name](SPACE, 8 * FULL).ask(resumed):  # nothing kept but the table
        some = rng.permutation(len(specs))[: rng.integers(1, len(specs) + 1)]
        for i in some:  # in any order, and killed before all have ended
            resumed.add(world(specs[i]))
    assert {run.spec for run in resumed} == {run.spec for run in table}


def test_without_continuing_every_training_costs_all_its_steps():
    space = dataclasses.replace(SPACE, continues=False)
    method = Hyperband(space, loss_of, 12 * FULL, seed=3)
    table, _ = whole(method)
    spent = space.spent([run.spec for run in table])
    assert method.budget - FULL < spent <= method.budget
    assert len(table) < len(whole(Hyperband(SPACE, loss_of, 12 * FULL, seed=3))[0])


@pytest.mark.parametrize("name", SEARCHES)
def test_failed_runs_neither_stop_nor_win(name):
    def third_fails(spec):
        run = world(spec)
        failed = zlib.crc32(run.key.encode()) % 3 == 0
        return dataclasses.replace(run, status="diverged", loss={}) if failed else run

    method = SEARCHES[name](SPACE, 12 * FULL)
    table, _ = whole(method, third_fails)
    assert {run.status for run in table} == {"ok", "diverged"}
    assert method.incumbent(table).status == "ok"


def test_random_search_is_the_samplers_draws():
    method = RandomSearch(SPACE, loss_of, 7 * FULL, seed=5)
    weights_RxK = [SPACE.trial(spec).weights_K for spec in method.ask(RunTable())]
    drawn = list(itertools.islice(draws(SPACE, "dirichlet", 5), 7))
    np.testing.assert_allclose(weights_RxK, drawn, atol=2e-6)


def test_brackets_are_the_published_table():
    """Table 1 of Li et al. 2018: R = 81, eta = 3."""
    published = [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    steps = rungs(SPACE, 3)
    assert steps == (1, 3, 9, 27, 81)
    assert [[(n, steps[i]) for n, i in bracket] for bracket in brackets(5, 3)] == published
    table, _ = whole(Hyperband(SPACE, loss_of, 20 * FULL))
    # a round continues mixtures: of 121 trainings in its first bracket, 81 begin one
    begun = [run.spec for run in table][:121]
    assert Counter(SPACE.trial(spec).steps for spec in begun) == dict(
        (steps, n) for n, steps in published[0]
    )


def test_hyperband_keeps_the_best_of_every_rung():
    table, _ = whole(Hyperband(SPACE, loss_of, 4 * FULL))
    first = [run for run in table][:108]
    by_loss = sorted(first[:81], key=lambda run: run.loss["art"])[:27]
    kept = [SPACE.trial(run.spec).weights_K for run in first[81:]]
    np.testing.assert_allclose(kept, [SPACE.trial(r.spec).weights_K for r in by_loss], atol=2e-4)


def test_hyperband_may_count_full_trainings_only():
    method = Hyperband(SPACE, loss_of, 4 * FULL, full_only=True)
    table, _ = whole(method)
    full = [run for run in table if SPACE.trial(run.spec).steps == 81]
    assert method.incumbent(table) is min(full, key=lambda run: run.loss["art"])
    short = RunTable([run for run in table if run not in full])
    assert Hyperband(SPACE, loss_of, 4 * FULL).incumbent(short)
    with pytest.raises(BadInput, match="no run that counts ended well"):
        method.recommend(short)


def test_asha_promotes_the_top_third():
    """Every decision against the rule, by what had ended before it."""
    table, asked = whole(ASHA(SPACE, loss_of, 4 * FULL, seed=1))
    assert asked == len(table)  # one decision at a time
    ended = [(*SPACE.trial(run.spec), run.loss["art"]) for run in table]
    seen = set()
    for n, (weights_K, _, steps, _) in enumerate(ended):
        may_rise = {}  # rung: the best of its top third that has not gone on
        for rung in (27, 9, 3, 1):
            best = sorted((y, tuple(w_K)) for w_K, _, s, y in ended[:n] if s == rung)
            above = [w_K for w_K, _, s, _ in ended[:n] if s == 3 * rung]
            for _, w_K in best[: len(best) // 3]:
                if not any(np.allclose(w_K, a_K, atol=3e-4) for a_K in above):
                    may_rise.setdefault(3 * rung, w_K)
        rung = max(may_rise, default=1)
        assert steps == rung
        if rung > 1:
            np.testing.assert_allclose(weights_K, may_rise[rung], atol=3e-4)
        seen.add(rung)
    assert seen == {1, 3, 9, 27, 81}


def test_corner_probe_goes_from_the_best_corner():
    method = CornerProbe(SPACE, loss_of, 40 * FULL, probe_steps=9)
    specs = method.ask(RunTable())
    assert {(spec.size, SPACE.trial(spec).steps) for spec in specs} == {("small", 9)}
    corners = {tuple(np.round(SPACE.trial(spec).weights_K, 3)) for spec in specs}
    assert corners == {(0, 1, 0), (0, 0.05, 0.95), (0.5, 0.5, 0), (0.5, 0.05, 0.45)}
    table, _ = whole(method)
    far = ((method.recommend(table) - BEST_K) ** 2).sum()
    assert 0.015 - 1e-4 <= far < 0.02  # the allowed optimum is at .5, .35, .15


def test_grid_is_coarse_to_fine():
    space = dataclasses.replace(SPACE, lower_K=(0.0,) * 3, upper_K=(1.0,) * 3)
    specs = GridSearch(space, loss_of, 15 * FULL).ask(RunTable())
    parts = [np.array(list(spec.weights.values())) for spec in specs]
    assert all(np.isclose(w_K.max(), 1, atol=1e-4) for w_K in parts[:3])
    assert all(np.isclose(w_K.max(), 0.5, atol=1e-4) for w_K in parts[3:6])
    assert len({tuple(w_K.round(3)) for w_K in parts}) == 15  # all of the lattice of quarters


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SEARCHES["grid"](SPACE, 8000.0), "budget = 8000 FLOPs: .* costs 8100: give that"),
        (lambda: SEARCHES["hyperband"](SPACE, 99.0), "the cheapest run costs 100"),
        (lambda: SEARCHES["asha"](SPACE, 0.5), "the cheapest run costs 1"),
        (lambda: SEARCHES["corners"](SPACE, 2.0), "the cheapest run costs 9"),
        (lambda: SEARCHES["asha"](SPACE, math.nan), "budget = nan FLOPs"),
        (lambda: SEARCHES["asha"](SPACE, math.inf), "budget = inf FLOPs"),
        (lambda: Hyperband(SPACE, loss_of, FULL, eta=1), "eta = 1: use a whole number from 2"),
        (lambda: ASHA(SPACE, loss_of, FULL, workers=0), "workers = 0: use 1 or more"),
        (lambda: CornerProbe(SPACE, loss_of, FULL, probe_size="xl"), "probe_size = 'xl'"),
        (
            lambda: GridSearch(dataclasses.replace(SPACE, upper_K=(0.3334,) * 3), loss_of, FULL),
            "no mixture within floors and caps",
        ),
        (
            lambda: RandomSearch(SPACE, loss_of, FULL).recommend(RunTable()),
            "no run that counts ended well",
        ),
        (lambda: RandomSearch(SPACE, loss_of, FULL, sampler="sobol"), "sampler = 'sobol'"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(BadInput, match=message):
        make()
