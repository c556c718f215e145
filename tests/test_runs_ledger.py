"""The ledger on disk: durable, checksummed, recovered after a crash, one writer."""

import errno
import json
import math
import os
import resource

import pytest

from autoscale_jax.runs import RunTable, ledger
from autoscale_jax.specs import BadInput, CurvePoint, Run, RunSpec


def run(i: int = 0, **changes) -> Run:
    fields = dict(
        spec=RunSpec({"code": 100 + i, "wiki": 7}, seed=i, label=f"run é\n{i}"),
        key=f"key{i}",
        status="ok",
        loss={"wiki": 3.1 + i / 3, "code": 2.0},
        realised={"wiki": 7, "code": 100 + i},
        epochs={"wiki": 0.5, "code": 1 / 3},
        curve=(CurvePoint(64, {"code": 5.0}), CurvePoint(107, {"code": 2.0})),
        flops=1e15,
        seconds=0.25,
        message="",
    )
    return Run(**{**fields, **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def fill(path, n):
    with RunTable.open(path) as table:
        for i in range(n):
            table.add(run(i))


def test_a_run_comes_back_as_it_was(path):
    fill(path, 3)
    with RunTable.open(path) as table:
        assert list(table) == [run(i) for i in range(3)]
        assert [r.spec.label for r in table] == [f"run é\n{i}" for i in range(3)]
        assert table.notes == ()
    for line in path.read_text().splitlines():
        record = json.loads(line)
        assert record["v"] == 1 and len(record["sum"]) == 16


def test_a_size_is_kept_and_changes_no_record_without_one(path):
    sized = RunSpec({"wiki": 7, "code": 100}, 1, "big", size="large")
    with RunTable.open(path) as table:
        table.add(run(key="a"))
        table.add(run(key="b", spec=sized))
    with RunTable.open(path) as table:
        assert [r.spec.size for r in table] == ["", "large"]
        assert table.find(sized).key == "b"
    first = json.loads(path.read_text().splitlines()[0])
    assert first["run"]["spec"].keys() == {"tokens", "seed", "label"}


def test_a_pool_is_kept_and_told_from_a_run_without(path):
    pooled = RunSpec({"wiki": 7, "code": 100}, 0, "pooled", pool={"code": 50, "wiki": 7})
    with RunTable.open(path) as table:
        table.add(run())
        table.add(run(key="b", spec=pooled))
    with RunTable.open(path) as table:
        assert [r.spec.pool for r in table] == [{}, {"code": 50, "wiki": 7}]
        assert table.find(pooled).key == "b"
        assert table.find(RunSpec({"wiki": 7, "code": 100})).key == "key0"


def test_stages_are_kept_and_told_from_a_run_without(path):
    plain = RunSpec({"wiki": 7, "code": 100})
    staged = RunSpec(plain.tokens, stages=({"code": 60, "wiki": 7}, {"code": 40}))
    with RunTable.open(path) as table:
        table.add(run())
        table.add(run(key="b", spec=staged))
    with RunTable.open(path) as table:
        assert [r.spec.stages for r in table] == [(), ({"code": 60, "wiki": 7}, staged.stages[1])]
        assert (table.find(plain).key, table.find(staged).key) == ("key0", "b")


def test_the_data_of_a_run_are_kept_and_need_not_be_there(path):
    with RunTable.open(path) as table:
        table.add(run(key="a"))
        table.add(run(key="b", data={"wiki": "12:34", "code": ":56"}))
    with RunTable.open(path) as table:
        assert [dict(r.data) for r in table] == [{}, {"code": ":56", "wiki": "12:34"}]
    assert "data" not in json.loads(path.read_text().splitlines()[0])["run"]


def test_names_are_in_the_same_order_before_and_after(path):
    # a resumed study must add up the same numbers in the same order
    with RunTable.open(path) as table:
        table.add(run(loss={"z": 1.0, "a": 2.0}))
        before = [list(r.loss) for r in table]
    with RunTable.open(path) as table:
        assert [list(r.loss) for r in table] == before == [["a", "z"]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_is_null_and_diverged(path, value):
    with RunTable.open(path) as table:
        table.add(run(loss={"code": value, "wiki": 3.0}, flops=math.nan, message="step 3"))
    text = path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)["run"]["loss"] == {"code": None, "wiki": 3.0}
    for each in (table, RunTable.open(path)):
        (row,) = each
        assert row.status == "diverged" and row.message == f"step 3; loss of code is {value}"
        assert math.isnan(row.loss["code"]) and math.isnan(row.flops)
        assert each.ok() == []


def test_every_cut_of_the_last_line_is_recovered(path):
    fill(path, 2)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with RunTable.open(path) as table:
            assert list(table) == [run(0)]
            assert table.notes == (
                "last line of runs.jsonl was cut short by a crash: recovered by dropping it",
            )
            if cut % 50 == 0:
                table.add(run(1))
                assert path.read_bytes() == whole


def test_only_the_newline_is_missing(path):
    fill(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with RunTable.open(path) as table:
        assert len(table) == 2 and table.notes == ()
        table.add(run(2))
    with RunTable.open(path) as table:
        assert list(table) == [run(0), run(1), run(2)]


def test_zeros_after_a_power_cut_are_recovered(path):
    fill(path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 500)
    with RunTable.open(path) as table:
        assert len(table) == 1 and len(table.notes) == 1
        table.add(run(1))
    assert path.read_bytes().startswith(whole) and b"\0" not in path.read_bytes()


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda line: line.replace(b'"seed":1', b'"seed":2'), "checksum does not match"),
        (lambda line: line[:40], "not JSON"),
        (lambda line: b"\xff" + line, "not JSON"),
        (lambda line: b"[1, 2]", "not a record of a run"),
        (lambda line: b'{"v": 1}', "not a record of a run"),
        (lambda line: line.replace(b'"v":1', b'"v":9'), "record version 9"),
    ],
)
def test_a_damaged_middle_line_is_named(path, damage, word):
    fill(path, 3)
    lines = path.read_bytes().split(b"\n")
    lines[1] = damage(lines[1])
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(BadInput) as error:
        RunTable.open(path)
    assert str(error.value).startswith(f"{path} line 2: {word}")
    assert "delete it and its run is trained again" in str(error.value)
    assert "\n" not in str(error.value)
    path.write_bytes(b"\n".join([lines[0], lines[2], b""]))  # the remedy works; no lock is left
    assert len(RunTable.open(path)) == 2


def test_an_ok_key_twice_is_named(path):
    fill(path, 1)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(BadInput, match=r"runs.jsonl line 2: run 'key0' is in the table already"):
        RunTable.open(path)


def test_disk_full_leaves_ledger_and_table_as_before(path, monkeypatch):
    fill(path, 1)
    table = RunTable.open(path)
    before, real = path.read_bytes(), os.write
    calls = []

    def full(fd, data):  # a part of the record still fits
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, bytes(data)[:17])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*runs.jsonl"):
            table.add(run(1))
    assert path.read_bytes() == before and len(table) == 1 and table.find(run(1).spec) is None
    table.add(run(1))  # space again
    table.close()
    assert list(RunTable.open(path)) == [run(0), run(1)]


def test_a_cut_line_stays_dropped_while_the_disk_is_broken(path, monkeypatch):
    fill(path, 2)
    path.write_bytes(path.read_bytes()[:-9])
    table = RunTable.open(path)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError, match="Input/output error"):
            table.add(run(1))
    table.add(run(1))
    table.close()
    assert list(RunTable.open(path)) == [run(0), run(1)]


@pytest.mark.parametrize("broken", ["fsync", "ftruncate"])
def test_a_record_that_may_not_last_is_taken_back(path, monkeypatch, broken):
    fill(path, 1)
    table = RunTable.open(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="Input/output error"):
            table.add(run(1))
    assert len(table) == 1
    table.add(run(2))
    assert path.read_bytes().startswith(before)
    table.close()
    assert list(RunTable.open(path)) == [run(0), run(2)]


def test_a_file_size_limit_leaves_the_ledger_as_before(path):
    fill(path, 3)
    table, before = RunTable.open(path), path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            table.add(run(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    table.add(run(3))
    table.close()
    assert len(RunTable.open(path)) == 4


def test_where_a_ledger_cannot_be(tmp_path, path):
    with pytest.raises(BadInput, match=r"no folder .*none: create it first"):
        RunTable.open(tmp_path / "none" / "runs.jsonl")
    with pytest.raises(BadInput, match=r"Is a directory: choose another workdir"):
        RunTable.open(tmp_path)
    with pytest.raises(BadInput, match=r"No such file .*: give the path of a ledger"):
        RunTable.open(path, write=False)
    assert not path.exists()


def test_no_permission(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadInput, match=r"runs.jsonl: Permission denied: choose another workdir"):
        RunTable.open(path)


def test_a_file_system_without_locks_is_noted(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(ledger.fcntl, "flock", refuse)
    with RunTable.open(path) as table:
        table.add(run(0))
        assert table.notes[0].startswith("runs.jsonl is not locked (Operation not supported)")


def test_a_deleted_ledger_is_not_written_to(path):
    table = RunTable.open(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="deleted while in use"):
        table.add(run(0))
    assert len(table) == 0
