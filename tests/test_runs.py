"""The table in memory: one row a key, runs found by spec, arrays by name."""

import dataclasses
import math

import numpy as np
import pytest

from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec


def run(key="k", tokens=None, status="ok", loss=None, seed=0, label="") -> Run:
    spec = RunSpec(tokens or {"code": 10, "wiki": 30}, seed, label)
    return Run(spec, key, status, {"code": 1.0, "wiki": 2.0} if loss is None else loss, {}, {})


def test_order_and_length():
    table = RunTable([run("b"), run("a", seed=1)])
    table.add(run("c", seed=2))
    assert [r.key for r in table] == ["b", "a", "c"] and len(table) == 3
    assert table.notes == () and len(RunTable()) == 0


def test_an_ok_run_is_not_run_again():
    table = RunTable([run("k")])
    with pytest.raises(BadInput, match="'k' is in the table already and ok"):
        table.add(run("k"))
    with pytest.raises(BadInput, match="already and ok"):
        RunTable([run("k"), run("k", status="failed")])
    assert len(table) == 1


def test_a_failed_run_may_be_done_again():
    table = RunTable([run("a", status="failed", loss={}), run("b", seed=1)])
    table.add(run("a", status="diverged", loss={}))
    table.add(run("a"))
    assert [(r.key, r.status) for r in table] == [("a", "ok"), ("b", "ok")]


def test_the_ledger_keeps_all_records_and_the_table_the_last(tmp_path):
    with RunTable.open(tmp_path / "runs.jsonl") as table:
        table.add(run("a", status="failed", loss={}))
        table.add(run("a"))
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
    assert [r.status for r in RunTable.open(tmp_path / "runs.jsonl")] == ["ok"]


def test_find_gives_the_last_run_of_a_spec():
    table = RunTable([run("a", loss={"code": 1.0}), run("b", loss={"code": 2.0}, label="again")])
    found = table.find(RunSpec({"wiki": 30, "code": 10}, label="by another name"))
    assert found is not None and found.key == "b"
    assert table.find(RunSpec({"wiki": 30, "code": 11})) is None
    assert table.find(RunSpec({"wiki": 30, "code": 10}, seed=1)) is None


def test_runs_set_aside_stay_in_the_ledger_alone(tmp_path):
    """Nothing finds them, an earlier run of their spec is found again, their keys are taken."""
    with RunTable.open(tmp_path / "runs.jsonl") as table:
        for row in (run("old", label="old"), run("new", label="new"), run("other", seed=1)):
            table.add(row)
        gone = table.set_aside(lambda r: r.key == "new")
        assert [r.key for r in gone] == ["new"]
        assert [r.key for r in table] == ["old", "other"] and len(table) == len(table.ok()) == 2
        assert table.find(RunSpec({"wiki": 30, "code": 10})).key == "old"
        assert table.arrays().names_R == ("old", "other")
        table.set_aside(lambda r: r.key == "old")
        assert table.find(RunSpec({"wiki": 30, "code": 10})) is None
        with pytest.raises(BadInput, match="'new' is in the table already and ok"):
            table.add(run("new"))
        table.add(run("newer"))
    assert [r.key for r in RunTable.open(tmp_path / "runs.jsonl")] == [
        "old",
        "new",
        "other",
        "newer",
    ]


def test_numbers_become_plain():
    table = RunTable([run(loss={"code": np.float32(1.5)})])
    (row,) = table
    assert type(row.loss["code"]) is float


def test_arrays_are_by_name():
    table = RunTable(
        [
            run("a", {"wiki": 30, "code": 10}, label="base"),
            run("b", {"books": 5}, loss={"wiki": 4.0, "code": 3.0}, seed=7),
            run("c", {"wiki": 1}, status="failed", loss={}),
            run("d", {"wiki": 2}, loss={"wiki": math.nan, "code": 3.0}),
        ]
    )
    arrays = table.arrays()
    assert arrays.domains == ("books", "code", "wiki")
    assert arrays.eval_domains == ("code", "wiki")
    assert arrays.names_R == ("base", "b")
    assert arrays.tokens_RxK.tolist() == [[0, 10, 30], [5, 0, 0]]
    assert arrays.loss_RxE.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert arrays.seed_R.tolist() == [0, 7]
    assert arrays.tokens_RxK.dtype == np.int64 and arrays.loss_RxE.dtype == np.float64
    assert table.arrays(where=lambda r: r.spec.seed == 7).domains == ("books",)


def test_arrays_know_what_runs_drew_on():
    pooled = run("b", {"wiki": 30, "code": 10})
    pooled = dataclasses.replace(pooled, spec=RunSpec({"wiki": 30, "code": 10}, pool={"wiki": 6}))
    assert RunTable([run("a")]).arrays().unique_RxK is None
    unique_RxK = RunTable([run("a"), pooled]).arrays().unique_RxK
    assert unique_RxK.tolist() == [[math.inf, math.inf], [math.inf, 6.0]]


def test_arrays_hold_runs_of_one_mixture(tmp_path):
    """No law is fitted to what a curriculum gave."""
    stages = ({"wiki": 30}, {"code": 10})
    curriculum = dataclasses.replace(
        run("b"), spec=RunSpec({"code": 10, "wiki": 30}, 1, "wiki first", stages=stages)
    )
    table = RunTable([run("a", label="plain"), curriculum])
    assert table.arrays().names_R == ("plain",)
    table.to_olmix(tmp_path)
    files = tmp_path / "ratios.csv", tmp_path / "metrics.csv"
    assert len(RunTable.from_olmix(*files)) == 1
    assert table.find(curriculum.spec).key == "b" and len(table) == 2


def test_arrays_of_nothing():
    arrays = RunTable([run(status="failed", loss={})]).arrays()
    assert arrays.tokens_RxK.shape == arrays.loss_RxE.shape == (0, 0)
    assert arrays.names_R == () and arrays.seed_R.shape == (0,)


def test_arrays_refuse_a_missing_loss():
    table = RunTable([run("a"), run("b", loss={"code": 1.0}, label="short", seed=1)])
    with pytest.raises(BadInput, match=r"run 'short' has no loss of wiki.*where="):
        table.arrays()
    assert table.arrays(where=lambda r: r.key == "a").loss_RxE.shape == (1, 2)
