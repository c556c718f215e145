"""The report's account of a search: what it tried, what it learned, what its answer promised."""

from __future__ import annotations

from autoscale_jax.report import words
from autoscale_jax.report.document import Block, Cell, Column, Picture, Section, Table, Text
from autoscale_jax.report.schema import Search, Size, Study

_TITLE = "The search"
_TRIALS = (
    "How to read it: a dot is one run, of the model size at its left and the training steps "
    "below. A hundred times the FLOPs make a dot ten times as large in area; a run that continues "
    "a shorter one counts the difference alone. Runs of the same size and steps, of different "
    "mixtures, would cover one another: the later one is moved aside. Colours darken in the order "
    "in which the runs were asked for, and a number tells it where there is room for one. A "
    "search that learns from cheap runs starts at the lower left and goes to the upper right only "
    "where they cannot tell it more."
)
_SLICES = (
    "How to read it: what the search's surrogate, the model fitted to all its runs, expects of a "
    "training at the target. Along a picture all the weight that floors and caps let move goes "
    "from the first domain to the second. The band holds the truth in nine of ten cases if the "
    "surrogate is right; where it is wide, no run has told much about such mixtures."
)
_PATH = (
    "How to read it: after each step of the search, what the surrogate of that moment expected of "
    "the mixture that it would then have recommended, trained at the target. The line should "
    "settle and the band narrow as FLOPs are spent; a line that rises again says that the "
    "surrogate had promised too much. First predictions that are far off, made from next to "
    "nothing, are left out."
)
_TRAINED = (
    " Diamonds are trainings at the target, one a seed, and the line through them is their mean: "
    "“predicted” should lie in the band at the end of the search."
)


def section(study: Study, pictures: frozenset[str]) -> Section:
    """What was tried and spent, then the pictures that can be drawn."""
    search = study["search"]
    blocks: list[Block] = [Text(_spent(search))]
    if "trials" not in pictures:
        blocks.append(Text("No run has been made yet, so there is nothing to draw.", "missing"))
        return Section("search", _TITLE, tuple(blocks))
    blocks.append(Picture("trials", "Runs of the search by training steps and model size"))
    blocks += [Text(_TRIALS, "reading"), _by_size(search)]
    if "slices" in pictures:
        alt = "Predicted objective at the target against the share of a domain, with 90% bands"
        blocks += [Picture("slices", alt), Text(_SLICES, "reading")]
    if "path" in pictures:
        alt = "Predicted objective of the recommendation against FLOPs spent, with its 90% band"
        trained = any(run.get("objective") is not None for run in study["verification"])
        blocks += [Picture("path", alt), Text(_PATH + (_TRAINED if trained else ""), "reading")]
    return Section("search", _TITLE, tuple(blocks))


def known_sizes(search: Search) -> list[Size]:
    """The sizes with all that a size has."""
    return [size for size in search.get("sizes", []) if len(size) == len(Size.__annotations__)]


def _spent(search: Search) -> str:
    spent, budget = search.get("spent_flops"), search.get("budget_flops")
    trials = search.get("trials", [])
    text = f"{words.plural(len(trials), 'run')} took {words.scientific(spent)} of the "
    text += f"{words.scientific(budget)} FLOPs that the search may spend"
    sizes, steps = known_sizes(search), search.get("target_steps")
    if sizes and steps and budget:
        text += f", which is {budget / (sizes[-1]['step_flops'] * steps):.3g} times"
        text += " what one training at the target costs"
    return f"{text}."


def _by_size(search: Search) -> Table:
    """Runs and FLOPs of each model size."""
    total = sum(row.get("flops") or 0.0 for row in search.get("trials", []))
    rows = []
    for size in known_sizes(search):
        mine = [row for row in search.get("trials", []) if row.get("size") == size["name"]]
        flops = sum(row.get("flops") or 0.0 for row in mine)
        rows.append(
            (
                Cell(size["name"]),
                Cell(words.tokens(size["parameters"])),
                Cell(words.count(len(mine))),
                Cell(words.scientific(flops)),
                Cell(words.percent(flops / total if total else None)),
            )
        )
    names = ("parameters", "runs", "FLOPs", "of all")
    heads = (Column("model size", number=False), *(Column(name) for name in names))
    return Table(heads, tuple(rows), "Where the FLOPs went; the last size is the target's.")
