"""The report as a document: every section in its order, and the words around the pictures."""

from __future__ import annotations

from autoscale_jax.report import account, headline, results, search, words
from autoscale_jax.report.document import (
    Block,
    Cell,
    Column,
    Details,
    Document,
    Items,
    Picture,
    Section,
    Stats,
    Table,
    Text,
)
from autoscale_jax.report.schema import LawRow, Study


def build(study: Study, pictures: frozenset[str]) -> Document:
    """The document of a study; `pictures` names the figures that could be drawn."""
    designed = not study["search"]  # by DDO: budgets, changed runs and laws through them
    sections = (
        _answer(study),
        results.weights(study),
        results.gains(study),
        results.tokens_saved(study),
        results.perplexities(study),
        *((_scale(study, pictures), _laws(study, pictures)) if designed else ()),
        *(() if designed else (search.section(study, pictures),)),
        _curves(study, pictures),
        *((_effects(study, pictures),) if designed else ()),
        account.cost(study),
        account.noise(study),
        account.warnings(study),
        *((account.next_run(study),) if designed else ()),
        account.settings(study),
        account.runs(study),
    )
    return Document(study["title"], study["created"], sections)


def _answer(study: Study) -> Section:
    blocks: list[Block] = [Text(headline.sentence(study), "answer")]
    if stats := headline.stats(study):
        blocks.append(Stats(stats))
    if found := account.all_warnings(study):
        more = f" ({len(found) - 1} more under Warnings)" if len(found) > 1 else ""
        blocks.append(Items((found[0] + more,), "warning"))
    return Section("answer", "Answer", tuple(blocks))


def _scale(study: Study, pictures: frozenset[str]) -> Section:
    title = "Domain weights against token scale"
    if "weights" not in pictures:
        text = "No best mixture is known at any scale yet, so there is nothing to draw."
        return Section("scale", title, (Text(text, "missing"),))
    blocks: list[Block] = [
        Picture("weights", "Stacked shares of the domains against training tokens, with intervals"),
        Text(
            "How to read it: a vertical cut through the areas is the best mixture for a run of "
            "that many tokens. Dashed lines mark the scales where the optimum was measured; the "
            "paler part is extrapolated from them. A domain whose area grows to the right keeps "
            "paying off with more data; one that shrinks saturates. The small panels show the "
            "same shares one by one: filled dots are measured, hollow ones extrapolated, bars are "
            "90% intervals (a bar that cannot be seen is shorter than its dot), and the dashed "
            "line is the uniform share. Where a bar crosses it, the study cannot tell this "
            "domain's best share from an equal one.",
            "reading",
        ),
    ]
    if not any(p.get("low") for p in study["trajectory"]):
        blocks.append(Text("Intervals of the shares are missing: the fits gave none.", "missing"))
    scales = {p.get("tokens") for p in study["trajectory"]}
    if len(scales) == 1:
        text = "Only one scale is known; a trend takes at least two budgets."
        blocks.append(Text(text, "missing"))
    return Section("scale", title, tuple(blocks))


def _laws(study: Study, pictures: frozenset[str]) -> Section:
    title = "Scaling law of each domain"
    if "laws" not in pictures:
        text = "No law has been fitted yet: that takes a base run and its changed runs."
        return Section("laws", title, (Text(text, "missing"),))
    blocks: list[Block] = [
        Picture("laws", "Objective against each domain's tokens, with the fitted curves"),
        Text(
            "How to read it: in each panel only this domain's tokens change – fewer than in the "
            "base run, the same, more; a third and three times as many by default – while the "
            "other domains keep theirs. Points are runs, lines are the fitted laws. A steep line "
            "says that more of this domain still lowers the objective; a flat one that it has "
            "given what it can. Points off their line are noise or a law of the wrong shape.",
            "reading",
        ),
    ]
    failed = [law for law in study["laws"] if not law.get("ok", True)]
    unsure = [law for law in study["laws"] if law not in failed and not law.get("decided", True)]
    if failed or unsure:
        counts = [f"{len(failed)} could not be fitted"] if failed else []
        counts += [f"{len(unsure)} left undecided by the data"] if unsure else []
        text = f"Of {words.plural(len(study['laws']), 'law')}, {words.listing(counts)}."
        blocks.append(Text(text, "missing"))
    blocks.append(Details("Formulas and parameters", (_formulas(study["laws"]),)))
    return Section("laws", title, tuple(blocks))


def _formulas(laws: list[LawRow]) -> Table:
    rows = []
    for law in laws:
        fit = "failed" if not law.get("ok", True) else ""
        fit = fit or ("good" if law.get("decided", True) else "not decided")
        params = ", ".join(
            f"{name} = {words.small(x) if isinstance(x, int | float) else x}"
            for name, x in law.get("params", {}).items()
        )
        rows.append(
            (
                Cell(law.get("domain", "?")),
                Cell(words.tokens(law.get("budget"))),
                Cell(fit),
                Cell(law.get("formula", "")),
                Cell(params),
                Cell(law.get("note", "")),
            )
        )
    names = ("domain", "base run", "fit", "formula", "parameters", "note")
    heads = tuple(Column(n, number=n == "base run") for n in names)
    return Table(heads, tuple(rows), "Every fitted law.")


def _curves(study: Study, pictures: frozenset[str]) -> Section:
    title = "Validation curves at the target"
    if "curves" not in pictures:
        text = "No verification run has left a validation curve yet."
        return Section("curves", title, (Text(text, "missing"),))
    reference = study["reference"]
    reading = (
        "How to read it: one line a run. In the first picture lower is better; where a line "
        f"crosses the dashed level of {reference}'s final value, it has caught up on fewer "
        f"tokens. The second shows the same runs as a change from {reference}'s run of the same "
        "seed at the same token: below zero is a gain, and lines of one colour that disagree show "
        "the noise. Where the learning rate decays, only the ends compare fairly: a middle is not "
        "the end of a shorter run. The first part of training is left out."
    )
    blocks = (
        Picture("curves", "Held-out objective of every verification run against training tokens"),
        Text(reading, "reading"),
    )
    return Section("curves", title, blocks)


def _effects(study: Study, pictures: frozenset[str]) -> Section:
    title = "Which domain's data moves which domain's loss"
    if "effects" not in pictures:
        text = "No run with three times a domain's tokens has finished, so no effect is known yet."
        return Section("effects", title, (Text(text, "missing"),))
    reading = (
        "How to read it: a row is a proxy run in which only that domain's tokens were raised, by "
        "default to three times as many; a column is the held-out text that was then measured; a "
        "cell is the change of its loss. The diagonal is a domain helping itself. Blue off the "
        "diagonal is transfer: the row's data helps the column's text too. Red means it hurts. A "
        "change of 0.01 nats is about 1% of perplexity; cells no larger than the noise stated "
        "below mean nothing."
    )
    blocks: list[Block] = [Picture("effects", "Heat map of loss changes"), Text(reading, "reading")]
    if study["effects"].get("caption"):
        blocks.append(Text(study["effects"]["caption"]))
    return Section("effects", title, tuple(blocks))
