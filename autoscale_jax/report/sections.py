"""The report as a document: every section in its order, and the words around the pictures."""

from __future__ import annotations

from typing import Any

from autoscale_jax.report import headline, results, words
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
from autoscale_jax.report.style import domain_names


def build(study: Study, pictures: frozenset[str]) -> Document:
    """The document of a study; `pictures` names the figures that could be drawn."""
    sections = (
        _answer(study),
        results.weights(study),
        results.gains(study),
        results.tokens_saved(study),
        results.perplexities(study),
        _scale(study, pictures),
        _laws(study, pictures),
        _curves(study, pictures),
        _effects(study, pictures),
        _cost(study),
        _noise(study),
        _warnings(study),
        _next(study),
        _settings(study),
        _runs(study),
    )
    return Document(study["title"], study["created"], sections)


def _answer(study: Study) -> Section:
    blocks: list[Block] = [Text(headline.sentence(study), "answer")]
    if stats := headline.stats(study):
        blocks.append(Stats(stats))
    if found := _all_warnings(study):
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
            "How to read it: in each panel only this domain's tokens change – a third of the base "
            "run's, the same, three times as many – while the other domains keep theirs. Points "
            "are runs, lines are the fitted laws. A steep line says that more of this domain still "
            "lowers the objective; a flat one that it has given what it can. Points off their line "
            "are noise or a law of the wrong shape.",
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
        "How to read it: a row is a proxy run in which only that domain's tokens were tripled; a "
        "column is the held-out text that was then measured; a cell is the change of its loss. "
        "The diagonal is a domain helping itself. Blue off the diagonal is transfer: the row's "
        "data helps the column's text too. Red means it hurts. A change of 0.01 nats is about 1% "
        "of perplexity; cells no larger than the noise stated below mean nothing."
    )
    blocks: list[Block] = [Picture("effects", "Heat map of loss changes"), Text(reading, "reading")]
    if study["effects"].get("caption"):
        blocks.append(Text(study["effects"]["caption"]))
    return Section("effects", title, tuple(blocks))


def _cost(study: Study) -> Section:
    cost = study["cost"]
    lines = [
        ("proxy runs", words.count(cost.get("proxy_runs"))),
        ("verification runs", words.count(cost.get("verification_runs"))),
        ("all runs", words.count(cost.get("runs"))),
        ("training tokens", words.tokens(cost.get("tokens"))),
        ("training FLOPs", words.scientific(cost.get("flops"))),
        ("training time", words.seconds(cost.get("seconds"))),
    ]
    if not cost:
        return Section("cost", "Cost so far", (Text("Nothing has been spent yet.", "missing"),))
    return Section("cost", "Cost so far", (_pairs(lines, "What all runs so far took."),))


def _noise(study: Study) -> Section:
    noise, name = study["noise"], words.objective(study["objective"])
    replicates = noise.get("replicates")
    blocks: list[Block] = []
    if "objective_sd" in noise or "relative_sd" in noise:
        relative = noise.get("relative_sd")
        also = "" if relative is None else f" ({words.percent(relative, 2)} of it)"
        text = f"Between seeds the {name} of one mixture varies with a standard deviation of "
        text += f"{words.small(noise.get('objective_sd'))}{also}"
        text += f", measured on {words.plural(replicates, 'replicate')}." if replicates else "."
        blocks.append(Text(text))
    else:
        text = "The noise is not known: that takes at least two runs that differ only in seed."
        blocks.append(Text(text, "missing"))
    if "paired_sd" in noise:
        spread = words.small(noise["paired_sd"])
        text = "The difference of two mixtures that share a seed varies with a standard deviation "
        blocks.append(Text(f"{text}of {spread}."))
    elif "objective_sd" in noise:
        blocks.append(Text("How much pairing by seed cuts it has not been measured.", "missing"))
    return Section("noise", "Noise", tuple(blocks))


def _all_warnings(study: Study) -> list[str]:
    """The study's warnings, then the recommended proposal's and the others' with their names."""
    found = list(study["warnings"])
    best = headline.recommended(study)
    for proposal in [best] if best else []:
        found += proposal.get("warnings", [])
    for proposal in study["proposals"]:
        if proposal is not best:
            name = proposal.get("method", "?")
            found += [f"{name}: {text}" for text in proposal.get("warnings", [])]
    return list(dict.fromkeys(found))


def _warnings(study: Study) -> Section:
    found = _all_warnings(study)
    block: Block = Items(tuple(found), "warning") if found else Text("None.")
    return Section("warnings", "Warnings", (block,))


def _next(study: Study) -> Section:
    best = study["next_run"]
    if not best or not best.get("label"):
        return Section("next", "The next best run", (Text("No further run is proposed."),))
    reason = best.get("reason", "")
    text = f"{best['label']}. {reason}" if reason else f"{best['label']}."
    return Section("next", "The next best run", (Text(text),))


def _settings(study: Study) -> Section:
    rows = [(key, _setting(value)) for key, value in study["config"].items()]
    blocks: list[Block] = []
    if rows:
        blocks.append(_pairs(rows, "The main settings.", number=False))
    else:
        blocks.append(Text("No settings were recorded.", "missing"))
    if study["domains"]:
        blocks.append(_corpus(study))
    return Section("settings", "Settings and data", tuple(blocks))


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_setting(item) for item in value)
    return str(value)


def _corpus(study: Study) -> Table:
    rows = tuple(
        (
            Cell(row.get("name", "?")),
            Cell(words.count(row.get("train_tokens"))),
            Cell(words.count(row.get("train_documents"))),
            Cell(words.count(row.get("eval_tokens"))),
            Cell(words.count(row.get("eval_documents"))),
            Cell(words.small(row.get("max_epochs"))),
        )
        for row in study["domains"]
    )
    names = ("training tokens", "documents", "held-out tokens", "documents", "most epochs")
    heads = (Column("domain", number=False), *(Column(n) for n in names))
    return Table(heads, rows, "The text: unique tokens and documents of each domain.")


def _runs(study: Study) -> Section:
    runs = study["runs"]
    if not runs:
        return Section("runs", "All runs", (Text("No run has been made yet.", "missing"),))
    trained = [n for n in domain_names(study) if any(n in run.get("tokens", {}) for run in runs)]
    evaluated = list(dict.fromkeys(d for run in runs for d in run.get("loss", {})))
    rows = []
    for run in runs:
        tokens, loss = run.get("tokens", {}), run.get("loss", {})
        epochs = run.get("epochs", {}).values()
        rows.append(
            (
                Cell(run.get("label", "")),
                Cell(str(run.get("seed", words.UNKNOWN))),
                Cell(run.get("status", words.UNKNOWN), strong=run.get("status") != "ok"),
                Cell(words.objective_value(study["objective"], run.get("objective"))),
                Cell(words.tokens(run.get("total"))),
                *(Cell(words.tokens(tokens.get(n))) for n in trained),
                Cell(f"{max(epochs):.2f}" if epochs else words.UNKNOWN),
                *(Cell(words.loss(loss.get(d))) for d in evaluated),
                Cell(words.scientific(run.get("flops"))),
                Cell(words.seconds(run.get("seconds"))),
                Cell(run.get("message", "")),
                Cell(run.get("key", "")),
            )
        )
    heads = [Column("run", number=False), Column("seed"), Column("status", number=False)]
    heads += [Column(words.objective(study["objective"])), Column("tokens")]
    heads += [Column(f"{n} tokens") for n in trained] + [Column("most epochs")]
    heads += [Column(f"{d} loss") for d in evaluated]
    heads += [Column("FLOPs"), Column("time")]
    heads += [Column("message", number=False), Column("key", number=False)]
    table = Table(tuple(heads), tuple(rows), "Loss in nats per token on held-out text.")
    bad = sum(run.get("status") != "ok" for run in runs)
    summary = words.plural(len(runs), "run") + (f", {bad} without a result" if bad else "")
    return Section("runs", "All runs", (Details(summary, (table,)),))


def _pairs(rows: list[tuple[str, str]], caption: str, number: bool = True) -> Table:
    heads = (Column("", number=False), Column("", number=number))
    return Table(heads, tuple((Cell(a), Cell(b)) for a, b in rows), caption)
