"""The report's account of itself: cost, noise, warnings, what to run next, settings, every run."""

from __future__ import annotations

from typing import Any

from autoscale_jax.report import headline, words
from autoscale_jax.report.document import (
    Block,
    Cell,
    Column,
    Details,
    Items,
    Section,
    Table,
    Text,
)
from autoscale_jax.report.schema import Study
from autoscale_jax.report.style import domain_names

# More settings than this are folded away.
_MOST_SETTINGS = 12


def cost(study: Study) -> Section:
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


def noise(study: Study) -> Section:
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


def all_warnings(study: Study) -> list[str]:
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


def warnings(study: Study) -> Section:
    found = all_warnings(study)
    block: Block = Items(tuple(found), "warning") if found else Text("None.")
    return Section("warnings", "Warnings", (block,))


def next_run(study: Study) -> Section:
    best = study["next_run"]
    if not best or not best.get("label"):
        return Section("next", "The next best run", (Text("No further run is proposed."),))
    reason = best.get("reason", "")
    text = f"{best['label']}. {reason}" if reason else f"{best['label']}."
    return Section("next", "The next best run", (Text(text),))


def settings(study: Study) -> Section:
    rows = [(key, _setting(value)) for key, value in study["config"].items()]
    blocks: list[Block] = []
    if rows:
        table = _pairs(rows, "The main settings.", number=False)
        folded = Details(f"All {len(rows)} settings", (table,))
        blocks.append(table if len(rows) <= _MOST_SETTINGS else folded)
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


def runs(study: Study) -> Section:
    runs = study["runs"]
    if not runs:
        return Section("runs", "All runs", (Text("No run has been made yet.", "missing"),))
    trained = [n for n in domain_names(study) if any(n in run.get("tokens", {}) for run in runs)]
    evaluated = list(dict.fromkeys(d for run in runs for d in run.get("loss", {})))
    sized = [Column("model", number=False)] if any(run.get("size") for run in runs) else []
    rows = []
    for run in runs:
        tokens, loss = run.get("tokens", {}), run.get("loss", {})
        epochs = run.get("epochs", {}).values()
        rows.append(
            (
                Cell(run.get("label", "")),
                *(Cell(run.get("size", "")) for _ in sized),
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
    heads = [Column("run", number=False), *sized, Column("seed"), Column("status", number=False)]
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
