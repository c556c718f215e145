"""The audit of a study: agrees with an honest one, exits 1 on each thing that can be wrong."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from autoscale_jax.data import Order, audit, batches, manifest, mix, prepare, realised
from autoscale_jax.data.store import Shard, TokenStore, write_shard
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Run, RunSpec

ASKED = {"birds": 3000, "metals": 1700, "rivers": 0}


@pytest.fixture
def workdir(data_settings, tmp_path):
    """A study of one run, as training leaves it."""
    corpus = prepare(data_settings, tmp_path / "corpus")
    config = {f"data.{k}": v for k, v in data_settings.items()} | {"model.seq_len": 16}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens, epochs = realised(corpus, ASKED, 16)
    loss = dict.fromkeys(ASKED, 1.0)
    with RunTable.open(tmp_path / "runs.jsonl") as table:
        data = corpus.data_of(ASKED)
        table.add(Run(RunSpec(ASKED), "0123456789abcdef", "ok", loss, tokens, epochs, data=data))
    return tmp_path


def change_run(workdir, **changes):
    run = next(iter(RunTable.open(workdir / "runs.jsonl", write=False)))
    (workdir / "runs.jsonl").unlink()
    with RunTable.open(workdir / "runs.jsonl") as table:
        table.add(dataclasses.replace(run, **changes))


def test_an_honest_study_passes(workdir):
    command = [sys.executable, "-m", "autoscale_jax.data.audit", str(workdir)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "mismatches: none"
    (birds,) = [line.split() for line in lines if line.startswith("0123456789abcdef  birds")]
    assert birds[2:4] == ["3,000", "3,008"] or birds[2:4] == ["3,000", "2,992"]
    both = lines[next(i for i, line in enumerate(lines) if "on both sides" in line) :]
    assert sum(line.split()[-1] == "0" for line in both if line.startswith(tuple(ASKED))) == 3


def test_what_is_realised_is_what_the_batches_hold(workdir, data_settings):
    corpus = prepare(data_settings, workdir / "corpus")
    data = batches(corpus, ASKED, 16, 4, 0)
    assert sum(b["weight"].sum() for b in data) == sum(realised(corpus, ASKED, 16)[0].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"realised": {"birds": 2900, "metals": 1696, "rivers": 0}}, "'birds' got 2900 tokens of"),
        (
            {"realised": {"birds": 2992, "metals": 1690, "rivers": 0}},
            "'metals' got 1690 tokens, th",
        ),
        ({"epochs": {"birds": 9.0, "metals": 9.0, "rivers": 0.0}}, "'birds' says 9.0 epochs, this"),
    ],
)
def test_a_run_that_says_something_else_is_a_mismatch(workdir, capsys, changes, message):
    change_run(workdir, **changes)
    assert audit.main(["audit", str(workdir)]) == 1
    assert f"MISMATCH run 0123456789abcdef: {message}" in capsys.readouterr().out


def test_epochs_of_a_run_are_counted_against_its_pool(workdir, data_settings, capsys):
    corpus = prepare(data_settings, workdir / "corpus")
    pool = {"birds": 1504}
    _, epochs = realised(corpus, ASKED, 16, pool)
    assert 1.9 < epochs["birds"] < 2.1
    change_run(workdir, spec=RunSpec(ASKED, pool=pool))
    assert audit.main(["audit", str(workdir)]) == 1
    assert "MISMATCH run 0123456789abcdef: 'birds' says" in capsys.readouterr().out
    change_run(workdir, spec=RunSpec(ASKED, pool=pool), epochs=epochs)
    assert audit.main(["audit", str(workdir)]) == 0


CURRICULUM = (
    {"birds": 3000, "metals": 500, "rivers": 0},
    {"birds": 0, "metals": 1200, "rivers": 700},
)


def test_each_stage_of_a_curriculum_is_counted(workdir, data_settings, capsys, monkeypatch):
    corpus = prepare(data_settings, workdir / "corpus")
    total = {"birds": 3000, "metals": 1700, "rivers": 700}
    tokens, epochs = realised(corpus, CURRICULUM, 16)
    change_run(
        workdir, spec=RunSpec(total, stages=CURRICULUM), realised=tokens, epochs=epochs,
        data=corpus.data_of(total),
    )  # fmt: skip
    assert audit.main(["audit", str(workdir)]) == 0
    monkeypatch.setattr(audit, "order_of", lambda *a, **k: backwards(mix.order_of(*a, **k)))
    assert audit.main(["audit", str(workdir)]) == 1
    said = capsys.readouterr().out
    assert "'rivers' got 704 tokens of 0 asked up to stage 1" in said


def backwards(order):
    """The same sequences, the last first."""
    order.at = lambda x_N, at=order.at: at(len(order) - 1 - x_N)
    return order


def test_what_was_trained_is_counted_over_the_order(workdir, data_settings, monkeypatch):
    """In blocks of any length, for any mixture; quotas say the same by another way."""
    corpus = prepare(data_settings, workdir / "corpus")
    monkeypatch.setattr(audit, "_AT_ONCE", 17)
    for asked in (ASKED, {"birds": 16, "metals": 0, "rivers": 900}, dict.fromkeys(ASKED, 40_000)):
        order = mix.order_of(corpus, asked, 16, 3)
        counted = audit._count(order, 0, len(order))
        assert {name: 16 * n for name, n in counted.items()} == realised(corpus, asked, 16)[0]


def test_an_order_that_trains_on_something_else_is_a_mismatch(workdir, capsys, monkeypatch):
    at = Order.at
    monkeypatch.setattr(Order, "at", lambda self, x_N: (0 * at(self, x_N)[0], at(self, x_N)[1]))
    assert audit.main(["audit", str(workdir)]) == 1
    assert "'metals' got 1696 tokens, this corpus gives 0" in capsys.readouterr().out


def test_runs_of_other_data_are_named_and_no_mismatch(workdir, capsys):
    old = next(iter(RunTable.open(workdir / "runs.jsonl", write=False)))
    before = old.data | {"metals": "0123:4567"}
    change_run(workdir, data=before, epochs=dict.fromkeys(ASKED, 9.0))
    with RunTable.open(workdir / "runs.jsonl") as table:
        table.add(dataclasses.replace(old, key="fedcba9876543210"))
    assert audit.main(["audit", str(workdir)]) == 0
    out = capsys.readouterr().out
    assert "0123456789abcdef  not checked: is of other data (changed: metals)" in out
    assert "fedcba9876543210  birds" in out and out.endswith("mismatches: none\n")


def test_a_document_on_both_sides_is_a_mismatch(workdir, capsys):
    """The held-out shard of birds is given the tokens of a training document of metals."""
    (birds,) = (workdir / "corpus").glob("domain-birds-*")
    (metals,) = (workdir / "corpus").glob("domain-metals-*")
    content = {folder: manifest.read(folder) for folder in (birds, metals)}
    (shard,) = (Shard(**s) for s in content[metals]["train"]["shards"])
    flat = workdir / "corpus/flat"
    stream = TokenStore(str(metals), [shard], np.dtype("uint16"), flat)[:]
    ends = np.load(metals / "train-00000.ends.npy")
    leaked = stream[: ends[0]]
    leak = write_shard(birds / "eval-00000.array_record", [leaked], np.dtype("uint16"))
    np.save(birds / "eval-00000.ends.npy", ends[:1])
    content[birds]["eval"]["shards"] = [dataclasses.asdict(leak)]
    manifest.write(birds, content[birds])
    assert audit.main(["audit", str(workdir)]) == 1
    out = capsys.readouterr().out
    assert (
        "MISMATCH domain 'metals': 1 training documents are held out, the first in 'birds'" in out
    )


def test_folders_without_a_study_are_refused(tmp_path, workdir, capsys):
    assert audit.main(["audit", str(tmp_path / "none")]) == 2
    assert "holds no study (no config.json)" in capsys.readouterr().err
    text = (workdir / "config.json").read_text().replace('"bytes"', '"bpe"')
    (workdir / "config.json").write_text(text)
    assert audit.main(["audit", str(workdir)]) == 2
    assert "no corpus of this study; run it or prepare it first" in capsys.readouterr().err
    assert audit.main(["audit"]) == 2
