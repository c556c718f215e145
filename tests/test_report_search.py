"""The report of a search: what it tried and in which order, its surrogate's slices, its path."""

from __future__ import annotations

import math
import random
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from test_report_pages import paths, spoiled, view_of
from test_report_study import make_study

from autoscale_jax import evidence, report
from autoscale_jax.methods.space import Size, Space
from autoscale_jax.report import figures, schema, search, sections
from autoscale_jax.specs import Run, RunSpec

SIZES = [("10M", 10_000_000), ("40M", 40_000_000), ("124M", 124_000_000)]
STEPS = (250, 1000, 4000)
TARGET_STEPS = 8000
SEARCHED = ("curves", "trials", "slices", "path")
_KEYS = ("laws", "trajectory", "effects", "budgets", "noise", "next_run")


def _trials() -> list[dict[str, Any]]:
    """Two dozen runs that go from cheap to dear; some continue the run before them."""
    draw, rows = random.Random(3), []
    for i in range(26):
        size = 0 if i < 8 else min(2, int(draw.triangular(0, 3, 3 * i / 26)))
        steps = STEPS[0 if i < 8 else min(2, int(draw.triangular(0, 3, 3 * i / 26)))]
        begun = STEPS[0] if i % 5 == 4 and steps > STEPS[0] else 0
        rows.append(
            {
                "order": i + 1,
                "size": SIZES[size][0],
                "steps": steps,
                "flops": 6 * SIZES[size][1] * 256 * (steps - begun),
                "objective": 40 + draw.gauss(0, 1),
                "initial": i < 6,
                "status": "diverged" if i == 11 else "ok",
            }
        )
    rows[11]["objective"] = None
    return rows


def _slice(start: str, end: str, low: float, best: float) -> dict[str, Any]:
    share = [i / 100 for i in range(101)]
    mean = [low + 18 * (x - best) ** 2 for x in share]
    half = [0.3 + 1.5 * (x - best - 0.1) ** 2 for x in share]
    return {
        "from": start,
        "to": end,
        "share": share,
        "mean": mean,
        "low": [m - h for m, h in zip(mean, half, strict=True)],
        "high": [m + h for m, h in zip(mean, half, strict=True)],
    }


def make_search_study() -> dict[str, Any]:
    """The study of five domains, had its mixture been found by a search."""
    study, trials = make_study(), _trials()
    for key in _KEYS:
        del study[key]
    study["proposals"][0]["method"] = study["recommended"] = "MFMSBO"
    level = min(r["objective"] for r in study["verification"])
    path, spent = [], 0.0
    for i, row in enumerate(trials):
        spent += row["flops"]
        mean, half = level * (1 + 0.2 * math.exp(-i / 5)), level * 0.25 * math.exp(-i / 7)
        point = {"flops": spent, "objective": mean, "low": mean - half, "high": mean + half}
        path += [point] if i >= 5 else []
    step_tokens = 256
    study["search"] = {
        "sizes": [
            {
                "name": name,
                "parameters": n,
                "step_flops": 6.0 * n * step_tokens,
                "step_tokens": step_tokens,
            }
            for name, n in SIZES
        ],
        "steps": list(STEPS),
        "target_steps": TARGET_STEPS,
        "budget_flops": 4 * 6.0 * SIZES[-1][1] * step_tokens * TARGET_STEPS,
        "spent_flops": spent,
        "trials": trials,
        "slices": [_slice("b64", "code", level, 0.41), _slice("docs", "headers", level, 0.12)],
        "path": path,
    }
    return study


def said(svg: str) -> str:
    return " ".join(" ".join(ET.fromstring(svg).itertext()).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("report")
    report.write(make_search_study(), workdir)
    return workdir


def test_the_search_is_in_both_pages_in_place_of_the_designs(written: Path) -> None:
    page, text = (written / "report.html").read_text(), (written / "report.md").read_text()
    anchors = re.findall(r'<section id="(\w+)">', page)
    assert "search" in anchors and not {"scale", "laws", "effects", "next"} & set(anchors)
    assert {p.stem for p in (written / "figures").iterdir()} == set(SEARCHED)
    assert page.count("<svg") == 2 * len(SEARCHED) and "<image" not in page
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]*)", page)) <= set(ids)
    for words in ("26 runs took", "4 times what one training at the target costs", "Diamonds"):
        assert words in page and words in text


def test_pictures_name_what_they_show(written: Path) -> None:
    drawn = {name: said((written / "figures" / f"{name}.svg").read_text()) for name in SEARCHED}
    for words in ("10M", "124M", "4k", "target", "initial design", "without a result"):
        assert words in drawn["trials"]
    # the dear ones are large enough for their numbers, and stand in order of asking
    numbers = [int(n) for n in re.findall(r"(?<!\S)\d+(?!\S)", drawn["trials"])]
    assert {row["order"] for row in _trials() if row["size"] == "124M"} & set(numbers)
    assert "b64 → code" in drawn["slices"] and "that may move, on headers" in drawn["slices"]
    for mixture in ("predicted", "uniform", "natural"):
        assert f"{mixture} trained" in drawn["path"]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"slices": [], "path": []}, {"trials"}),
        ({"slices": [{"from": "a", "to": "b", "share": [0.0, 1.0], "mean": [1.0]}]}, {"path"}),
        ({"trials": []}, {"slices", "path"}),
        ({"trials": _trials()[:1], "path": [{"flops": 1e12, "objective": 3.0}]}, {"slices"}),
    ],
)
def test_what_is_not_known_is_left_out(change: dict[str, Any], left: set[str]) -> None:
    study = make_search_study()
    study["search"] |= change
    view = view_of(study | {"verification": []})
    drawn = figures.draw_all(view)
    section = search.section(view, frozenset(drawn))
    shown = {block.name for block in section.blocks if isinstance(block, search.Picture)}
    assert left <= set(drawn) and shown <= set(drawn)
    assert ("trials" in drawn) == bool(study["search"]["trials"])
    if "trials" not in drawn:
        assert shown == set() and "nothing to draw" in section.blocks[-1].text


def test_any_number_of_a_search_may_be_unknown() -> None:
    study = {"search": make_search_study()["search"], "title": "s"}
    for path in paths(study):
        sections.build(view_of(spoiled(study, path, None)), frozenset({"trials", "path"}))


@pytest.mark.slow
def test_any_number_of_a_search_may_be_unknown_in_the_pictures() -> None:
    study = {"search": make_search_study()["search"]}
    study["search"]["trials"] = study["search"]["trials"][:3]
    for path in paths(study):
        figures.draw_all(view_of(spoiled(study, path, None)))


def test_trials_are_read_from_the_runs_in_the_order_of_their_labels() -> None:
    sizes = (Size("small", 100.0, 600.0, 10), Size("large", 400.0, 2400.0, 10))
    space = Space(("a", "b"), sizes, (5, 20), 40, (0.0, 0.0), (1.0, 1.0))

    def run(label: str, size: str, total: int, flops: float, status: Any = "ok") -> Run:
        spec = RunSpec({"a": total // 2, "b": total // 2}, 0, label, size)
        return Run(spec, label, status, {"a": 1.5}, spec.tokens, {}, flops=flops)

    runs = [
        run("search 3: large x 20 steps", "large", 200, 100.0, "diverged"),
        run("search 10: small x 20 steps", "small", 200, 9000.0),
        run("initial 2: small x 5 steps", "small", 50, 3000.0),
    ]
    rows = evidence.trials(space, runs, lambda loss: 2 * loss["a"])
    assert [(r["order"], r["size"], r["steps"], r["flops"], r["initial"]) for r in rows] == [
        (2, "small", 5, 3000.0, True),
        (3, "large", 20, 100.0, False),
        (10, "small", 20, 9000.0, False),
    ]
    assert [row["objective"] for row in rows] == [3.0, None, 3.0]
    plain = [run("Haphazard 20 steps", "small", 50, 1.0), run("", "large", 50, 2.0)]
    assert [row["order"] for row in evidence.trials(space, plain, lambda loss: 0.0)] == [1, 2]
    details = {"slices": [{"from": "a", "to": "b"}], "path": [{"flops": 1.0}]}
    shown = evidence.of_search(space, 2e4, runs, lambda loss: 0.0, details)["search"]
    assert shown["spent_flops"] == 12_100 and set(shown) == set(schema.Search.__annotations__)
    assert shown["slices"] == details["slices"] and shown["path"] == details["path"]
