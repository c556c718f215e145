"""From CSVs to printed weights: the command line, and the notebook that says the same."""

import contextlib
import dataclasses
import io
import json
import subprocess
import sys
import types
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from autoscale_jax.fit import __main__ as command
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks" / "fit_your_runs.ipynb"
CODE = [c.source for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]


@pytest.fixture(scope="module")
def notebook():
    """The names that the notebook's cells leave, run in this process on the example they write."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        matplotlib.use("Agg")
        shell = InteractiveShell()
        for source in CODE:
            shell.run_cell(source).raise_error()
    yield shell.user_ns
    plt.close("all")


@pytest.fixture(scope="module")
def answered(notebook, tmp_path_factory):
    """What the command prints and writes on the notebook's files: (text, JSON, picture)."""
    folder = tmp_path_factory.mktemp("answer")
    written, drawn, printed = folder / "proposal.json", folder / "proposal.svg", io.StringIO()
    asked = [f"--tokens={notebook['target_tokens']}", f"--json={written}", f"--plot={drawn}"]
    with contextlib.redirect_stdout(printed):
        assert command.main([*map(str, notebook["files"]), *asked, "--next=5"]) == 0
    return printed.getvalue(), json.loads(written.read_text()), drawn.read_text()


def test_the_notebook_and_the_command_say_the_same(notebook, answered):
    text, written, _ = answered
    proposal = notebook["proposal"]
    assert written["weights"] == proposal.weights
    assert written["low"] == proposal.low and written["high"] == proposal.high
    assert written["predicted_objective"] == proposal.predicted_objective
    assert written == json.loads(json.dumps(dataclasses.asdict(proposal)))
    assert command.describe(proposal) in text
    assert command.describe_next(notebook["worth_most"]) in text


def test_the_notebook_recovers_its_example(notebook):
    proposal, arrays = notebook["proposal"], notebook["arrays"]
    assert abs(sum(proposal.weights.values()) - 1) < 1e-9
    assert np.abs(notebook["predicted"] - arrays.loss_RxE).mean() < 0.02
    assert set(notebook["chosen"].contrast) == set(proposal.details["laws"])
    assert len(notebook["worth_most"]) == 5 and len(plt.get_fignums()) == 3


def test_the_command_prints_weights_and_draws_them(answered):
    text, written, drawn = answered
    assert "weights for 1,600,000 tokens" in text and "beats uniform" in text
    assert text.count("off the expected regret with") == 5
    assert "note: 1 run" not in text
    assert drawn.lstrip().startswith("<?xml") and "</svg>" in drawn
    assert set(written["weights"]) == {"books", "code", "law", "wiki"}


def test_bounds_unique_tokens_and_natural_hold(notebook, tmp_path, capsys):
    out = tmp_path / "p.json"
    unique = "books=4e5,code=4e5,law=1e5,wiki=1e5"
    options = ["--lower=0.02", "--upper=books=0.4", f"--unique={unique}", "--max-epochs=3"]
    asked = [*map(str, notebook["files"]), "--tokens=1.6e6", f"--json={out}", *options]
    assert command.main([*asked, "--samples=20", "--reference=natural"]) == 0
    found = json.loads(out.read_text())
    weights, candidates = found["weights"], found["details"]["candidates"]
    assert min(weights.values()) > 0.02 - 1e-9 and weights["books"] < 0.4 + 1e-9
    assert max(weights["law"], weights["wiki"]) < 3e5 / 1.6e6 + 1e-9
    natural = {"books": 0.4, "code": 0.4, "law": 0.1, "wiki": 0.1}
    assert candidates["reference"] == candidates["natural"]
    assert candidates["natural"]["weights"] == pytest.approx(natural)
    assert "beats natural with probability" in capsys.readouterr().out


@pytest.fixture
def asked(monkeypatch):
    """What `recommend` is asked for; it is not computed."""
    calls = []

    def record(table, tokens, **options):
        calls.append((table, tokens, options))
        raise BadInput("stop here")

    monkeypatch.setattr(command, "recommend", record)
    return calls


def csv_of(path, runs):
    """A tidy CSV of runs of code and wiki."""
    rows = [f"{name},{size},{status},100,100,2,3" for name, size, status in runs]
    path.write_text("run,size,status,tokens_code,tokens_wiki,loss_code,loss_wiki\n")
    path.write_text(path.read_text() + "\n".join(rows) + "\n")
    return str(path)


def test_options_reach_the_api(tmp_path, asked):
    path = csv_of(tmp_path / "runs.csv", [("a", "", "ok"), ("b", "", "ok")])
    assert command.main([path, "--tokens=1e6"]) == 2
    every = [
        "--unique=code=1e6, wiki=3e6", "--natural=code=0.5,wiki=0.5", "--eval-weights=code=2",
        "--lower=0.1", "--upper=wiki=0.6", "--max-epochs=2", "--reference=code=0.3,wiki=0.7",
        "--samples=7", "--seed=3", "--noise=0.01", "--objective=mean_loss",
    ]  # fmt: skip
    assert command.main([path, "--tokens=1e6", *every]) == 2
    plain, full = (options for _, _, options in asked)
    assert {name for name, value in plain.items() if value is not None} == {"method", "objective"}
    assert full == {
        "method": "auto", "objective": "mean_loss", "eval_weights": {"code": 2}, "noise": 0.01,
        "lower": 0.1, "upper": {"wiki": 0.6}, "unique": {"code": 1e6, "wiki": 3e6},
        "max_epochs": 2, "natural": {"code": 0.5, "wiki": 0.5},
        "reference": {"code": 0.3, "wiki": 0.7}, "samples": 7, "seed": 3,
    }  # fmt: skip


def test_natural_follows_unique_where_all_domains_have_it(tmp_path, asked, capsys):
    path = csv_of(tmp_path / "runs.csv", [("a", "", "ok")])
    command.main([path, "--tokens=1e6", "--unique=code=1e6,wiki=3e6"])
    command.main([path, "--tokens=1e6", "--unique=code=1e6"])
    assert [options["natural"] for _, _, options in asked] == [{"code": 0.25, "wiki": 0.75}, None]
    assert "note: no --unique of wiki: natural proportions are not" in capsys.readouterr().out


def test_only_runs_of_the_size_are_taken(tmp_path, asked, capsys):
    path = csv_of(tmp_path / "runs.csv", [("a", "20m", "ok"), ("b", "60m", "ok")])
    assert command.main([path, "--tokens=1e6", "--size=60m"]) == 2
    ((table, _, _),) = asked
    assert [run.spec.size for run in table] == ["60m"]
    assert command.main([path, "--tokens=1e6", "--size=1b"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "error: --size = '1b': no runs of that size; there are 20m, 60m"
    ]


def test_runs_that_are_left_out_are_named(tmp_path, asked, capsys):
    bad = [(f"r{i}", "", "diverged") for i in range(7)]
    many = csv_of(tmp_path / "many.csv", [("a", "", "ok"), *bad])
    one = csv_of(tmp_path / "one.csv", [("a", "", "ok"), ("b", "", "failed")])
    command.main([many, "--tokens=1e6"])
    command.main([one, "--tokens=1e6"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("note: 7 runs are marked diverged or failed and left out: r0")
    assert first.endswith("and 2 more") and "r4" in first and "r5" not in first
    assert second.startswith("note: 1 run is marked diverged or failed and left out: b")


def test_notes_of_the_files_are_printed(tmp_path, asked, capsys):
    a = csv_of(tmp_path / "a.csv", [("a", "", "ok")])
    b = csv_of(tmp_path / "b.csv", [("a", "", "ok")])
    Path(b).write_text(Path(b).read_text().replace("tokens_code", "tokens_kode"))
    command.main([a, b, "--tokens=1e6"])
    assert "note: domain 'kode' has tokens in b.csv only: a mi" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--unique=code", "--unique = 'code': 'code' is not NAME=NUMBER"),
        ("--unique=code=many", "--unique = 'code=many': 'code=many' is not NAME=NUMBER"),
        ("--natural==1", "--natural = '=1': '=1' is not NAME=NUMBER"),
        ("--eval-weights=code=1,", "'' is not NAME=NUMBER"),
        ("--lower=low", "--lower = 'low': 'low' is not NAME=NUMBER"),
        ("--upper=code=1,code=2", "'code' is there twice: name it once"),
        ("--reference=code=x", "--reference = 'code=x'"),
        ("--next=-1", "--next = -1: give how many runs to list, 0 or more"),
        ("--json=none/p.json", "--json = none/p.json: no folder none: create it first"),
        ("--json=.", "--json = .: is a folder: give the name of a file in it"),
        ("--plot=none/p.png", "--plot = none/p.png: no folder none: create it first"),
        ("--plot=p.gif", "--plot = p.gif: end the name in .png, .svg, .pdf"),
    ],
)
def test_a_bad_option_is_one_line(option, words, tmp_path, monkeypatch, asked, capsys):
    monkeypatch.chdir(tmp_path)
    path = csv_of(tmp_path / "runs.csv", [("a", "", "ok")])
    assert command.main([path, "--tokens=1e6", option]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1
    assert not asked  # refused before anything is computed


def test_a_bad_file_is_one_line(tmp_path, capsys):
    assert command.main([str(tmp_path / "none.csv"), "--tokens=1e6"]) == 2
    error = capsys.readouterr().err
    assert "none.csv" in error and error.count("\n") == 1


def test_a_size_is_chosen_from_a_table_with_its_notes():
    runs = [
        Run(RunSpec({"a": 1}, i, size=s), s, "ok", {"a": 1.0}, {}, {}) for i, s in enumerate("xy")
    ]
    table = RunTable(runs)
    table.notes = ("a note",)
    assert command.of_size(table, None) is table
    assert list(command.of_size(table, "y")) == runs[1:]
    assert command.of_size(table, "y").notes == ("a note",)


@pytest.fixture
def cell():
    """The names that the notebook's first cell defines; the package is there: it installs none."""
    names = {}
    exec(CODE[0], names)
    return names


def test_the_install_cell_looks_for_the_checkout(cell, tmp_path):
    find = cell["find_source"]
    assert find(NOTEBOOK.parent) == str(ROOT) == find(ROOT)
    assert find(tmp_path) == ""
    (tmp_path / "setup.py").write_text("setup(name='another')")
    (inner := tmp_path / "notebooks" / "mine").mkdir(parents=True)
    assert find(inner) == ""
    for packed in ("autoscale_jax-main.zip", "autoscale_jax-0.1.0-py3-none-any.whl"):
        (inner / packed).touch()
        assert find(inner) == str(inner / packed)
    (tmp_path / "autoscale_jax").mkdir()
    (tmp_path / "autoscale_jax" / "setup.py").write_text("setup(name='autoscale_jax')")
    assert find(tmp_path) == str(tmp_path / "autoscale_jax")  # beside the notebook: a clone
    (tmp_path / "setup.py").write_text("setup(name='autoscale_jax')")
    assert find(inner) == str(tmp_path)
    cell["SOURCE"] = "git+https://example.org/autoscale_jax"
    assert find(inner) == cell["SOURCE"]


def test_the_install_cell_says_what_is_wrong(cell, tmp_path):
    with pytest.raises(RuntimeError, match="set SOURCE in this cell and run it again"):
        cell["install"](tmp_path)
    cell["SOURCE"] = str(tmp_path / "nothing.whl")
    with pytest.raises(RuntimeError, match=r"could not be installed from .*nothing\.whl: .") as one:
        cell["install"](tmp_path)
    assert "\n" not in str(one.value)


def test_colab_is_asked_for_the_package_and_the_files(cell, tmp_path, monkeypatch):
    """With a stand-in for Colab, whose dialogue gives what was uploaded by name."""
    uploaded = iter([{"autoscale_jax.zip": b""}, {"small.csv": b"", "large.csv": b""}, {}])
    files = types.SimpleNamespace(upload=lambda: next(uploaded))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(files=files))
    calls = []
    done = types.SimpleNamespace(returncode=0, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: calls.append(a[0]) or done)
    cell["install"](tmp_path)
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    assert calls == [[*pip, f"{tmp_path}/autoscale_jax.zip"]]
    for expected in (["large.csv", "small.csv"], []):  # none: the next cell writes its example
        names = {"sys": sys}
        exec(CODE[1], names)
        assert names["files"] == expected


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()


@pytest.mark.slow
def test_the_install_cell_makes_an_environment_that_fits_and_draws(notebook, tmp_path):
    """From an empty environment, in a copy of the checkout: the light packages are enough."""
    checkout = tmp_path / "checkout"
    (checkout / "notebooks").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        (checkout / name).write_text((ROOT / name).read_text())
    (checkout / "autoscale_jax").symlink_to(ROOT / "autoscale_jax")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"

    def run(*arguments):
        # Neither this process's folder nor its PYTHONPATH: what is installed has to be enough.
        return subprocess.run(
            [python, "-I", *arguments], cwd=checkout / "notebooks", capture_output=True, text=True
        )

    installed = run("-c", CODE[0])
    if (
        "could not be installed" in installed.stderr
        and "No matching distribution" in installed.stderr
    ):
        pytest.skip(f"no packages to be had here: {installed.stderr.splitlines()[-1]}")
    assert installed.returncode == 0, installed.stderr
    files = list(map(str, notebook["files"]))
    drawn = tmp_path / "p.png"
    asked = ["--tokens=1.6e6", "--samples=10", f"--plot={drawn}"]
    answered = run("-m", "autoscale_jax.fit", *files, *asked)
    assert answered.returncode == 0, answered.stderr
    assert "weights for 1,600,000 tokens" in answered.stdout and drawn.stat().st_size > 10_000
    there = run("-m", "pip", "list", "--format=freeze").stdout.lower()
    assert "jaxopt" in there
    assert not [name for name in ("flax", "orbax", "grain", "tensorflow", "rich") if name in there]
