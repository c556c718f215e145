"""The study of searches on the simulator: trajectories, their cache, and what its tables say."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import mfms_scale  # noqa: E402
import mfms_study  # noqa: E402
import mfms_tables  # noqa: E402
from mfms_study import FULL, UNIT, Task, Trajectory  # noqa: E402

pytestmark = pytest.mark.skipif(
    not mfms_study.DATA.exists(), reason="../shared/data/mfms is not there"
)


def test_random_levels_are_the_methods_own_numbers():
    for domain, metric in (("whole", "mean_loss"), ("capped", "hellaswag_error")):
        value_SxN = mfms_study.columns_of(metric)(mfms_tables.random_values(domain, 3))
        for seed, value_N in enumerate(value_SxN):
            found = mfms_study.trajectory(Task("random", metric, domain, seed))
            units_N = FULL * np.arange(1, 81)
            best_N = mfms_tables.values_at([found], units_N)[0]
            np.testing.assert_allclose(best_N, np.minimum.accumulate(value_N), atol=1e-6)


@pytest.mark.parametrize("method", ["random", "corner probe", "hyperband", "asha", "grid"])
def test_a_search_is_followed_as_it_would_be_asked(method):
    task = Task(method, "c4", "capped", 1)
    search = dataclasses.replace(mfms_study.method_of(task), budget=3.1 * FULL * UNIT)
    space = mfms_study.space_of("capped")
    quick = {round(flops): w_K for flops, w_K in mfms_study.searched(search)}
    for flops, weights_K in mfms_study.asked(search, space):
        np.testing.assert_array_equal(quick[round(flops)], weights_K)
    assert flops == max(quick) or abs(flops - max(quick)) < 1


class Proposes:
    """A method of two asks, without `recommend`."""

    def __init__(self):
        self.random = mfms_study.method_of(Task("random", "c4", "whole", 0))

    def ask(self, table):
        return self.random.ask(table)[:1] if len(table) < 2 else []

    def propose(self, table, tokens):
        return self.random.propose(table, tokens)


def test_any_method_is_followed_by_ask_and_propose():
    steps = list(mfms_study.asked(Proposes(), mfms_study.space_of("whole")))
    np.testing.assert_allclose([flops / UNIT for flops, _ in steps], [FULL, 2 * FULL])


def test_a_trajectory_is_kept_and_dropped_when_settings_change(tmp_path, monkeypatch):
    task = Task("hyperband", "arxiv", "whole", 2)
    assert mfms_study.kept(task, tmp_path) is None
    found = mfms_study.compute(task, tmp_path)
    assert mfms_study.kept(task, tmp_path) == found
    assert found.units == sorted(found.units) and found.units[-1] <= 80 * FULL + 1e-6
    for other in (task._replace(seed=3), task._replace(domain="capped")):
        assert mfms_study.key(other) != mfms_study.key(task)
    monkeypatch.setitem(
        mfms_study.METHODS,
        "hyperband",
        lambda space, f, seed: mfms_study.Hyperband(space, f, mfms_study.BUDGET, seed, eta=4),
    )
    assert mfms_study.kept(task, tmp_path) is None


def test_a_key_follows_code_but_not_its_comments(tmp_path, monkeypatch):
    def code(text):
        (tmp_path / "some_search.py").write_text(text)
        mfms_study.sources.cache_clear()
        return mfms_study.sources("some_search")

    monkeypatch.syspath_prepend(tmp_path)
    begin = "from autoscale_jax.methods.asha import ASHA\n"
    first = code(begin + 'def f():\n    """Old."""\n    return 1\n')
    assert {"some_search", "autoscale_jax.methods.hyperband"} < set(first)
    assert code(begin + 'def f():\n    """New."""\n    return 1  # why\n') == first
    assert code(begin + 'def f():\n    """Old."""\n    return 2\n') != first


def test_a_level_is_reached_where_the_mean_stays_below():
    one = Trajectory([10, 20, 50], [0.8, 0.1, 0.1], 0)
    other = Trajectory([20, 30, 40], [0.2, 0.9, 0.3], 0)
    # the means: inf at 10, .15 at 20, .5 at 30, .2 at 40 and 50
    assert mfms_tables.reach([one, other], 0.25, 0) == (40 + FULL, True, 1)
    assert mfms_tables.reach([one, other], 0.5, 0) == (20 + FULL, True, 1)
    never = mfms_tables.reach([one, other], 0.1, 0)
    assert never == pytest.approx((50 + FULL, False, 2.0))
    assert mfms_tables.ratio_text(40, never) == "-(2.0)"
    faster = mfms_tables.Reached(2 * FULL, True)
    assert mfms_tables.mean_ratio([faster, faster], [faster, never]).startswith("<")
    assert mfms_tables.mean_ratio([(FULL * 40, True)] * 2, [faster, faster]) == "20"


def test_tables_of_a_small_study():
    tasks = [
        Task(method, metric, "whole", seed)
        for method in ("random", "corner probe")
        for metric in ("stack_exchange", "mean_loss")
        for seed in range(2)
    ]
    study = mfms_tables.Study({task: mfms_study.trajectory(task) for task in tasks})
    random, corner = study.speedups("whole", 20)
    # the best corner is known after five short runs of the smallest size and needs one full run
    assert float(corner["all"]) == pytest.approx(20 * FULL / (FULL + 5 * 9 * 0.012963), abs=0.1)
    assert random["method"] == "random" and set(random) == set(corner)
    assert float(study.against("whole", 20)[1]["random"].split(" ")[0]) > 5
    assert [row["stack_exchange"] for row in study.gaps("whole")] == ["0.00", "1.00"]
    assert len(study.regrets("whole")) == 4 and len(study.curves()) == 4
    for curve in study.curves():
        assert curve["optimum"] <= min(curve["low"]) + 1e-6 and curve["end"] <= 80 * FULL + 1e-6
    (level,) = [row for row in study.levels("whole") if row["metric"] == "mean_loss"]
    values = [float(v) for v in list(level.values())[1:]]
    assert values == sorted(values, reverse=True)  # 20, 40, 80 random runs, corner, optimum


def test_transfer_rises_only_for_what_learns_from_smaller_models():
    truth = mfms_study.columns_of("c4")

    def oracle(space, observed, query):
        """Knows the truth once it has seen a smaller size."""
        assert np.isnan(query.objective_R).all()
        if (observed.size_R == query.size_R[0]).all():
            return np.full(len(query), observed.objective_R.mean())
        value_QxM = mfms_study.simulator().predict(query.weights_RxK, "1B", space.target_steps)
        return truth(value_QxM)

    rows = mfms_scale.transfer_table(oracle, ["c4"])
    assert [row["mixtures at 1B"] for row in rows] == list(mfms_scale.AT_LARGE)
    for row in rows:
        assert float(row["alone"].split(" ")[0]) < 0.05
        assert row["+20M"] == row["+all"] == "1.00 (1.00-1.00)"
    for smaller in ([], ["700M"]):
        assert 0.5 < mfms_scale.r2(mfms_scale.linear, "c4", 0, 20, smaller) < 1


@pytest.mark.slow
def test_the_command_goes_on_where_it_was_killed(tmp_path):
    command = [
        sys.executable, ROOT / "benchmarks/mfms.py", "--seeds", "2", "--metrics", "c4,piqa_error",
        "--methods", "random,hyperband", "--cache", tmp_path / "cache", "--surrogates", "none",
    ]  # fmt: skip
    first = subprocess.run(
        [*command, "--domains", "whole"], check=True, capture_output=True, text=True
    )
    assert "whole: speed-up over 40 random full runs" in first.stdout
    again = subprocess.run(
        [*command, "--json", tmp_path / "a.json"], check=True, capture_output=True, text=True
    )
    assert "8 of 16 trajectories kept" in again.stderr
    assert "16/16" not in again.stderr and "8/8" in again.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["failed"] == 0 and len(found["curves"]) == 8
    wrong = subprocess.run([*command, "--methods", "best"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "--methods best: use some of random" in wrong.stderr
