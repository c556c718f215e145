"""Olmix's two files: joined on the run, renormalised, round trips."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec

RATIOS = "run,name,index,code,wiki\nr1,one,0,0.25,0.75\nr2,two,1,0.667,0.334\n"
METRICS = "run,name,index,arc_bpb,code_bpb\nr2,two,0,1.5,0.5\nr1,one,1,1.25,0.75\n"


@pytest.fixture
def read(tmp_path):
    def read(ratios=RATIOS, metrics=METRICS, **options):
        (tmp_path / "ratios.csv").write_text(ratios)
        (tmp_path / "metrics.csv").write_text(metrics)
        return RunTable.from_olmix(tmp_path / "ratios.csv", tmp_path / "metrics.csv", **options)

    return read


def test_the_files_are_joined_on_run(read):
    one, two = read(tokens=1000)
    assert (one.key, one.spec.label, one.status) == ("r1", "one", "ok")
    assert one.spec.tokens == {"code": 250, "wiki": 750}
    assert one.loss == {"arc_bpb": 1.25, "code_bpb": 0.75}
    assert two.spec.tokens == {"code": 666, "wiki": 334} and two.loss["arc_bpb"] == 1.5


def test_run_id_is_enough(read):
    (one,) = read("run_id,a\nx,1\n", "run_id,m\nx,2\n", tokens=lambda row: 7)
    assert (one.key, one.spec.label, dict(one.spec.tokens)) == ("x", "", {"a": 7})


@pytest.mark.parametrize("where", ["ratios", "metrics"])
def test_tokens_and_seed_of_each_run(read, where):
    files = {"ratios": "run,a\nx,1\ny,1\n", "metrics": "run,m\ny,2\nx,3\n"}
    head, *rows = files[where].splitlines()
    rows = [row + (",5,50" if row[0] == "x" else ",6,60") for row in rows]
    files[where] = "\n".join([head + ",seed,tokens", *rows])
    assert [(r.spec.seed, r.spec.total) for r in read(**files)] == [(5, 50), (6, 60)]
    with pytest.raises(BadInput, match="leave out the argument tokens="):
        read(**files, tokens=3)


@pytest.mark.parametrize(
    ("ratios", "metrics", "word"),
    [
        ("run,a\nx,1\ny,1\n", "run,m\nx,1\n", "metrics.csv: no row of run y, which"),
        ("run,a\nx,1\n", "run,m\nx,1\ny,1\nz,2\n", "ratios.csv: no row of run y, z, which"),
        ("run,a\nx,1\nx,1\n", "run,m\nx,1\n", "ratios.csv line 3, column run = 'x': line 2 has"),
        ("run,a\nx,1\n", "run,m\nx,1\nx,1\n", "metrics.csv line 3, column run = 'x': line 2 has"),
        ("run,a\n,1\n", "run,m\nx,1\n", "ratios.csv line 2, column run = '': give the run a name"),
        ("id,a\nx,1\n", "run,m\nx,1\n", "ratios.csv line 1: no column run"),
        ("run,name\nx,1\n", "run,m\nx,1\n", "ratios.csv line 1: no columns but run, name"),
        ("run,a,b\nx,.5,.48\n", "run,m\nx,1\n", "ratios.csv line 2: weights sum to 0.98: make"),
        ("run,a,b\nx,1.5,-.5\n", "run,m\nx,1\n", "ratios.csv line 2, column b = '-.5': write a"),
        ("run,a,b\nx,1,nan\n", "run,m\nx,1\n", "ratios.csv line 2, column b = 'nan': write a"),
        ("run,a\nx,1\n", "run,m\nx,inf\n", "metrics.csv line 2, column m = 'inf': write a finite"),
        ("run,a\nx,1\n", "run,m,n\nx,1,\n", "metrics.csv line 2, column n = '': write a number"),
    ],
)
def test_refusals_name_file_line_and_column(read, ratios, metrics, word):
    with pytest.raises(BadInput) as error:
        read(ratios, metrics, tokens=100)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_tokens_must_be_told(read):
    with pytest.raises(BadInput, match=r"ratios.csv: no column tells how many tokens"):
        read()


def test_what_olmix_takes_for_a_domain_is_a_domain(tmp_path):
    runs = [Run(RunSpec({"a": 1, "b": 3}, 5, "n"), "k", "ok", {"m": 1.5}, {}, {})]
    runs += [Run(RunSpec({"a": 1}), "f", "failed", {}, {}, {})]
    RunTable(runs).to_olmix(tmp_path)
    assert (tmp_path / "ratios.csv").read_text() == "run,name,index,a,b\nk,n,0,0.25,0.75\n"
    assert (tmp_path / "metrics.csv").read_text() == "run,name,index,m,tokens,seed\nk,n,0,1.5,4,5\n"


def test_names_with_another_meaning_are_refused(tmp_path):
    table = RunTable([Run(RunSpec({"index": 1}), "k", "ok", {"m": 1.5}, {}, {})])
    with pytest.raises(BadInput, match="domain 'index': this name has another meaning"):
        table.to_olmix(tmp_path)


name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda s: s not in ("run", "run_id", "name", "index", "tokens", "seed", "size")
)


@st.composite
def some_runs(draw):
    domains = draw(st.lists(name, min_size=1, max_size=5, unique=True))
    evals = draw(st.lists(name, min_size=1, max_size=3, unique=True))
    count = st.fixed_dictionaries(dict.fromkeys(domains, st.integers(0, 10**12)))
    loss = st.fixed_dictionaries(dict.fromkeys(evals, st.floats(0, 1e300)))
    keys = draw(st.lists(name, max_size=4, unique=True))
    return [
        Run(
            RunSpec(
                draw(count.filter(lambda c: sum(c.values()))),
                draw(st.integers(0, 99)),
                label,
                draw(st.sampled_from(("", "20m"))),
            ),
            key,
            "ok",
            draw(loss),
            {},
            {},
        )
        for key, label in zip(keys, draw(st.permutations(keys)), strict=True)
    ]


@settings(max_examples=60)
@given(some_runs())
def test_round_trip(tmp_path_factory, runs):
    if not runs:
        return
    folder = tmp_path_factory.getbasetemp()
    RunTable(runs).to_olmix(folder)
    back = list(RunTable.from_olmix(folder / "ratios.csv", folder / "metrics.csv"))
    assert back == runs
    assert [run.spec.label for run in back] == [run.spec.label for run in runs]
