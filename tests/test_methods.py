"""DDO's design against Algorithm 1; asking is a pure function of the table."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale_jax import fit
from autoscale_jax.execute import Synthetic
from autoscale_jax.methods import DDO, AutoScale
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput

NAMES = ("art", "law", "sea", "sky")


def power_world(tokens_K):
    """Each domain's loss falls with its own tokens only."""
    return 2 + (tokens_K / 1000 + 0.1) ** -0.3


def uneven_world(tokens_K):
    """As above; the later a domain, the more of it is needed."""
    return 2 + (tokens_K / np.array([300, 600, 1200, 2400]) + 0.1) ** -0.3


def autoscale(rule="autoscale", **changes):
    settings = {
        "budgets": tuple(DDO(NAMES, n) for n in (30_000, 120_000)),
        "rule": rule,
        "objective": "mean_perplexity",
        "eval_weights": None,
        "target_tokens": 480_000,
        "natural": dict.fromkeys(NAMES, 1 / 4),
        "unique": dict.fromkeys(NAMES, 10**6),
        "max_epochs": 4.0,
        "floor": 0.02,
        "samples": 100,
        "seed": 0,
    }
    return AutoScale(**(settings | changes))


@given(st.integers(300, 10**9), st.integers(2, 9), st.integers(1, 4))
def test_design_is_algorithm_1(budget, m, seeds):
    ddo = DDO(tuple(f"d{i}" for i in range(m)), budget, base_seeds=seeds)
    specs = ddo.design()
    base = specs[0].tokens
    assert len(specs) == 2 * m + seeds
    assert sum(base.values()) == budget
    assert max(base.values()) - min(base.values()) <= 1
    for i, name in enumerate(ddo.domains):
        for spec, scale in zip(specs[seeds + 2 * i : seeds + 2 * i + 2], (3, 1 / 3), strict=True):
            assert abs(spec.tokens[name] - base[name] * scale) <= 0.5
            assert all(spec.tokens[other] == base[other] for other in base if other != name)


def test_asks_only_for_what_the_table_lacks():
    method, table = autoscale(), RunTable()
    wanted = method.ask(table)
    assert len(wanted) == 2 * (2 * 4 + 3)
    for run in Synthetic(power_world, NAMES)(wanted[:5]):
        table.add(run)
    assert method.ask(table) == wanted[5:]
    assert method.ask(table) == method.ask(table)
    for run in Synthetic(power_world, NAMES)(wanted[5:]):
        table.add(run)
    assert method.ask(table) == []


def test_extra_runs_are_asked_for_one_by_one_and_bounded():
    method, table = autoscale(extra_runs=2), RunTable()
    asked = []
    while specs := method.ask(table):
        asked.append(len(specs))
        for run in Synthetic(power_world, NAMES, noise_sd=0.003)(specs):
            table.add(run)
    assert asked == [22, 1, 1]
    assert len(table) == 24


def ran(method, world=power_world):
    """The table when the design has run."""
    return RunTable(Synthetic(world, NAMES, noise_sd=0.003)(method.ask(RunTable())))


def test_extra_runs_change_a_domain_by_the_designs_factor():
    budgets = tuple(DDO(NAMES, n, factor=2.0) for n in (30_000, 120_000))
    method = autoscale(budgets=budgets, extra_runs=1, flops_per_token=1000.0)
    table = ran(method)
    (spec,) = method.ask(table)
    best = method.next_run(table)
    assert best.flops == pytest.approx(1000 * spec.total)
    changes = {f"{name} {change}" for name in NAMES for change in ("x2", "/2")}
    bases = {f"{n:,} tokens seed {spec.seed} (extra)": n / 4 for n in (30_000, 120_000)}
    what, budget = spec.label.split(" at ")
    assert what in changes | {"base"}
    ratios = sorted(n / bases[budget] for n in spec.tokens.values())
    assert ratios in ([1, 1, 1, 2], [0.5, 1, 1, 1], [1, 1, 1, 1])


def test_extra_runs_never_need_more_than_there_is():
    """Of `art` there are 8,000 tokens: no run takes more than 32,000, whatever it might show."""
    unique = dict.fromkeys(NAMES, 10**6) | {"art": 8_000}
    method = autoscale(unique=unique, samples=10)
    table = ran(method)
    found = fit.next_run(table, 480_000, unique=unique, samples=10)
    assert {run.label for run in fit.next_run(table, 480_000, samples=10)} - {
        run.label for run in found
    } == {"art x3 at 120,000 tokens"}
    assert max(run.tokens["art"] for run in found) <= 32_000
    assert method.next_run(table).tokens["art"] <= 32_000
    few = {"unique": dict.fromkeys(NAMES, 1_000), "max_epochs": 2.0, "target_tokens": 8_000}
    short = autoscale(samples=10, extra_runs=1, **few)
    assert short.next_run(table) is None and short.ask(table) == []


def test_an_extra_run_draws_on_the_pool_of_its_budget():
    """The target would repeat a domain three times; no run at either scale may more than seven."""
    unique = dict.fromkeys(NAMES, 40_000)
    budgets = tuple(
        DDO(NAMES, n, pool=fit.matched_pools(unique, n, 480_000)) for n in (30_000, 120_000)
    )
    method = autoscale(budgets=budgets, unique=unique, max_epochs=7.0, extra_runs=2, samples=10)
    design, asked = method.ask(RunTable()), []
    assert {spec.total: spec.pool["art"] for spec in (design[0], design[-1])} == {
        30_000: 2_500,
        design[-1].total: 10_000,
    }
    table = ran(method)
    while specs := method.ask(table):
        asked += specs
        for run in Synthetic(power_world, NAMES, noise_sd=0.003)(specs):
            table.add(run)
    assert len(asked) == 2 == len(set(asked))
    for spec in asked:
        budget = next(b for b in budgets if f"{b.budget:,} tokens" in spec.label)
        assert spec.pool == budget.pool
        assert all(n <= 7 * spec.pool[name] for name, n in spec.tokens.items())


@pytest.mark.parametrize("scarce", [8_000, 130_000])
def test_the_data_feed_as_much_as_the_fit_allows(scarce):
    method = autoscale(unique=dict.fromkeys(NAMES, 200_000) | {"art": scarce}, samples=10)
    table = ran(method)
    for total in (1e6, 1.5e6, 1.7e6, 3e6, 4e6):
        try:
            method.trajectory(table, [total])
            allowed = True
        except BadInput:
            allowed = False
        assert method.feeds(total) == allowed
    assert method.feeds(1e6) and not method.feeds(4e6)
    assert method.feeds(1.7e6) == (scarce > 8_000)  # a cap of 32,000 tokens is below the floor


def test_the_proposal_does_not_depend_on_who_finished_first():
    method = autoscale("auto")
    runs = list(Synthetic(power_world, NAMES, noise_sd=0.003)(method.ask(RunTable())))
    one = method.propose(RunTable(runs), 480_000)
    other = method.propose(RunTable(runs[::-1]), 480_000)
    assert one == other


def test_one_budget_proposes_its_ddo_optimum_and_nothing_beyond():
    """At the budget's own scale no extrapolation is needed; elsewhere it is refused."""
    ddo = DDO(NAMES, 30_000, base_seeds=2)
    method, table = autoscale("keep", budgets=(ddo,), target_tokens=30_000), RunTable()
    for run in Synthetic(uneven_world, NAMES)(method.ask(table)):
        table.add(run)
    proposal = method.propose(table, 30_000)

    def objective(loss):
        return float(np.mean(np.exp(list(loss.values()))))

    optimum = ddo.optimum(table, objective, floor=0.02, samples=0, seed=0)
    assert list(proposal.weights.values()) == pytest.approx(optimum.weights_K.tolist(), abs=1e-6)
    assert np.ptp(optimum.weights_K) > 0.05  # the world is not one that uniform suits
    with pytest.raises(BadInput, match="one scale only"):
        method.propose(table, 300_000)
