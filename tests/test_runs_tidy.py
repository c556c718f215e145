"""Runs in a tidy CSV: what published tables look like, round trips, and refusals by line."""

import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax.runs import RunTable, tidy
from autoscale_jax.specs import BadInput, Run, RunSpec


@pytest.fixture
def csv(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "t.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
finite = st.floats(0, 1e300)


def domains(values, **size):
    return st.dictionaries(text, values, max_size=4, **size)


@st.composite
def a_run(draw):
    status = draw(st.sampled_from(["ok", "diverged", "failed"]))
    tokens = draw(domains(st.integers(0, 2**62)).filter(lambda t: sum(t.values())))
    stages = ()
    if draw(st.booleans()):
        more = draw(domains(st.integers(0, 2**62)).filter(lambda t: sum(t.values())))
        stages = tokens, more
        tokens = {n: tokens.get(n, 0) + more.get(n, 0) for n in tokens | more}
    return Run(
        spec=RunSpec(
            tokens,
            draw(st.integers(0, 2**31)),
            draw(text),
            draw(st.sampled_from(("", "20m"))),
            {name: draw(st.integers(0, 2**62)) for name in tokens if draw(st.booleans())},
            stages,
        ),
        key=draw(text.filter(bool)),
        status=status,
        loss=draw(domains(finite, min_size=1 if status == "ok" else 0)),
        realised=draw(domains(st.integers(0, 2**62))),
        epochs=draw(domains(finite)),
        flops=draw(finite),
        seconds=draw(finite),
        message=draw(text),
    )


@settings(max_examples=60)
@given(st.lists(a_run(), max_size=5, unique_by=lambda run: run.key))
def test_round_trip(tmp_path_factory, runs):
    path = tmp_path_factory.getbasetemp() / "round.csv"
    RunTable(runs).to_csv(path)
    back = RunTable.from_csv(path)
    assert list(back) == runs and back.notes == ()
    assert [run.spec.label for run in back] == [run.spec.label for run in runs]


def test_an_empty_table_comes_back_empty(tmp_path):
    RunTable().to_csv(tmp_path / "t.csv")
    assert len(RunTable.from_csv(tmp_path / "t.csv")) == 0


def test_a_diverged_run_keeps_its_nan(tmp_path):
    loss = {"a": math.nan, "b": 2.0}
    run = Run(RunSpec({"a": 1}), "k", "diverged", loss, {}, {}, flops=math.nan)
    RunTable([run]).to_csv(tmp_path / "t.csv")
    (back,) = RunTable.from_csv(tmp_path / "t.csv")
    assert back.status == "diverged" and math.isnan(back.loss["a"]) and back.loss["b"] == 2.0


def test_weights_with_steps_and_splits(csv):
    path = csv(
        "\ufeffmodel_size,run,step,w_code,w_wiki,loss_code,loss_books\n"
        "70M,0,10,0.25,0.75,3.5,4\n70M,0,20,0.25,0.75,3.25,3.5\n\n160M,1,10,0.667,0.334,3,3\n"
    )
    table = RunTable.from_csv(path, tokens=lambda row: int(row["step"]) * 100)
    first, second, third = table
    assert first.key == "0 model_size=70M step=10" and third.key == "1"
    assert third.spec.label == "1 model_size=160M step=10"
    assert second.spec.tokens == {"code": 500, "wiki": 1500}
    assert third.spec.tokens == {"code": 666, "wiki": 334}  # 0.667 / 1.001 of 1000
    assert second.loss == {"code": 3.25, "books": 3.5} and table.notes == ()
    assert RunTable.from_csv(path, tokens=1e6).arrays().tokens_RxK.sum(1).tolist() == [10**6] * 3


def test_a_mixture_far_from_1_is_noted_and_a_lost_loss_is_a_failed_run(csv):
    path = csv("run,tokens,w_a,w_b,loss_a\n1,100,0.51,0.5099,2\n2,100,1,0,\n3,1e2,0,1,2\n")
    table = RunTable.from_csv(path)
    assert [run.status for run in table] == ["ok", "failed", "ok"]
    assert [run.message for run in table] == ["", "no loss_a", ""]
    assert table.notes == (
        "1 rows of t.csv lack a loss and count as failed runs: lines 3",
        "weights of 1 rows of t.csv sum to over 1% more or less than 1 and were divided by their "
        "sum: lines 2",
    )


def test_perplexities_of_a_perturbation_design(csv):
    path = csv(
        "run,ppl_a,ppl_b,ppl_average\nbase,20,10,15\na:x1/3,30,10,20\nb:x3,20,,\nb:x0.5,20,12,16\n"
    )
    table = RunTable.from_csv(path, tokens=600)
    assert [dict(run.spec.tokens) for run in table] == [
        {"a": 300, "b": 300},
        {"a": 100, "b": 300},
        {"a": 300, "b": 900},
        {"a": 300, "b": 150},
    ]
    assert table.arrays().eval_domains == ("a", "b")
    assert next(iter(table)).loss == pytest.approx({"a": math.log(20), "b": math.log(10)})
    assert "ppl_average of t.csv left out" in table.notes[0]
    kept = RunTable.from_csv(csv("run,tokens,w_a,ppl_a,ppl_average\nx,10,1,20,3\n"))
    assert kept.arrays().eval_domains == ("a", "average")  # no mean of the others: a domain


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("seed,loss_a\n0,1\n", "line 1: no column run"),
        ("", "line 1: no column run"),
        ("run,w_a\nx,1\n", "line 1: no columns loss_<domain> or ppl_<domain>"),
        ("run,tokens_a,w_a,loss_a\nx,1,1,1\n", "line 1: columns tokens_... and w_...: keep one"),
        ("run,tokens_a,ppl_a,loss_a\nx,1,1,1\n", "line 1: columns loss_... and ppl_...: keep one"),
        ("run,loss_a,loss_a\nx,1,1\n", "line 1, column loss_a: there 2 times"),
        ("run,tokens_a,loss_a\nx,1\n", "line 2: 2 cells under 3 columns"),
        ('run,tokens_a,loss_a\n"x,1,1\n', "not a CSV file in UTF-8"),
        ("run,tokens_a,loss_a\n,1,1\n", "line 2, column run = '': give the run a name"),
        ("run,tokens_a,loss_a\nx,1,1\nx,2,2\n", "line 3, column run = 'x': line 2 has the same"),
        ("run,tokens_a,loss_a\nx,1,nan\n", "line 2, column loss_a = 'nan': write a finite number"),
        ("run,tokens_a,loss_a\nx,1,-inf\n", "line 2, column loss_a = '-inf': write a finite"),
        ("run,tokens_a,loss_a\nx,1,-1\n", "line 2, column loss_a = '-1': write a finite number"),
        ("run,tokens_a,loss_a\nx,1,good\n", "line 2, column loss_a = 'good': write a number"),
        ("run,tokens_a,loss_a\nx,1.5,1\n", "line 2, column tokens_a = '1.5': write a whole"),
        ("run,tokens_a,loss_a\nx,-1,1\n", "line 2, column tokens_a = '-1': write a finite"),
        ("run,tokens_a,loss_a\nx,0,1\n", "line 2: tokens = {'a': 0}: a run needs tokens"),
        ("run,tokens_a,pool_b,loss_a\nx,3,4,1\n", "line 2: pool['b'] = 4: tokens names no such"),
        ("run,tokens_a,pool_a,loss_a\nx,3,.5,1\n", "line 2, column pool_a = '.5': write a whole"),
        ("run,tokens_a,tokens,loss_a\nx,3,4,1\n", "line 2, column tokens = '4': tokens_... sum to"),
        ("run,tokens_a,ppl_a\nx,1,0.5\n", "line 2, column ppl_a = '0.5': a perplexity is 1"),
        ("run,tokens_a,loss_a,seed\nx,1,1,a\n", "line 2, column seed = 'a': write a number"),
        ("run,tokens_a,loss_a,status\nx,1,1,fine\n", "column status = 'fine': write one of ok, di"),
        ("run,tokens_a,loss_a,status\nx,1,,ok\n", "column status = 'ok': the row has no losses"),
        ("run,tokens,w_a,w_b,loss_a\nx,9,.5,.4,1\n", "line 2: weights sum to 0.9: make them sum"),
        ("run,tokens,w_a,w_b,loss_a\nx,9,1,nan,1\n", "line 2, column w_b = 'nan': write a finite"),
        ("run,tokens,w_a,w_b,loss_a\nx,9,2,-1,1\n", "line 2, column w_b = '-1': write a finite"),
        ("run,tokens,w_a,w_b,loss_a\nx,9,1,,1\n", "line 2, column w_b = '': write a number"),
        ("run,tokens,w_a,loss_a\nx,0,1,1\n", "line 2: tokens = {'a': 0}: a run needs tokens"),
        ("run,w_a,loss_a\nx,1,1\n", "no column tells how many tokens a run took: give tokens="),
        ("run,tokens,status\nx,9,failed\n", "line 2, column run = 'x': add columns tokens_"),
        ("run,tokens,status\nbase,9,failed\n", "line 2, column run = 'base': add columns"),
        ("run,tokens,loss_a\nx,9,1\n", "line 2, column run = 'x': add columns tokens_<domain>"),
        ("run,tokens,loss_a\na:x1/0,9,1\n", "line 2, column run = 'a:x1/0': add columns"),
        ("run,tokens,loss_a\na:x-1,9,1\n", "line 2: tokens['a'] = -9: give a whole number"),
    ],
)
def test_refusals_name_line_and_column(csv, content, word):
    path = csv(content)
    with pytest.raises(BadInput) as error:
        RunTable.from_csv(path)
    assert str(error.value).startswith(str(path)) and word in str(error.value)
    assert "\n" not in str(error.value)


def test_tokens_are_told_once(csv):
    path = csv("run,tokens,w_a,loss_a\nx,9,1,1\n")
    with pytest.raises(BadInput, match="has a column tokens: leave out the argument tokens="):
        RunTable.from_csv(path, tokens=9)
    path = csv("run,tokens_a,loss_a\nx,9,1\n")
    with pytest.raises(BadInput, match=r"has columns tokens_\.\.\.: leave out the argument"):
        RunTable.from_csv(path, tokens=9)
    path = csv("run,w_a,loss_a\nx,1,1\n")
    with pytest.raises(BadInput, match=r"line 2: tokens = 1.5: give a whole number over 0"):
        RunTable.from_csv(path, tokens=1.5)


def test_files_that_are_none(tmp_path, csv):
    with pytest.raises(BadInput, match=r"none.csv: No such file .*: give the path of a CSV"):
        RunTable.from_csv(tmp_path / "none.csv")
    with pytest.raises(BadInput, match="not a CSV file in UTF-8"):
        RunTable.from_csv(csv("run,loss_é\n", encoding="latin-1"))
    with pytest.raises(BadInput, match=r"no folder .*: create it first"):
        RunTable().to_csv(tmp_path / "no" / "t.csv")


def test_a_failed_write_leaves_the_old_file(csv, tmp_path, monkeypatch):
    path = csv("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        tidy.write_tidy([], path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["t.csv"]


def two_files(folder, first="a", second="a"):
    """CSVs small and large with a run `base` each, of web and another domain."""
    (folder / "other").mkdir()
    paths = folder / "small.csv", folder / "large.csv"
    for path, domain, tokens in zip(paths, (first, second), (10, 40), strict=True):
        path.write_text(
            f"run,tokens_web,tokens_{domain},loss_a,loss_web\nbase,{tokens},{tokens},3,4\n"
            f"lost,{tokens},0,,\n"
        )
    return paths


def test_several_files_are_one_table(tmp_path):
    paths = two_files(tmp_path)
    table = RunTable.from_csvs(paths)
    assert [run.key for run in table] == [
        "small.csv/base", "small.csv/lost", "large.csv/base", "large.csv/lost",
    ]  # fmt: skip
    assert table.arrays().tokens_RxK.tolist() == [[10, 10], [40, 40]]
    assert table.notes == tuple(n for p in paths for n in RunTable.from_csv(p).notes)
    assert len(table.notes) == 2  # a lost run each


def test_one_file_is_taken_as_it_is(tmp_path):
    path, _ = two_files(tmp_path)
    one, table = RunTable.from_csv(path), RunTable.from_csvs([str(path)])
    assert list(table) == list(one) and table.notes == one.notes


def test_files_of_one_name_are_told_apart(tmp_path):
    first, second = two_files(tmp_path)
    moved = second.rename(tmp_path / "other" / "small.csv")
    keys = [run.key for run in RunTable.from_csvs([first, moved])]
    assert len(set(keys)) == 4 and keys[0] == f"{first}/base" and keys[2] == f"{moved}/base"


def test_a_domain_of_one_file_only_is_noted(tmp_path):
    notes = RunTable.from_csvs(two_files(tmp_path, "code", "kode")).notes
    assert notes[-2:] == (
        "domain 'code' has tokens in small.csv only: a misspelt name?",
        "domain 'kode' has tokens in large.csv only: a misspelt name?",
    )


def test_tokens_that_no_column_tells_are_given_for_all_files(tmp_path):
    paths = tmp_path / "a.csv", tmp_path / "b.csv"
    for path in paths:
        path.write_text("run,w_a,w_b,loss_a\nx,0.5,0.5,3\n")
    assert RunTable.from_csvs(paths, tokens=10).arrays().tokens_RxK.tolist() == [[5, 5], [5, 5]]
    with pytest.raises(BadInput, match=r"a\.csv: no column tells"):
        RunTable.from_csvs(paths)


def test_no_file_and_a_file_twice_are_refused(tmp_path):
    path, _ = two_files(tmp_path)
    with pytest.raises(BadInput, match="no CSV files: give one at least"):
        RunTable.from_csvs([])
    with pytest.raises(BadInput, match=r"small\.csv: given twice: give each file once"):
        RunTable.from_csvs([path, tmp_path / "other" / ".." / "small.csv"])


def test_the_stages_of_a_curriculum_are_one_cell(csv):
    stages = '"[{""a"": 7}, {""b"": 3}]"'
    path = csv(f"run,tokens_a,tokens_b,loss_a,stages\nx,7,3,1.5,{stages}\ny,7,3,1.6,\n")
    one, other = RunTable.from_csv(path)
    assert one.spec.stages == ({"a": 7, "b": 0}, {"a": 0, "b": 3}) and other.spec.stages == ()


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "two",
            r"line 2, column stages = 'two': write \[{\"domain\": tokens, ...}, ...\], or leave",
        ),
        ("3", r"line 2, column stages = '3': write"),
        ("[1]", r"line 2, column stages = '\[1\]': write"),
        ('"[{""a"": 5}, {""b"": 3}]"', r"line 2: stages sum to .*: make them agree"),
    ],
)
def test_stages_that_are_none_are_refused(csv, cell, message):
    with pytest.raises(BadInput, match=message):
        RunTable.from_csv(csv(f"run,tokens_a,tokens_b,loss_a,stages\nx,7,3,1.5,{cell}\n"))
