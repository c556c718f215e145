"""The numbers of the report: the recommended mixture, its gains, every mixture's perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable

from autoscale_jax.report import words
from autoscale_jax.report.document import Bar, Block, Cell, Column, Items, Section, Table, Text
from autoscale_jax.report.headline import (
    PREDICTED,
    REFERENCES,
    expected_gain,
    gain_of,
    recommended,
    verdict,
)
from autoscale_jax.report.schema import ProposalRow, Study, VerificationRow
from autoscale_jax.report.style import domain_names, looks
from autoscale_jax.specs import BadInput, split_tokens


def verified(study: Study, mixture: str) -> list[VerificationRow]:
    """The verification runs of a mixture that ended well."""
    return [
        run
        for run in study["verification"]
        if run.get("mixture") == mixture and run.get("status", "ok") == "ok"
    ]


def weights(study: Study) -> Section:
    """The recommended weights with intervals, and the tokens they came to."""
    best = recommended(study)
    blocks: list[Block] = []
    if best is None:
        blocks.append(Text("No mixture has been proposed yet: that takes a fitted law.", "missing"))
    else:
        blocks += _recommendation(study, best)
    if len(study["proposals"]) > 1:
        blocks.append(_proposals(study))
    return Section("weights", "Recommended mixture", tuple(blocks))


def _recommendation(study: Study, best: ProposalRow) -> list[Block]:
    blocks: list[Block] = []
    runs = [run for run in verified(study, PREDICTED) if run.get("realised")]
    trained = runs[0] if runs and best.get("method") not in REFERENCES else None
    requested = (trained or {}).get("requested") or _requested(best)
    unique = {row.get("name"): row.get("train_tokens") for row in study["domains"]}
    look = looks(study)
    low, high = best.get("low", {}), best.get("high", {})
    widest = max([*best["weights"].values(), *(x for x in high.values() if x is not None)]) or 1.0
    rows = []
    for name in domain_names(study):
        share, a, b = best["weights"].get(name, 0.0), low.get(name), high.get(name)
        bar = Bar(
            share / widest,
            None if a is None else a / widest,
            None if b is None else b / widest,
            look[name].colour,
        )
        rows.append(
            (
                Cell(name, strong=True, colour=look[name].colour),
                Cell(words.percent(share), strong=True, bar=bar),
                Cell(words.span(a, b) or words.UNKNOWN),
                Cell(words.count(requested.get(name))),
                Cell(words.count((trained or {}).get("realised", {}).get(name))),
                Cell(_number((trained or {}).get("epochs", {}).get(name))),
                Cell(words.tokens(unique.get(name))),
            )
        )
    columns = ("weight", "90% interval", "tokens requested", "realised", "epochs", "unique tokens")
    heads = (Column("domain", number=False), *(Column(c) for c in columns))
    method = best.get("method", "?")
    blocks.append(Table(heads, tuple(rows), f"The mixture proposed by “{method}”."))
    if trained is None:
        blocks.append(
            Text("Realised tokens and epochs appear once this mixture is trained.", "missing")
        )
    if not low or not high:
        text = "Intervals are missing: the fit gave none, so treat the weights as a guess."
        blocks.append(Text(text, "missing"))
    return blocks


def _requested(best: ProposalRow) -> dict[str, int]:
    try:
        return split_tokens(best["weights"], best.get("tokens") or 0)
    except BadInput:  # weights that do not sum to 1 are shown as they are, without tokens
        return {}


def _number(x: float | None) -> str:
    return words.UNKNOWN if x is None else f"{x:.2f}"


def _proposals(study: Study) -> Table:
    """All proposals side by side: shares, predicted objective, probability of beating uniform."""
    proposals, look = study["proposals"], looks(study)
    heads = [Column("", number=False)]
    heads += [Column(_heading(p)) for p in proposals]
    rows = [
        (
            Cell(name, colour=look[name].colour),
            *(Cell(words.percent(p.get("weights", {}).get(name))) for p in proposals),
        )
        for name in domain_names(study)
    ]
    kind = study["objective"]
    predicted, spans = [], []
    for p in proposals:
        low, high = p.get("predicted_low"), p.get("predicted_high")
        a, b = words.objective_value(kind, low), words.objective_value(kind, high)
        predicted.append(Cell(words.objective_value(kind, p.get("predicted_objective"))))
        spans.append(Cell(words.UNKNOWN if low is None or high is None else f"{a}–{b}"))
    rows.append((Cell(f"predicted {words.objective(kind)}"), *predicted))
    rows.append((Cell("its 90% interval"), *spans))
    reference = study["reference"]
    chances = [
        Cell(
            words.UNKNOWN
            if p.get("method") == reference
            else words.percent(p.get("p_beats", {}).get(reference), 0)
        )
        for p in proposals
    ]
    rows.append((Cell(f"chance to beat {reference}"), *chances))
    return Table(tuple(heads), tuple(rows), "Every proposal side by side.")


def _heading(proposal: ProposalRow) -> str:
    name, stages = proposal.get("method", "?"), proposal.get("stages", 1)
    return name if stages < 2 else f"{name} (curriculum of {stages} stages, overall)"


def gains(study: Study) -> Section:
    """Expected and realised gain against each reference mixture."""
    name, best = words.objective(study["objective"]), recommended(study)
    rows, missing, notes = [], [], []
    for reference in REFERENCES:
        gain, expected = gain_of(study, reference), expected_gain(study, reference)
        if gain is None and expected is None:
            if reference != "keep" or not study["search"]:  # which has no optimum at a budget
                missing.append(reference)
            continue
        sure = (best or {}).get("p_beats", {}).get(reference)
        gain = gain or {}
        pairs, wins = gain.get("pairs"), gain.get("wins")
        won = f"{words.UNKNOWN if wins is None else wins} of {pairs}" if pairs else words.UNKNOWN
        outcome = {"better": "better", "worse": "worse", "open": "no gain shown"}[verdict(gain)]
        rows.append(
            (
                Cell(f"vs {reference}", strong=True),
                Cell(words.change(expected)),
                Cell(words.percent(sure, 0)),
                Cell(words.change(gain.get("relative")), strong=True),
                Cell(words.change_span(gain.get("low"), gain.get("high")) or words.UNKNOWN),
                Cell(won),
                Cell(outcome if gain else "not verified"),
            )
        )
        if gain.get("text"):
            notes.append(gain["text"])
    blocks: list[Block] = []
    if rows:
        heads = (
            Column("", number=False),
            Column("expected"),
            Column("chance of a gain"),
            Column("realised"),
            Column("90% interval"),
            Column("seeds won"),
            Column("verdict", number=False),
        )
        caption = f"Relative change of the {name}, paired by seed; negative is better."
        blocks.append(Table(heads, tuple(rows), caption))
    if notes:
        blocks.append(Items(tuple(notes)))
    if missing:
        text = f"Not known yet: the gain over {words.listing(missing)}."
        blocks.append(Text(text, "missing"))
    blocks += _what_failed(study)
    return Section("gains", "Gain over the usual mixtures", tuple(blocks))


def _what_failed(study: Study) -> list[Block]:
    if not study["verification"]:
        text = "Nothing has been verified yet: no mixture has been trained at the target."
        return [Text(text, "missing")]
    bad = [run for run in study["verification"] if run.get("status", "ok") != "ok"]
    if not bad:
        return []
    each = [f"{r.get('mixture', '?')} seed {r.get('seed', '?')} ({r.get('status')})" for r in bad]
    text = f"Verification runs without a result: {words.listing(each)}."
    return [Text(text, "missing")]


def tokens_saved(study: Study) -> Section:
    """Tokens saved against the usual mixtures, with what that means."""
    saved = study["tokens_saved"]
    values: dict[str, float | None] = {
        "uniform": saved.get("vs_uniform"),
        "natural": saved.get("vs_natural"),
        "keep": saved.get("vs_keep"),
    }
    said = []
    for reference, value in values.items():
        if value is None:
            continue
        key = f"vs_{reference}"
        span = words.span(saved.get("low", {}).get(key), saved.get("high", {}).get(key), 0)
        sure = f"90% interval {span}" if span else "no interval"
        size = words.percent(abs(value), 0)
        amount = f"{size} of {reference}'s tokens"
        if value < 0:
            amount = f"none against {reference}: it takes {size} more tokens"
        said.append(f"{amount} ({sure}).")
    blocks: list[Block] = []
    if said:
        blocks.append(Items(tuple(said)))
    missing = [name for name in ("uniform", "natural") if values[name] is None]
    if missing:
        text = (
            f"Not known against {words.listing(missing)}: either it has not been verified, or the "
            "predicted mixture never reached its final value."
        )
        blocks.append(Text(text, "missing"))
    if saved.get("definition"):
        blocks.append(Text(f"Definition: {saved['definition']}", "reading"))
    return Section("saved", "Tokens saved", tuple(blocks))


def perplexities(study: Study) -> Section:
    """Held-out perplexity of each mixture, by domain, on average and in the worst domain."""
    present = [run.get("mixture", "?") for run in study["verification"]]
    order = [m for m in (PREDICTED, *REFERENCES) if m in present]
    mixtures = order + [m for m in dict.fromkeys(present) if m not in order]
    runs = {m: verified(study, m) for m in mixtures}
    finished = [m for m in mixtures if runs[m]]
    if not finished:
        text = "No verification run has finished: perplexities at the target are not known yet."
        return Section("perplexity", "Perplexity by domain", (Text(text, "missing"),))
    reference, kind, look = study["reference"], study["objective"], looks(study)
    domains = list(dict.fromkeys(d for m in finished for r in runs[m] for d in r.get("loss", {})))

    def line(head: Cell, value: Callable[[VerificationRow], float | None]) -> tuple[Cell, ...]:
        return (head, *_compare([_mean(runs[m], value) for m in finished], finished, reference))

    rows = [
        line(Cell(d, colour=look[d].colour), lambda run, d=d: _perplexity(run, d))  # type: ignore[misc]
        for d in domains
    ]
    rows.append(line(Cell("mean", strong=True), lambda run: run.get("mean_perplexity")))
    rows.append(line(Cell("worst domain", strong=True), lambda run: run.get("worst_perplexity")))
    if kind.get("kind") != "mean_perplexity":
        head = Cell(f"objective: {words.objective(kind)}", strong=True)
        rows.append(line(head, lambda run: run.get("objective")))
    seeds = (Cell(str(len(runs[m]))) for m in finished)
    rows.append((Cell("runs"), *seeds))
    caption = (
        f"Held-out perplexity at the target, mean over runs; small: change from {reference}; "
        "bold: the lowest."
    )
    heads = (Column("", number=False), *(Column(m) for m in finished))
    return Section("perplexity", "Perplexity by domain", (Table(heads, tuple(rows), caption),))


def _perplexity(run: VerificationRow, domain: str) -> float | None:
    loss = run.get("loss", {}).get(domain)
    return None if loss is None or loss > 700 else math.exp(loss)


def _mean(
    runs: list[VerificationRow], value: Callable[[VerificationRow], float | None]
) -> float | None:
    known = [x for run in runs if (x := value(run)) is not None]
    return sum(known) / len(known) if known else None


def _compare(values: list[float | None], mixtures: list[str], reference: str) -> list[Cell]:
    """A row of values, the lowest in bold, each with its change from the reference's."""
    known = [x for x in values if x is not None]
    base = values[mixtures.index(reference)] if reference in mixtures else None
    cells = []
    for value, mixture in zip(values, mixtures, strict=True):
        best = len(known) > 1 and value is not None and value == min(known)
        note = words.change(value / base - 1) if value and base and mixture != reference else ""
        cells.append(Cell(words.perplexity(value), note, strong=best))
    return cells
