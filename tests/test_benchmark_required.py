"""What the benchmarks of the fits require of their figures, and how a miss is said."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import fit_speed  # noqa: E402
import published  # noqa: E402
from required import Required, judge  # noqa: E402

ROWS = [{"law": "a", "x": 0.2, "error": 0.01}, {"law": "b", "x": 0.2, "error": 0.03}]


@pytest.mark.parametrize(
    ("required", "met", "words"),
    [
        (Required({"law": "a"}, "error", 0.01), True, "a: error <= 0.01: 0.01, met"),
        (Required({"law": "b"}, "error", 0.01), False, "b: error <= 0.01: 0.03, MISSED"),
        (Required({"law": "b"}, "error", 0.03, least=True), True, "b: error >= 0.03: 0.03, met"),
        (Required({"law": "a"}, "error", 0.03, least=True), False, "error >= 0.03: 0.01, MISSED"),
        (Required({"law": "c"}, "error", 1), False, "c: error <= 1: 0 such figures, MISSED"),
        (Required({"law": "a"}, "errors", 1), False, "a: errors <= 1: 0 such figures, MISSED"),
        (Required({"x": 0.2}, "error", 1), False, "x 0.2: error <= 1: 2 such figures, MISSED"),
        (Required({"x": 0.2, "law": "a"}, "error", 1), True, "x 0.2, a: error <= 1: 0.01, met"),
    ],
)
def test_a_bound_is_met_or_missed(required, met, words):
    found, line = required.verdict(ROWS)
    assert found == met and line.startswith("required ") and line.endswith(words)


def test_a_figure_that_is_no_number_misses(capsys):
    bound = Required({"law": "a"}, "error", 1)
    assert not judge([bound], [{"law": "a", "error": float("nan")}])
    assert not judge([bound, Required({"law": "b"}, "error", 1)], ROWS[1:])
    assert judge([bound], ROWS) and judge([], ROWS)
    assert capsys.readouterr().out.count("MISSED") == 2


def test_one_miss_makes_the_command_fail(monkeypatch, capsys):
    """With tables that stand for the published ones, which may not be there."""
    good = {"x": 0.2, "branch": "steep", "floor": 0.2, "from published": 1e-6}
    chosen = {"law": "selected", "overall MAE": 0.007, "20k->30k MAE": 0.02}
    here = Path(__file__).name
    monkeypatch.setattr(published, "DATA", Path(__file__).parent)
    monkeypatch.setattr(sys, "argv", ["published.py", "--only=ddo,5mix"])
    for error, status in ((0.007, 0), (0.0076, 1)):
        rows = {"ddo": [good], "5mix": [chosen | {"overall MAE": error}]}
        for key, found in rows.items():
            monkeypatch.setitem(published.TABLES, key, (here, key, lambda found=found: found))
        assert published.main() == status
    out = capsys.readouterr().out
    assert out.count("MISSED") == 1 and "overall MAE <= 0.0075: 0.0076, MISSED" in out
    monkeypatch.setattr(sys, "argv", ["published.py", "--only=dd"])
    with pytest.raises(SystemExit, match="2"):
        published.main()
    assert "--only: 'dd': give some of ddo,regmix" in capsys.readouterr().err


def test_every_table_has_bounds():
    assert published.REQUIRED.keys() == published.TABLES.keys()
    assert {r.row["what"] for r in fit_speed.REQUIRED} == {
        fit_speed.RESAMPLES,
        fit_speed.EXTRAPOLATIONS,
        fit_speed.JOINT,
    }


@pytest.mark.skipif(not (published.DATA / published.DDO).exists(), reason="the table is not there")
def test_the_published_weights_are_found(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["published.py", "--only=ddo"])
    assert published.main() == 0
