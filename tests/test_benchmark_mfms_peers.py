"""Searches of other libraries as methods of the study, where those are installed."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from extras import need

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import mfms_study  # noqa: E402
from mfms_study import FULL, UNIT, Task  # noqa: E402

from autoscale_jax.methods.hyperband import rungs  # noqa: E402
from autoscale_jax.methods.space import observations  # noqa: E402
from autoscale_jax.runs import RunTable  # noqa: E402

pytestmark = pytest.mark.skipif(
    not mfms_study.DATA.exists(), reason="../shared/data/mfms is not there"
)


def test_optuna_prunes_continues_and_comes_near_a_corner():
    need("optuna", "peers")
    task = Task("optuna", "stack_exchange", "capped", 0)
    search = dataclasses.replace(mfms_study.method_of(task), budget=20 * FULL * UNIT)
    space = mfms_study.space_of("capped")
    steps = rungs(space, 3)
    jobs, batches = [], search.batches()
    batch = next(batches)
    while batch:
        jobs += batch
        try:
            batch = batches.send(list(mfms_study.simulator()([job.spec for job in batch])))
        except StopIteration:
            break
    trials = [space.trial(job.spec) for job in jobs]
    assert {t.steps for t in trials} == set(steps) and {t.size for t in trials} == {6}
    weights_RxK = np.array([t.weights_K for t in trials])
    assert weights_RxK.max() == pytest.approx(0.5, abs=1e-6)  # a cap is reached, none is passed
    begun = sum(t.steps == steps[0] for t in trials)
    assert begun > 2 * sum(t.steps == steps[-1] for t in trials) > 0  # most were pruned
    for trial, job in zip(trials, jobs, strict=True):  # what goes on costs the difference
        before = steps[steps.index(trial.steps) - 1] if trial.steps > steps[0] else 0
        assert job.cost == pytest.approx(space.flops(6, trial.steps - before))
    (_, first), *_, (_, last) = mfms_study.searched(search)
    value_Q = mfms_study.truth(task, np.array([first, last]))
    assert value_Q[1] < value_Q[0]


@pytest.mark.parametrize("domain", ["whole", "capped"])
def test_every_mixture_has_a_place_in_the_cube(domain):
    need("botorch", "peers")
    import torch
    from mfms_botorch import Cube, Fidelities

    space = mfms_study.space_of(domain)
    cube = Cube(space)
    place_QxD = torch.rand(200, 6, dtype=torch.double)
    full_QxD = cube.transform(place_QxD)
    weights_QxK = full_QxD[:, :5].numpy()
    np.testing.assert_allclose(weights_QxK.sum(1), 1)
    assert (weights_QxK >= 0).all() and (weights_QxK <= max(space.upper_K) + 1e-12).all()
    np.testing.assert_allclose(cube.untransform(full_QxD), place_QxD, atol=1e-5)
    ends = torch.tensor([[0.5] * 4 + [s, t] for s, t in ((0, 0), (0, 1), (1, 0.5), (1, 1))])
    flops_Q = [
        space.flops(i, steps) for i, steps in ((0, 100), (0, 19_500), (6, 1396.4), (6, 19_500))
    ]
    cost_Q = Fidelities.of(space).cost(cube.transform(ends.double()))[:, 0]
    np.testing.assert_allclose(cost_Q, np.array(flops_Q) / flops_Q[-1], rtol=1e-4)


@pytest.mark.slow
def test_botorch_asks_and_recommends_as_a_function_of_the_table(monkeypatch):
    need("botorch", "peers")
    import mfms_botorch
    import mfms_peers
    import torch

    monkeypatch.setattr(mfms_botorch, "ITERATIONS", 20)
    task = Task("botorch", "stack_exchange", "whole", 0)
    space, table = mfms_study.space_of("whole"), RunTable()
    search, again = mfms_study.method_of(task), mfms_study.method_of(task)
    for count in (mfms_peers.INITIAL, mfms_peers.TOGETHER):
        specs = search.ask(table)
        assert len(specs) == count
        assert specs == again.ask(table)
        for run in mfms_study.simulator()(specs):
            table.add(run)
    observed = observations(table, space, search.objective)
    assert len(observed) == 20
    weights_K = search.recommend(table)
    assert weights_K.sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    others_QxK = np.concatenate([weights_K[None], np.eye(5), rng.dirichlet(np.ones(5), 99)])
    full_QxD = torch.as_tensor(np.column_stack([others_QxK, np.ones((len(others_QxK), 2))]))
    place_QxD = mfms_botorch.Cube(space).untransform(full_QxD)
    mean_Q = mfms_botorch.fitted(space, observed, 0).model.posterior(place_QxD).mean[:, 0]
    assert mean_Q[0] >= mean_Q.max() - 1e-3  # of minus the objective, at the target
    spent = dataclasses.replace(search, budget=space.spent([run.spec for run in table]))
    assert spent.ask(table) == []
