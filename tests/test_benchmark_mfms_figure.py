"""The picture of regret against cost: it shows the numbers of the results, and refuses others."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import mfms_figure  # noqa: E402

from autoscale_jax.report import style  # noqa: E402

UNITS = np.geomspace(1, 10_000, 30)


def curve(method, metric, domain, regret, end=10_000.0):
    mean = 2.5 + regret / np.sqrt(UNITS)
    return {
        "method": method, "metric": metric, "domain": domain, "units": UNITS.tolist(),
        "optimum": 2.5, "end": end, "mean": mean.tolist(), "low": (2.5 + (mean - 2.5) / 2).tolist(),
        "high": (2.5 + 2 * (mean - 2.5)).tolist(),
    }  # fmt: skip


@pytest.fixture
def curves():
    return [
        curve(method, metric, domain, regret, end)
        for domain in ("whole", "capped")
        for metric in ("c4", "piqa_error")
        for method, regret, end in (("ours", 0.1, 1000.0), ("random", 1.0, 10_000.0))
    ] + [curve("exact", "c4", "whole", 0.0)]


def test_lines_are_the_regrets_up_to_the_searchs_end(curves):
    mine = [c for c in curves if c["domain"] == "whole"]
    methods = ["random", "ours", "exact"]
    figure = mfms_figure.draw(mine, methods, style.Layout(wide=True))
    c4, piqa = (ax for ax in figure.axes if ax.get_visible())
    assert [ax.get_title(loc="center") for ax in (c4, piqa)] == ["c4", "piqa error"]
    by_look = {line.get_color(): line for line in piqa.lines}
    ours = by_look[style.MIXTURES["predicted"][0]]
    assert ours.get_xdata().max() == UNITS[UNITS <= 1000].max()
    np.testing.assert_allclose(ours.get_ydata(), 0.1 / np.sqrt(ours.get_xdata()))
    other = by_look[style.look(0).colour]
    np.testing.assert_allclose(other.get_ydata(), 1 / np.sqrt(UNITS))
    # no regret leaves the panel at its bottom, and does not stretch it
    for ax in (c4, piqa):
        assert 1e-3 < ax.get_ylim()[0] < 0.1 / np.sqrt(1000)
        assert ax.get_xscale() == ax.get_yscale() == "log"


def test_the_command_draws_what_is_chosen_and_refuses_the_rest(curves, tmp_path):
    results, page = tmp_path / "a.json", tmp_path / "a.html"
    results.write_text(json.dumps({"seeds": 7, "curves": curves}))
    command = [sys.executable, ROOT / "benchmarks/mfms_figure.py", results, page]

    def ended(*arguments):
        return subprocess.run([*command, *arguments], capture_output=True, text=True)

    assert ended("--methods", "ours,random", "--metrics", "c4").returncode == 0
    text = page.read_text()
    assert re.findall(r'<section id="(\w+)">', text) == ["whole", "capped"]
    assert "7 seeds" in text and ">ours<" in text and ">c4<" in text
    assert ">exact<" not in text and ">piqa error<" not in text
    assert "--methods best: use some of ours, random, exact" in ended("--methods", "best").stderr
    del curves[0]["optimum"]
    results.write_text(json.dumps({"seeds": 7, "curves": curves}))
    assert "no optimum beside the curves" in ended().stderr
