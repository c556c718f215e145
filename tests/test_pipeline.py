"""The main job end to end on a tiny corpus: what it trains, reports, refuses and survives."""

import dataclasses
import errno
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from autoscale_jax import execute, pipeline
from autoscale_jax.data import audit, prepare
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput
from autoscale_jax.study import Study
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


def test_data_for_little_more_than_the_target_are_enough(whole_study, tiny_config, tmp_path):
    """Of 78,000 tokens, each four times, no mixture of 400,000 can be said to be the best."""
    tiny_config.study.target_tokens = 100_000
    tiny_config.verify.seeds = 0
    (tmp_path / "runs.jsonl").write_bytes((whole_study[0] / "runs.jsonl").read_bytes())
    study = pipeline.run_study(tiny_config, tmp_path)
    assert max(point["tokens"] for point in study["trajectory"]) == 100_000
    assert max(point["tokens"] for point in whole_study[1]["trajectory"]) == 4 * 36_000


def test_an_extra_run_is_trained_and_counts(whole_study, tiny_config, tmp_path):
    tiny_config.study.extra_runs = 1
    tiny_config.verify.seeds = 0
    (tmp_path / "runs.jsonl").write_bytes((whole_study[0] / "runs.jsonl").read_bytes())
    study = pipeline.run_study(tiny_config, tmp_path)
    before = {run["key"] for run in whole_study[1]["runs"]}
    (extra,) = [run for run in study["runs"] if run["key"] not in before]
    assert extra["status"] == "ok" and extra["label"].endswith("(extra)")
    assert all(abs(extra["realised"][d] - n) < 16 for d, n in extra["tokens"].items())
    assert study["proposals"][0]["weights"] != whole_study[1]["proposals"][0]["weights"]
    with RunTable.open(tmp_path / "runs.jsonl", write=False) as table:
        assert len(table) == len(before) + 1


def test_proxies_repeat_their_data_as_the_target_does(tiny_config, tmp_path):
    tiny_config.data.max_train_tokens = 4000
    tiny_config.study.update(dict(match_repetition=True, max_epochs=10.0, extra_runs=1))
    tiny_config.verify.update(dict(mixtures=("uniform",), seeds=1))
    study = pipeline.run_study(tiny_config, tmp_path)
    (target,) = study["verification"]
    assert all(2.5 < epochs < 3.5 for epochs in target["epochs"].values())
    bases = [run for run in study["runs"] if " base seed" in run["label"]]
    assert len(bases) == 2 * 3
    for run in bases:
        for name, epochs in run["epochs"].items():  # to within a sequence of the pool
            pool = run["realised"][name] / epochs / 16
            assert abs(epochs - target["epochs"][name]) < (target["epochs"][name] + 1) / pool
    with RunTable.open(tmp_path / "runs.jsonl", write=False) as table:
        proxies = [run.spec for run in table if run.spec.seed < 1000]
        unique_RxK = table.arrays().unique_RxK
    assert len(proxies) == 2 * 9 + 1 and len({tuple(spec.pool.items()) for spec in proxies}) == 2
    assert np.isfinite(unique_RxK).all(1).sum() == 19 and np.isinf(unique_RxK).all(1).sum() == 1
    for run in study["runs"]:
        assert all(epochs <= 10.1 for epochs in run["epochs"].values())
    assert audit.main(["audit", str(tmp_path)]) == 0


@pytest.mark.parametrize("extra_runs", [0, 2])
def test_diverged_runs_are_reported_and_the_study_goes_on(tiny_config, tmp_path, extra_runs):
    tiny_config.train.peak_lr = 1e30
    tiny_config.study.extra_runs = extra_runs
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
        ("study.match_repetition", True, r"the run's pool has .* epochs and max_epochs = 4;"),
        ("data.domains", {"birds": "/nowhere/*.txt", "metals": "/nowhere/m*"}, "/nowhere"),
        ("execute.slots", 3, "divide the 2 devices"),
        (
            "verify.extra",
            {
                "birds last": (
                    {"share": 0.5, "weights": {"birds": 0.0, "metals": 0.5, "rivers": 0.5}},
                    {"share": 0.5, "weights": {"birds": 1.0, "metals": 0.0, "rivers": 0.0}},
                )
            },
            r"tokens\['birds'\] = 120000: .* epochs and max_epochs = 4",
        ),
    ],
)
def test_refused_before_anything_trains(tiny_config, tmp_path, monkeypatch, field, value, message):
    group, name = field.split(".")
    tiny_config[group][name] = value
    if field == "study.match_repetition":  # uniform's 1.5 epochs at the target, times 3
        tiny_config.study.target_tokens = 120_000
    if field == "verify.extra":
        tiny_config.study.target_tokens = 240_000
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


def test_a_curriculum_is_verified_beside_the_mixtures(tiny_config, tmp_path, monkeypatch):
    """Of a study that is done already: only the curriculum is trained."""
    plan = {"budgets": (6000,), "target_tokens": 6000, "method": "ddo", "base_seeds": 1}
    tiny_config.study.update(plan)
    without = pipeline.run_study(tiny_config, tmp_path)
    first = {"birds": 0.6, "metals": 0.2, "rivers": 0.2}
    last = {"birds": 0.0, "metals": 0.0, "rivers": 1.0}
    tiny_config.verify.extra = {
        "rivers last": ({"share": 0.75, "weights": first}, {"share": 0.25, "weights": last})
    }
    study = pipeline.run_study(tiny_config, tmp_path)
    assert study["runs"][: len(without["runs"])] == without["runs"]
    assert len(study["runs"]) == len(without["runs"]) + 2
    seeds = {}
    for row in study["verification"]:
        assert row["status"] == "ok"
        seeds.setdefault(row["mixture"], []).append(row["seed"])
    assert list(seeds) == ["uniform", "natural", "keep", "predicted", "rivers last"]
    assert all(of == [1000, 1001] for of in seeds.values())
    rows = [row for row in study["verification"] if row["mixture"] == "rivers last"]
    asked = {"birds": 2700, "metals": 900, "rivers": 2400}
    for row in rows:
        assert row["requested"] == asked and row["weights"]["rivers"] == 0.4
        assert all(abs(row["realised"][name] - n) < 16 for name, n in asked.items())
    assert rows[0]["loss"] != rows[1]["loss"]
    (proposed,) = [row for row in study["proposals"] if row["method"] == "rivers last"]
    assert proposed["weights"] == pytest.approx({"birds": 0.45, "metals": 0.15, "rivers": 0.4})
    assert "rivers last (curriculum of 2 stages, overall)" in (tmp_path / "report.md").read_text()
    stages = (
        {"birds": 2700, "metals": 900, "rivers": 900},
        {"birds": 0, "metals": 0} | {"rivers": 1500},
    )
    with RunTable.open(tmp_path / "runs.jsonl", write=False) as table:
        kept = [run.spec for run in table if run.spec.stages]
    back = [run.spec for run in RunTable.from_csv(tmp_path / "runs.csv") if run.spec.stages]
    assert kept == back and [spec.stages for spec in kept] == [stages, stages]
    assert audit.main(["audit", str(tmp_path)]) == 0
    monkeypatch.setattr(execute.TrainHere, "__call__", None)
    assert pipeline.run_study(tiny_config, tmp_path) == study


def remove_a_training_document(config, folder, name):
    """Takes one training document from a domain of text files; its held-out ones stay."""
    corpus = prepare(config.data.to_dict(), folder / "corpus")
    held_out = corpus.tokenizer.decode(corpus.eval_tokens[name][:])
    files = sorted(Path(config.data.domains[name]).parent.glob(f"{name}_*.txt"))
    next(file for file in files if file.read_text() not in held_out).unlink()


def own_texts(config, text_files, folder):
    """Makes the study's text a copy that a test may change."""
    shutil.copytree(text_files, folder)
    config.data.domains = {n: f"{folder}/{n}_*.txt" for n in config.data.domains}


def keys(study):
    return {run["label"]: run["key"] for run in study["runs"]}


def test_runs_of_other_data_are_trained_anew(tiny_config, text_files, tmp_path, capsys):
    """Birds lose a document: only what trains on none of them stays; when it is back, all of it."""
    own_texts(tiny_config, text_files, tmp_path / "text")
    plan = {"budgets": (6000,), "target_tokens": 6000, "method": "ddo", "base_seeds": 1}
    tiny_config.study.update(plan)
    tiny_config.verify.update({"mixtures": ("uniform",), "seeds": 1})
    tiny_config.verify.extra = {"no birds": {"birds": 0.0, "metals": 0.5, "rivers": 0.5}}
    folder = tmp_path / "study"
    first = pipeline.run_study(tiny_config, folder)
    remove_a_training_document(tiny_config, folder, "birds")
    second = pipeline.run_study(tiny_config, folder)
    kept = {label for label, key in keys(second).items() if key == keys(first)[label]}
    assert kept == {"target no birds seed 0"} and keys(second).keys() == keys(first).keys()
    said = [line for line in second["warnings"] if "runs are of" in line]
    assert said == [
        "8 of 9 runs are of other data (changed: birds): they stay in the file, count for nothing "
        "and are trained anew where the study needs them"
    ]
    assert capsys.readouterr().out.count(said[0]) == 1
    assert len((folder / "runs.jsonl").read_bytes().splitlines()) == 9 + 8
    assert len(RunTable.from_csv(folder / "runs.csv")) == second["cost"]["runs"] == 9
    losses = [[row["loss"] for row in study["verification"]] for study in (first, second)]
    assert losses[0][0] != losses[1][0] and losses[0][1] == losses[1][1]
    shutil.rmtree(tmp_path / "text")
    shutil.copytree(text_files, tmp_path / "text")
    third = pipeline.run_study(tiny_config, folder)
    assert without_times(third) == without_times(first) | {"warnings": third["warnings"]}
    assert len((folder / "runs.jsonl").read_bytes().splitlines()) == 9 + 8


def test_runs_of_another_recipe_count_for_nothing(whole_study, tiny_config, tmp_path):
    tiny_config.train.peak_lr = 2e-2
    (tmp_path / "runs.jsonl").write_bytes((whole_study[0] / "runs.jsonl").read_bytes())
    corpus = prepare(tiny_config.data.to_dict(), tmp_path / "corpus")
    with RunTable.open(tmp_path / "runs.jsonl") as table:
        run = next(iter(table))
        study = Study(tiny_config, corpus, table)
        assert len(table) == 0 and len(study.method.ask(table)) == 18
        assert study.notes[0].startswith("26 of 26 runs are of another recipe or version: ")
        with pytest.raises(BadInput, match="is not run again"):
            table.add(run)
    old = RunTable(dataclasses.replace(run, data={}) for run in [run])
    (note,) = Study(tiny_config, corpus, old).notes
    assert "1 of 1 runs are of other data, recipe or version" in note
