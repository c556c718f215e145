"""A study by search, end to end on a tiny corpus: sizes, steps and mixture chosen run by run."""

import dataclasses
import json

import numpy as np
import pytest
from test_pipeline import (
    fill_disk_after,
    own_texts,
    remove_a_training_document,
    without_times,
)

from autoscale_jax import execute, pipeline
from autoscale_jax.data import GRID, prepare
from autoscale_jax.methods.search import Search
from autoscale_jax.methods.space import Trial
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import VERIFICATION_SEED, BadInput
from autoscale_jax.study import Study


@dataclasses.dataclass(frozen=True)
class Haphazard(Search):
    """Pairs of random trials of either size; the better one is continued."""

    def plan(self):
        rng, steps = np.random.default_rng(self.seed), self.space.steps
        room = 1 - sum(self.space.lower_K)
        while True:
            sizes = rng.permutation(len(self.space.sizes))
            mixtures = self.space.lower_K + room * rng.dirichlet(np.ones(3), 2)
            trials = [Trial(w_K, int(n), steps[0]) for w_K, n in zip(mixtures, sizes, strict=False)]
            values = yield trials
            yield [trials[int(np.argmin(values))]._replace(steps=steps[1])]


@pytest.fixture(autouse=True)
def haphazard(monkeypatch):
    def search(self, space):
        return Haphazard(space, self.objective, self.budget, self.config.seed)

    monkeypatch.setattr(Study, "_search", search)


def search_config(config):
    config.train.update({"schedule": "constant", "warmup_ratio": 0.0, "warmup_steps": 10})
    config.train.update({"eval_every_tokens": 1024, "checkpoint_seconds": 1e9})
    config.study.update({"method": "mfms_bo", "target_tokens": 10_240})
    config.search.update({"steps": (32, 64), "budget": 1.5})
    config.execute.slots = 1
    config.search.sizes = {"half": {"num_layers": 1, "d_model": 8, "num_heads": 2}}
    config.verify.update({"mixtures": ("uniform", "natural", "predicted"), "seeds": 1})
    return config


@pytest.fixture(scope="module")
def whole_search(tiny_file, tmp_path_factory):
    """(folder, report.json) of the study, not interrupted."""
    names = {}
    exec(tiny_file.read_text(), names)
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Study, "_search", lambda self, space: Haphazard(space, self.objective, self.budget)
        )
        return folder, pipeline.run_study(search_config(names["get_config"]()), folder)


def test_it_spends_its_budget_and_verifies_at_the_target(whole_search):
    folder, study = whole_search
    assert json.loads((folder / "report.json").read_text()) == study
    assert {run["status"] for run in study["runs"]} == {"ok"}
    proxies = [run for run in study["runs"] if run["seed"] < VERIFICATION_SEED]
    assert {run["size"] for run in proxies} == {"half", "target"}
    assert len({run["total"] for run in proxies}) == 2
    search, step = study["search"], {s["name"]: s["step_flops"] for s in study["search"]["sizes"]}
    assert search["budget_flops"] == pytest.approx(1.5 * 160 * step["target"])
    assert search["spent_flops"] == pytest.approx(sum(run["flops"] for run in proxies))
    assert 0.8 < search["spent_flops"] / search["budget_flops"] <= 1
    # a continued run costs what it adds, and stands on the grid as its first part does
    apart = {run["flops"] / step[run["size"]] for run in proxies}
    assert apart == {32.0}
    for run in proxies:
        assert all(n * GRID % run["total"] == 0 for n in run["tokens"].values())
    verified = [run for run in study["runs"] if run["seed"] >= VERIFICATION_SEED]
    assert {run["size"] for run in verified} == {"target"}
    assert {run["total"] for run in verified} == {10_240}
    assert set(study["gain"]) == {"vs_uniform", "vs_natural"}
    with RunTable.open(folder / "runs.jsonl", write=False) as table:
        again = RunTable.from_csv(folder / "runs.csv")
        assert {run.spec for run in again} == {run.spec for run in table}
    assert not list((folder / "checkpoints").iterdir())
    page = (folder / "report.md").read_text()
    assert "All runs" in page and "law" not in page.lower().split("settings")[0]


def test_a_study_that_is_cut_short_again_and_again_ends_as_it_would_have(
    tiny_config, tmp_path, monkeypatch, whole_search
):
    """Where the ends of runs are kept, which longer runs of a later process continue."""
    config = search_config(tiny_config)
    for _ in range(3):
        with monkeypatch.context() as patch:
            fill_disk_after(patch, 2)
            with pytest.raises(OSError, match="No space left"):
                pipeline.run_study(config, tmp_path)
    assert without_times(pipeline.run_study(config, tmp_path)) == without_times(whole_search[1])


def test_a_search_forgets_what_it_learnt_of_other_data(
    whole_search, tiny_config, text_files, tmp_path
):
    """One training document less: what the runs spent counts no more, and the first are asked."""
    config = search_config(tiny_config)
    own_texts(config, text_files, tmp_path / "text")
    (tmp_path / "runs.jsonl").write_bytes((whole_search[0] / "runs.jsonl").read_bytes())
    with RunTable.open(tmp_path / "runs.jsonl") as table:
        runs = list(table)
        same = Study(config, prepare(config.data.to_dict(), tmp_path / "corpus"), table)
        assert same.notes == () and same.method.ask(table) == [] and same.spent() > 0
        remove_a_training_document(config, tmp_path, "birds")
        other = Study(config, prepare(config.data.to_dict(), tmp_path / "corpus"), table)
        assert (
            f"{len(runs)} of {len(runs)} runs are of other data (changed: birds)" in other.notes[0]
        )
        assert list(table) == other.proxies() == [] and other.spent() == 0
        assert other.method.ask(table) == same.method.ask(RunTable()) != []


HALF = {"num_layers": 1, "d_model": 8, "num_heads": 2}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("search.sizes", {"half": HALF | {"d_model": 16}}, "as much a token as the target"),
        ("search.steps", (16, 64), "16 steps of 4 sequences .* use multiples of 32 steps"),
        ("search.steps", (32, 6400), "max_epochs = 4: no mixture of 409,600 tokens"),
        ("search.budget", 0.05, "the cheapest run costs 0.08 trainings of the target"),
        ("search.sizes", {"half": HALF | {"batch_size": 6}}, "32 steps of 6 sequences"),
    ],
)
def test_refused_before_anything_trains(tiny_config, tmp_path, monkeypatch, field, value, message):
    config = search_config(tiny_config)
    group, name = field.split(".")
    config[group][name] = value
    monkeypatch.setattr(execute.TrainHere, "__call__", None)
    with pytest.raises(BadInput, match=message) as error:
        pipeline.run_study(config, tmp_path)
    assert "\n" not in str(error.value) and "config." in str(error.value)


def test_floors_and_caps_stand_on_the_grid(tiny_config, tmp_path):
    config = search_config(tiny_config)
    config.study.update({"floor": 0.1, "max_epochs": 0.2})
    study = Study(config, prepare(config.data.to_dict(), tmp_path), RunTable())
    assert set(study.space.lower_K) == {13 / GRID}
    for name, cap in zip(study.domains, study.space.upper_K, strict=True):
        most = 0.2 * study.unique[name] / 10_240
        assert most - 1 / GRID < cap <= most and cap * GRID == round(cap * GRID)
