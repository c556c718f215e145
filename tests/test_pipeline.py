"""The main job end to end on a tiny corpus: what it trains, reports, refuses and survives."""

import dataclasses
import errno
import json
import math

import pytest

from autoscale_jax import execute, pipeline
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput
from autoscale_jax.train.checkpoint import RunCheckpoint


def test_every_run_of_the_plan_is_in_the_ledger(whole_study):
    folder, study = whole_study
    proxies, verification = 2 * (3 + 2 * 3), 4 * 2
    assert len(study["runs"]) == proxies + verification
    assert all(run["status"] == "ok" for run in study["runs"])
    with RunTable.open(folder / "runs.jsonl", write=False) as table:
        assert len(table) == proxies + verification
    assert not list((folder / "checkpoints").iterdir())
    assert len(RunTable.from_csv(folder / "runs.csv")) == proxies + verification


def test_realised_tokens_are_the_asked_ones(whole_study):
    for run in whole_study[1]["runs"]:
        for name, asked in run["tokens"].items():
            assert abs(run["realised"][name] - asked) < 16


def test_the_report_says_what_is_promised(whole_study):
    folder, study = whole_study
    assert json.loads((folder / "report.json").read_text()) == study
    assert (folder / "report.html").exists() and (folder / "report.md").exists()
    proposal = study["proposals"][0]
    assert proposal["tokens"] == study["target_tokens"] == 36000
    assert sum(proposal["weights"].values()) == pytest.approx(1)
    for name, weight in proposal["weights"].items():
        assert proposal["low"][name] <= weight <= proposal["high"][name]
        assert weight >= 0.02 - 1e-9
    assert {row["mixture"] for row in study["verification"]} == {
        "uniform",
        "natural",
        "keep",
        "predicted",
    }
    for row in study["verification"]:
        perplexity = [math.exp(x) for x in row["loss"].values()]
        assert row["mean_perplexity"] == pytest.approx(sum(perplexity) / 3)
        assert row["worst_perplexity"] == pytest.approx(max(perplexity))
        assert sum(row["requested"].values()) == 36000
    assert set(study["gain"]) == {"vs_uniform", "vs_natural", "vs_keep"}
    assert {"vs_uniform", "vs_natural"} <= set(study["tokens_saved"])
    assert len(study["laws"]) == 2 * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh.fsdp": 3, "train.batch_size": 6}, "config.mesh.fsdp = 3, .*2 devices of a slot"),
        ({"mesh.tensor": 4}, "config.mesh.tensor = 4: must divide config.model.num_heads = 2"),
        ({"train.accumulation": 3}, "config.train.batch_size = 4: must be a multiple of 3 x 1"),
        ({"train.batch_size": 3}, "config.train.batch_size = 3: must be a multiple of 1 x 2"),
        ({"model.vocab_size": 256}, "config.model.vocab_size = 256: smaller than the .* 257"),
        ({"execute.slots": 3}, "config.execute.slots = 3: must divide the 2 devices"),
    ],
)
def test_what_the_devices_cannot_do_is_refused_before_the_corpus(
    changes, message, tiny_config, tmp_path
):
    with tiny_config.unlocked():
        tiny_config.update_from_flattened_dict({"execute.slots": 1} | changes)
    with pytest.raises(BadInput, match=message):
        pipeline.run_study(tiny_config, tmp_path / "study")
    assert not (tmp_path / "study" / "corpus").exists()


def test_a_finished_study_trains_nothing_again(whole_study, tiny_config, monkeypatch):
    def refuse(self, specs):
        raise AssertionError(f"trained again: {specs}")

    monkeypatch.setattr(execute.TrainHere, "__call__", refuse)
    folder, study = whole_study
    assert pipeline.run_study(tiny_config, folder) == study


def test_verification_can_be_left_out(whole_study, tiny_config, tmp_path):
    tiny_config.verify.seeds = 0
    (tmp_path / "runs.jsonl").write_bytes((whole_study[0] / "runs.jsonl").read_bytes())
    study = pipeline.run_study(tiny_config, tmp_path)
    assert study["verification"] == [] and study["proposals"]


def test_diverged_runs_are_reported_and_the_study_goes_on(tiny_config, tmp_path):
    tiny_config.train.peak_lr = 1e30
    with pytest.raises(BadInput, match="no runs with losses"):
        pipeline.run_study(tiny_config, tmp_path)
    study = json.loads((tmp_path / "report.json").read_text())
    assert len(study["runs"]) == 18
    assert {run["status"] for run in study["runs"]} == {"diverged"}
    assert sum("not finite by step" in line for line in study["warnings"]) == 18


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("study.budgets", (6000, 400_000), r"tokens\['(birds|metals|rivers)'\].*epochs"),
        ("study.target_tokens", 5_000_000, r"tokens\['\w+'\].*epochs and max_epochs = 4"),
        ("study.eval_weights", {"poems": 1.0}, "no such evaluation domain"),
        ("study.floor", 0.4, "below 1/3"),
        ("data.domains", {"birds": "/nowhere/*.txt", "metals": "/nowhere/m*"}, "/nowhere"),
        ("execute.slots", 3, "divide the 2 devices"),
    ],
)
def test_refused_before_anything_trains(tiny_config, tmp_path, monkeypatch, field, value, message):
    group, name = field.split(".")
    tiny_config[group][name] = value
    if field == "study.budgets":
        tiny_config.study.target_tokens = 400_000
    monkeypatch.setattr(execute.TrainHere, "__call__", None)
    with pytest.raises(BadInput, match=message) as error:
        pipeline.run_study(tiny_config, tmp_path)
    assert "\n" not in str(error.value)


def test_a_full_disk_stops_the_study_and_the_same_call_continues(
    tiny_config, tmp_path, monkeypatch, whole_study
):
    fill_disk_after(monkeypatch, 4)
    with pytest.raises(OSError, match="No space left"):
        pipeline.run_study(tiny_config, tmp_path)
    monkeypatch.undo()
    study = pipeline.run_study(tiny_config, tmp_path)
    assert without_times(study) == without_times(whole_study[1])


def fill_disk_after(monkeypatch, saves):
    """The disk is full once so many checkpoints have been saved."""
    save, calls = RunCheckpoint.save, []

    def full(self, step, position):
        calls.append(step)
        if len(calls) > saves:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, step, position)

    monkeypatch.setattr(RunCheckpoint, "save", full)


def without_times(study):
    """Everything but how long it took, in the order of the design rather than of finishing."""
    rows = [{k: v for k, v in run.items() if k != "seconds"} for run in study["runs"]]
    cost = {k: v for k, v in study["cost"].items() if k != "seconds"}
    return study | {"runs": sorted(rows, key=lambda run: run["key"]), "cost": cost}


def test_a_study_with_some_diverged_runs_goes_to_its_end(tiny_config, tmp_path, whole_study):
    """Two changed runs of one domain diverged: no law of the paper's, but the joint laws answer."""
    lines = (whole_study[0] / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "source.jsonl").write_bytes(b"".join(lines))
    with (
        RunTable.open(tmp_path / "source.jsonl", write=False) as source,
        RunTable.open(tmp_path / "runs.jsonl") as table,
    ):
        for run in source:
            if run.spec.seed < 1000:
                bad = "birds" in run.spec.label and run.spec.total < 18000
                lost = dataclasses.replace(run, status="diverged", loss={}, message="not finite")
                table.add(lost if bad else run)
    tiny_config.verify.seeds = 1
    study = pipeline.run_study(tiny_config, tmp_path)
    assert {row["mixture"] for row in study["verification"]} >= {"uniform", "predicted"}
    assert any("diverged (not finite)" in line for line in study["warnings"])
    assert any(line.startswith("no law at 6,000 tokens") for line in study["warnings"])
