"""MFMS-BO against a known law, and what its search promises: budget, caps, order, resumption."""

import dataclasses
import math

import numpy as np
import pytest

from autoscale_jax.methods import MFMSBO
from autoscale_jax.methods.mfms_walk import ANCHOR
from autoscale_jax.methods.space import Size, Space
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, CurvePoint, Run, run_key

NAMES = ("a", "b", "c")
SIZES = (Size("s", 1e7, 1.0, 10_000), Size("m", 1e8, 8.0, 10_000), Size("l", 1e9, 60.0, 10_000))
SPACE = Space(NAMES, SIZES, (50, 200, 700, 1000), 1000, (0.05,) * 3, (0.8,) * 3)
TARGET = SPACE.flops(2, 1000)


def law(weights_K, size, steps):
    """Least at (.5, .4, .1) for the target, at more of c for small models."""
    best_K = np.array([0.5, 0.4, 0.1]) + (2 - size) * np.array([-0.1, -0.1, 0.2])
    grown = np.log(SIZES[size].parameters / 1e7) / 5 + np.log(steps / 50) / 3
    return float(4 - grown + 2 * ((weights_K - best_K) ** 2).sum())


def execute(specs, objective=law, nan=lambda trial: False):
    for spec in specs:
        trial = SPACE.trial(spec)
        loss = math.nan if nan(trial) else objective(*trial)
        curve = [CurvePoint(spec.total // 4, {"x": objective(trial[0], trial[1], trial[2] / 4)})]
        status = "diverged" if math.isnan(loss) else "ok"
        yield Run(
            spec, run_key(spec, {}, ""), status, {} if math.isnan(loss) else {"x": loss},
            spec.tokens, dict.fromkeys(NAMES, 0.0), tuple(curve),
        )  # fmt: skip


def method(**kwargs):
    uniform = {"uniform": dict.fromkeys(NAMES, 1 / 3)}
    kwargs = {"space": SPACE, "budget": 3 * TARGET, "references": uniform} | kwargs
    return MFMSBO(objective=lambda loss: loss["x"], **kwargs)


def searched(asks, **kwargs):
    table, batches = RunTable(), []
    while specs := asks.ask(table):
        batches.append(specs)
        for run in execute(specs, **kwargs):
            table.add(run)
    return table, batches


@pytest.fixture(scope="module")
def whole():
    return searched(method())


def test_it_finds_the_targets_optimum_and_not_the_small_models(whole):
    proposal = method().propose(whole[0], 1)
    found_K = np.array([proposal.weights[name] for name in NAMES])
    assert law(found_K, 2, 1000) - law(np.array([0.5, 0.4, 0.1]), 2, 1000) < 0.01
    assert proposal.predicted_low <= law(found_K, 2, 1000) <= proposal.predicted_high
    assert all(proposal.low[n] <= proposal.weights[n] <= proposal.high[n] for n in NAMES)
    assert proposal.p_beats["uniform"] > 0.9
    assert set(proposal.details["candidates"]) == {"uniform"}
    first, second = proposal.details["slices"]
    assert (first["from"], first["to"], second["to"]) == ("a", "b", "c")
    assert len(first["mean"]) == len(first["low"]) == len(first["share"])
    flops = [point["flops"] for point in proposal.details["path"]]
    assert flops == sorted(flops) and flops[-1] == pytest.approx(SPACE.spent(specs_of(whole[1])))


def specs_of(batches):
    return [spec for batch in batches for spec in batch]


def test_budget_bounds_steps_and_labels_hold(whole):
    specs = specs_of(whole[1])
    assert 2.7 * TARGET < SPACE.spent(specs) <= 3 * TARGET * (1 + 1e-9)
    trials = [SPACE.trial(spec) for spec in specs]
    assert all(trial.steps in SPACE.steps for trial in trials)
    weights_RxK = np.array([trial.weights_K for trial in trials])
    assert weights_RxK.min() > 0.05 - 1e-6 and weights_RxK.max() < 0.8 + 1e-6
    assert len({spec.label for spec in specs}) == len(specs)
    precise = sum(t.size == 2 and t.steps >= ANCHOR * 1000 for t in trials)
    assert precise >= 2  # the last of the budget went into precision


def test_it_goes_on_as_if_never_interrupted_whatever_the_tables_order(whole):
    table, batches = whole
    half = len(batches) // 2
    runs = {run.spec: run for run in table}
    before = [runs[spec] for batch in batches[:half] for spec in batch]
    again = method()
    assert again.ask(RunTable(before[::-1])) == batches[half]
    assert again.ask(RunTable()) == batches[0]  # and depends on nothing it saw before
    assert again.ask(table) == []


def test_references_are_tried_at_every_part_of_the_design():
    known = {"uniform": dict.fromkeys(NAMES, 1 / 3), "none of c": {"a": 0.5, "b": 0.5, "c": 0.0}}
    asks, table = method(references=known), RunTable()
    sizes = set()
    for _ in range(3):
        specs = asks.ask(table)
        sizes |= {s.size for s in specs if max(abs(w - 1 / 3) for w in s.weights.values()) < 1e-3}
        assert all(min(spec.weights.values()) > 0.04 for spec in specs)  # the floor holds
        for run in execute(specs):
            table.add(run)
    assert sizes >= {"s", "l"}


def precise_of(specs):
    return [s for s in specs if (t := SPACE.trial(s)).size == 2 and t.steps >= ANCHOR * 1000]


def test_the_first_precise_run_is_of_what_would_be_recommended(whole):
    table, batches = whole
    first = next(i for i, batch in enumerate(batches) if precise_of(batch))
    before = RunTable([table.find(spec) for spec in specs_of(batches[:first])])
    (spec,) = batches[first]
    np.testing.assert_allclose(SPACE.trial(spec).weights_K, method().recommend(before), atol=1e-6)


def searched_with_law(monkeypatch, by_law, budget):
    """A search in which a law has `by_law` for the best mixture: how many precise runs there were
    whenever it was asked, and all precise runs."""
    asked_at = []

    def law_mixture(runs, *_):
        asked_at.append(len(precise_of(run.spec for run in runs)))
        return np.array(by_law)

    monkeypatch.setattr("autoscale_jax.methods.mfms_walk.law_mixture", law_mixture)
    _, batches = searched(method(budget=budget))
    return asked_at, precise_of(specs_of(batches))


def test_the_second_precise_run_is_of_a_laws_best_mixture(monkeypatch):
    by_law = (0.1, 0.2, 0.7)
    asked_at, precise = searched_with_law(monkeypatch, by_law, 2 * TARGET)
    assert asked_at == [1]
    np.testing.assert_allclose(SPACE.trial(precise[1]).weights_K, by_law, atol=1e-3)


@pytest.mark.slow
def test_a_law_has_every_second_precise_run_while_it_is_right(monkeypatch):
    asked_at, precise = searched_with_law(monkeypatch, (0.5, 0.4, 0.1), 5 * TARGET)
    assert asked_at == list(range(1, len(precise), 2)) and len(asked_at) >= 2
    asked_at, precise = searched_with_law(monkeypatch, (0.1, 0.2, 0.7), 5 * TARGET)
    assert asked_at == [1] and len(precise) >= 4


@pytest.mark.slow
def test_batches_are_different_runs_as_many_as_asked_for():
    _, batches = searched(method(batch=3, budget=1.5 * TARGET))
    assert all(len(batch) == 3 for batch in batches[3:-1])  # after the design's three
    assert len(set(specs_of(batches))) == len(specs_of(batches))


def test_continuing_costs_the_difference_and_is_never_a_step_back(whole):
    longest = {}
    for trial in map(SPACE.trial, specs_of(whole[1])):
        key = trial.size, tuple(trial.weights_K.round(6))
        assert trial.steps > longest.get(key, 0)
        longest[key] = trial.steps


def test_runs_without_a_finite_objective_are_passed_over():
    """NaN at one fidelity, all of the smallest size: the others decide."""
    table, batches = searched(method(), nan=lambda trial: trial.size == 0)
    precise = [
        run for run in table.ok() if (t := SPACE.trial(run.spec)).size == 2 and t.steps > 500
    ]
    best = min(precise, key=lambda run: law(SPACE.trial(run.spec).weights_K, 2, 1000))
    np.testing.assert_allclose(
        method().recommend(table), SPACE.trial(best.spec).weights_K, atol=1e-6
    )
    assert len(set(specs_of(batches))) == len(specs_of(batches))  # a failed run is not asked again


@pytest.mark.slow
def test_constant_objectives_end_the_search_without_failing():
    table, _ = searched(method(budget=1.5 * TARGET), objective=lambda *trial: 2.0)
    proposal = method(budget=1.5 * TARGET).propose(table, 1)
    assert proposal.predicted_objective == pytest.approx(2.0, abs=1e-6)


@pytest.mark.slow
def test_logs_of_positive_objectives_are_turned_back():
    table, _ = searched(method(budget=1.5 * TARGET, log=True))
    proposal = method(budget=1.5 * TARGET, log=True).propose(table, 1)
    weights_K = np.array(list(proposal.weights.values()))
    assert proposal.predicted_objective == pytest.approx(law(weights_K, 2, 1000), rel=0.1)


@pytest.mark.slow
def test_the_papers_acquisition_searches_too():
    asks = method(acquisition="paper", budget=4 * TARGET)
    table, batches = searched(asks)
    assert len(batches[0]) == 20 and all(len(batch) == 1 for batch in batches[1:])
    assert asks.recommend(table).shape == (3,)


@pytest.mark.slow
def test_a_grid_never_makes_two_trials_one():
    grid = dataclasses.replace(SPACE, grid=16, lower_K=(0.0625,) * 3, upper_K=(0.75,) * 3)
    _, batches = searched(method(space=grid, budget=1.5 * TARGET))
    specs = specs_of(batches)
    assert len(set(specs)) == len(specs)
    assert all(n * 16 % spec.total == 0 for spec in specs for n in spec.tokens.values())


def test_bad_input_is_named():
    with pytest.raises(BadInput, match=r"budget = 10 FLOPs: the cheapest run costs 50: give that"):
        method(budget=10.0)
    with pytest.raises(BadInput, match=r"floors sum to 0.15, caps to 0.9: no mixture sums to 1"):
        dataclasses.replace(SPACE, upper_K=(0.3,) * 3)
    with pytest.raises(BadInput, match="batch = 0"):
        method(batch=0)
    with pytest.raises(BadInput, match="acquisition = 'ei': use 'value' or 'paper'"):
        method(acquisition="ei")
    spec = dataclasses.replace(next(iter(method().ask(RunTable()))), size="xl")
    with pytest.raises(BadInput, match="size 'xl' has no cost: there are s, m, l"):
        SPACE.cost(spec)
    with pytest.raises(BadInput, match="none, or one, ended with a finite objective"):
        searched(method(), nan=lambda trial: True)
    with pytest.raises(BadInput, match="no mixture ended with a finite objective yet"):
        method().recommend(RunTable())
