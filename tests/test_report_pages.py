"""The report's pages: every section in both, unfinished studies, hostile names, a real browser."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_report_study import DOMAINS, make_study

from autoscale_jax import report
from autoscale_jax.report import figures, headline, html, markdown, schema, sections, store
from autoscale_jax.report.document import Document
from autoscale_jax.specs import BadInput

ANCHORS = [
    "answer",
    "weights",
    "gains",
    "saved",
    "perplexity",
    "scale",
    "laws",
    "curves",
    "effects",
    "cost",
    "noise",
    "warnings",
    "next",
    "settings",
    "runs",
]
PICTURES = ("weights", "laws", "curves", "effects")  # of a study without a search
HOSTILE = (
    "<script>alert(1)</script>",
    "a|b*c_`d`",
    "C&A $x^2$ \\n",
    "数学テキスト",
    'x" onload="y',
)


def view_of(study: dict[str, Any]) -> schema.Study:
    return store.loads(store.dumps(study))


def pages(study: dict[str, Any]) -> tuple[str, str]:
    """Both pages of a study, without its pictures."""
    document = sections.build(view_of(study), frozenset())
    return html.render(document, {}), markdown.render(document)


def answer(study: dict[str, Any]) -> str:
    return headline.sentence(view_of(study))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full report of the whole study, written once."""
    workdir = tmp_path_factory.mktemp("report")
    report.write(make_study(), workdir)
    return workdir


def test_all_files_are_written_and_nothing_else(written: Path) -> None:
    found = {str(p.relative_to(written)) for p in written.rglob("*") if p.is_file()}
    pictures = {f"figures/{name}.svg" for name in PICTURES}
    assert found == {"report.json", "report.html", "report.md"} | pictures
    study = make_study()
    assert json.loads((written / "report.json").read_text()) == json.loads(json.dumps(study))


def test_every_section_is_in_both_pages(written: Path) -> None:
    page, text = (written / "report.html").read_text(), (written / "report.md").read_text()
    document = sections.build(view_of(make_study()), frozenset(PICTURES))
    assert re.findall(r'<section id="(\w+)">', page) == ANCHORS
    assert re.findall(r"^## (.*)$", text, re.M) == [s.title for s in document.sections]
    assert page.count("<svg") == 2 * len(PICTURES)
    for name in PICTURES:
        assert f"(figures/{name}.svg)" in text


def test_page_is_self_contained_and_its_ids_are_unique(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert "<script" not in page and "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#)[^"]*"', page)
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]*)"', page)) | set(re.findall(r"url\(#([^)]*)\)", page))
    assert used <= set(ids)


def test_pictures_are_xml_that_names_every_domain_and_hold_no_pixels(written: Path) -> None:
    for name in ("weights", "laws", "effects"):
        text = (written / "figures" / f"{name}.svg").read_text()
        said = " ".join(ET.fromstring(text).itertext())
        assert all(domain in said for domain in DOMAINS), name
        assert "<image" not in text
    curves = (written / "figures" / "curves.svg").read_text()
    assert all(m in curves for m in ("predicted", "uniform", "natural", "keep"))


def test_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    study = {**make_study(), "laws": [], "verification": [], "trajectory": []}
    for place in (tmp_path / "a", tmp_path / "b"):
        report.write(study, place)
    for name in ("report.html", "report.md", "figures/effects.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_picture_that_can_no_longer_be_drawn_is_removed(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "laws.svg").write_text("old")
    report.write({"title": "empty"}, tmp_path)
    assert list((tmp_path / "figures").iterdir()) == []


def test_refused_study_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"study\.cost\.flops"):
        report.write({**make_study(), "cost": {"flops": float("inf")}}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def markdown_tables(text: str) -> Iterator[list[str]]:
    table: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            table.append(line)
        elif table:
            yield table
            table = []


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip().strip("|"))


@pytest.mark.parametrize("hostile", [False, True])
def test_markdown_tables_are_well_formed(hostile: bool) -> None:
    study = renamed(make_study()) if hostile else make_study()
    tables = list(markdown_tables(pages(study)[1]))
    assert len(tables) >= 8
    for table in tables:
        widths = {len(cells(line)) for line in table}
        assert len(widths) == 1, table[0]
        assert all(re.fullmatch(r" -+:? ", c) for c in cells(table[1]))


def test_numbers_in_markdown_are_not_escaped() -> None:
    text = pages(make_study())[1]
    assert "| **39.0%** |" in text and "\\3" not in text


class Tags(HTMLParser):
    """The element and attribute names of a page, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)


def renamed(value: Any) -> Any:
    """The same with every domain's name replaced by a hostile one."""
    names = dict(zip(DOMAINS, HOSTILE, strict=True))
    if isinstance(value, dict):
        return {names.get(k, k): renamed(v) for k, v in value.items()}
    if isinstance(value, list):
        return [renamed(v) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    study = renamed(make_study())
    study["title"] = "</title><script>x</script>"
    study.update(laws=[], verification=study["verification"][-1:])
    study["warnings"] = ["<img src=x onerror=y> \x1b[31m \ud800 \u202e"]
    report.write(study, tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    tags = Tags(page)
    assert not {"script", "img", "iframe"} & tags.names
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert "<script" not in text and "<img" not in text
    assert "&lt;script&gt;" in page and "数学テキスト" in page and "\\x1b" in page
    for path in (tmp_path / "figures").iterdir():
        root = ET.fromstring(path.read_text())
        assert not [e for e in root.iter() if e.tag.endswith("script")]
    effects = "".join(ET.fromstring((tmp_path / "figures/effects.svg").read_text()).itertext())
    assert "C&A $x^2$ \\n" in effects


def test_headline_of_a_shown_gain() -> None:
    text = answer(make_study())
    assert text.startswith("At 800k tokens train on 39% code, 39% docs, 14% headers,")
    assert "mean perplexity 3.4% below uniform's (90% interval 2.2% to 4.6% below;" in text
    assert "lower in 2 of 2 seeds" in text


def with_gain(**gain: Any) -> dict[str, Any]:
    return {**make_study(), "gain": {"vs_uniform": gain}}


def with_proposal(**change: Any) -> dict[str, Any]:
    study = make_study()
    study["proposals"][0].update(change)
    return study


@pytest.mark.parametrize(
    ("study", "says"),
    [
        (with_gain(relative=-0.01, low=-0.03, high=0.01, pairs=2), "no gain over uniform shown"),
        (with_gain(relative=-0.01, pairs=1, wins=1), "too few seeds for an interval"),
        (with_gain(relative=0.02, low=0.01, high=0.03), "worse than uniform, mean perplexity 2.0%"),
        (with_gain(relative=None), "expected but not verified, mean perplexity 3.3% below"),
        ({**make_study(), "proposals": []}, "No mixture can be recommended yet"),
        ({"runs": []}, "No mixture can be recommended yet"),
        ({**make_study(), "recommended": "uniform"}, "train on the uniform mixture"),
        ({**make_study(), "recommended": "nobody"}, "train on 39% code"),
        ({**make_study(), "objective": {"kind": "worst_loss"}}, "worst-domain loss 3.4% below"),
        (
            {**make_study(), "objective": {"kind": "mean_loss", "weights": {"a": 0.9, "b": 0.1}}},
            "weighted mean loss 3.4% below",
        ),
        (with_proposal(weights={f"d{i}": 0.1 for i in range(10)}), "40% in 4 other domains"),
    ],
)
def test_headline_is_honest(study: dict[str, Any], says: str) -> None:
    assert says in answer(study)


def verification_all(status: str) -> dict[str, Any]:
    study = make_study()
    for row in study["verification"]:
        row.update(status=status, loss={}, curve=[], objective=None, mean_perplexity=None)
    return {**study, "gain": {}, "tokens_saved": {}, "laws": [], "trajectory": []}


def one_budget() -> dict[str, Any]:
    study = make_study()
    study["trajectory"] = study["trajectory"][:1]
    return {**study, "budgets": [50_000], "laws": [], "verification": []}


def failed_fits() -> dict[str, Any]:
    study = make_study()
    for law in study["laws"]:
        law.update(ok=False, curve=[], params={}, formula="", note="no solution")
    for proposal in study["proposals"]:
        proposal.update(weights={}, low={}, high={}, predicted_objective=None)
    return {**study, "trajectory": []}


def no_intervals() -> dict[str, Any]:
    study = make_study()
    for row in study["proposals"] + study["trajectory"]:
        row.update(low={}, high={d: None for d in DOMAINS})
    return {**study, "laws": [], "verification": [], "effects": {}}


DEGENERATE: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (lambda: {"title": "nothing yet"}, "Nothing has been verified yet"),
    (lambda: dict.fromkeys(make_study()), "No run has been made yet"),
    (lambda: verification_all("diverged"), "predicted seed 0 (diverged)"),
    (one_budget, "Only one scale is known"),
    (failed_fits, "10 could not be fitted"),
    (no_intervals, "Intervals are missing"),
]


@pytest.mark.parametrize(("make", "says"), DEGENERATE)
def test_unfinished_studies_are_written_and_say_so(
    make: Callable[[], dict[str, Any]], says: str, tmp_path: Path
) -> None:
    report.write(make(), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == ANCHORS
    assert says in page
    assert says in (tmp_path / "report.md").read_text().replace("\\", "")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a study, going only into the first item of a list."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value[:1]):
            yield from paths(item, (*path, i))


def spoiled(study: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    study = copy.deepcopy(study)
    place: Any = study
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return study


def lean_study() -> dict[str, Any]:
    """The study with short lists, so that it can be rendered hundreds of times."""
    study = make_study()
    for row in study["verification"]:
        row["curve"] = row["curve"][-2:]
    return {**study, "runs": study["runs"][:2], "laws": study["laws"][:2]}


def test_any_number_may_be_unknown() -> None:
    study = lean_study()
    for path in paths(study):
        pages(spoiled(study, path, None))


@pytest.mark.slow
def test_any_number_may_be_unknown_in_the_pictures() -> None:
    study = lean_study()
    always = {"domains": study["domains"], "target_tokens": study["target_tokens"]}
    for key in ("trajectory", "laws", "effects", "verification"):
        small = {key: study[key], **always}
        for path in paths(small):
            figures.draw_all(view_of(spoiled(small, path, None)))


@pytest.mark.parametrize("count", [1, 9, pytest.param(22, marks=pytest.mark.slow)])
def test_pictures_of_few_and_many_domains(count: int) -> None:
    names = [f"domain number {i}" for i in range(count)]
    share = dict.fromkeys(names, 1 / count)
    drawn = figures.draw_all(
        view_of(
            {
                "domains": [{"name": n} for n in names],
                "trajectory": [{"tokens": t, "weights": share} for t in (1000, 5000)],
                "effects": {
                    "domains": names,
                    "eval_domains": names,
                    "change": [[-0.1] * count for _ in names],
                },
            }
        )
    )
    assert set(drawn) == {"weights", "effects"}
    for svg in (drawn["weights"].wide, drawn["weights"].narrow):
        used = re.findall(r"(?:url\(|href=\")#([^)\"]*)", svg)
        assert set(used) <= set(re.findall(r'\sid="([^"]*)"', svg))


def test_sections_do_not_share_anchors() -> None:
    document: Document = sections.build(view_of({}), frozenset())
    assert [s.anchor for s in document.sections] == ANCHORS


def test_page_in_a_browser(written: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--v=0",
        "--dump-dom",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    page = (written / "report.html").as_uri()
    done = subprocess.run(
        [browser, *flags, profile, page], capture_output=True, text=True, timeout=120, check=True
    )
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert complaints == []
    assert re.findall(r'<section id="(\w+)">', done.stdout) == ANCHORS
    assert done.stdout.count("<svg") == 2 * len(PICTURES)
    assert all(domain in done.stdout for domain in DOMAINS)
