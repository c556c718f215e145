"""The answer in one sentence, with how sure it is, and the few numbers to see first."""

from __future__ import annotations

from autoscale_jax.report import words
from autoscale_jax.report.document import Stat
from autoscale_jax.report.schema import Gain, ProposalRow, Study

# The mixtures that people would have trained on without a study, in the order of every table.
REFERENCES = ("uniform", "natural", "keep")
PREDICTED = "predicted"


def recommended(study: Study) -> ProposalRow | None:
    """The recommended proposal, or the first there is; None when no proposal has weights."""
    usable = [p for p in study["proposals"] if p.get("weights")]
    named = [p for p in usable if p.get("method") == study["recommended"]]
    return next(iter(named or usable), None)


def proposal_of(study: Study, method: str) -> ProposalRow | None:
    """The proposal made by `method`, if any."""
    return next((p for p in study["proposals"] if p.get("method") == method), None)


def gain_of(study: Study, reference: str) -> Gain | None:
    """The realised gain over a reference mixture; None when it is not known."""
    gain = study["gain"].get(f"vs_{reference}")
    return gain if gain and "relative" in gain else None


def expected_gain(study: Study, reference: str) -> float | None:
    """The predicted relative change of the objective from `reference` to the recommendation."""
    best, other = recommended(study), proposal_of(study, reference)
    if best is None or other is None:
        return None
    a, b = best.get("predicted_objective"), other.get("predicted_objective")
    return a / b - 1 if a is not None and b else None


def verdict(gain: Gain) -> str:
    """ "better", "worse" or "open": whether the 90% interval leaves zero out, and on which side."""
    low, high = gain.get("low"), gain.get("high")
    if low is None or high is None or low <= 0 <= high:
        return "open"
    return "better" if high < 0 else "worse"


def sentence(study: Study) -> str:
    """At which scale to train on what, and what that is known to be worth."""
    best = recommended(study)
    if best is None:
        done = sum(run.get("status") == "ok" for run in study["runs"])
        return (
            "No mixture can be recommended yet: no law has been fitted "
            f"({words.plural(done, 'finished run')} so far)."
        )
    scale = best.get("tokens") or study["target_tokens"]
    start = f"At {words.tokens(scale)} tokens train" if scale else "Train"
    if best.get("method") in REFERENCES:
        start += f" on the {best['method']} mixture,"
    return f"{start} on {mixture(best)}: {_worth(study, best)}."


def mixture(proposal: ProposalRow, most: int = 6) -> str:
    """The weights in words, heaviest first; beyond `most` domains the light ones are one group."""
    ranked = sorted(proposal["weights"].items(), key=lambda item: -item[1])
    named, rest = ranked[:most], ranked[most:]
    if len(rest) == 1:
        named, rest = ranked, []
    parts = [f"{words.percent(w, 0)} {name}" for name, w in named]
    if rest:
        parts.append(f"{words.percent(sum(w for _, w in rest), 0)} in {len(rest)} other domains")
    return words.listing(parts)


def _worth(study: Study, best: ProposalRow) -> str:
    reference, name = study["reference"], words.objective(study["objective"])
    gain = gain_of(study, reference)
    is_reference = best.get("method") in REFERENCES
    whose = "the predicted mixture's " if is_reference else ""
    if gain is None:
        if is_reference:
            return "no mixture has been verified against it"
        return _expectation(study, best, reference, name)
    relative = gain["relative"] or 0.0
    size = f"{whose}{name} {_side(relative)} {reference}'s ({_evidence(gain)})"
    return {
        "better": size,
        "worse": f"worse than {reference}, {size}",
        "open": f"no gain over {reference} shown, {size}",
    }[verdict(gain)]


def _expectation(study: Study, best: ProposalRow, reference: str, name: str) -> str:
    expected = expected_gain(study, reference)
    sure = best.get("p_beats", {}).get(reference)
    chance = "" if sure is None else f", {words.percent(sure, 0)} sure to beat it"
    if expected is None:
        return f"what it gains over {reference} is not known yet"
    return f"expected but not verified, {name} {_side(expected)} {reference}'s{chance}"


def _side(relative: float) -> str:
    size = words.percent(abs(relative))
    return "equal to" if size == "0.0%" else f"{size} {'below' if relative < 0 else 'above'}"


def _evidence(gain: Gain) -> str:
    parts = []
    low, high = gain.get("low"), gain.get("high")
    if low is not None and high is not None:
        parts.append(f"90% interval {interval_words(low, high)}")
    pairs, wins = gain.get("pairs"), gain.get("wins")
    if pairs:
        won = "" if wins is None else f"lower in {wins} of "
        parts.append(f"{won}{words.plural(pairs, 'seed')}")
    if low is None or high is None:
        parts.append("too few seeds for an interval")
    return "; ".join(parts)


def interval_words(low: float, high: float) -> str:
    """An interval of changes without signs where it lies on one side: "2.9% to 5.3% below"."""
    if high < 0:
        return f"{words.percent(-high)} to {words.percent(-low)} below"
    if low > 0:
        return f"{words.percent(low)} to {words.percent(high)} above"
    return f"{words.percent(-low)} below to {words.percent(high)} above"


def stats(study: Study) -> tuple[Stat, ...]:
    """The few numbers to see first: the gain, the tokens saved, and what they cost."""
    found = []
    reference = study["reference"]
    gain = gain_of(study, reference)
    name = words.objective(study["objective"])
    if gain is not None:
        note = words.change_span(gain.get("low"), gain.get("high")) or "no interval"
        found.append(Stat(f"{name} vs {reference}", words.change(gain["relative"]), note))
    elif (expected := expected_gain(study, reference)) is not None:
        label = f"expected {name} vs {reference}"
        found.append(Stat(label, words.change(expected), "not verified"))
    saved = study["tokens_saved"].get("vs_uniform")
    if isinstance(saved, float | int):
        low = study["tokens_saved"].get("low", {}).get("vs_uniform")
        high = study["tokens_saved"].get("high", {}).get("vs_uniform")
        note = words.span(low, high, 0) or "no interval"
        found.append(Stat("tokens saved vs uniform", words.percent(saved, 0), note))
    if study["target_tokens"]:
        budgets = ", ".join(words.tokens(b) for b in study["budgets"])
        found.append(
            Stat(
                "target tokens",
                words.tokens(study["target_tokens"]),
                f"proxies: {budgets}" if budgets else "",
            )
        )
    cost = study["cost"]
    if cost.get("runs") is not None:
        time = words.seconds(cost["seconds"]) if "seconds" in cost else ""
        found.append(Stat("runs so far", words.count(cost["runs"]), time))
    return tuple(found)
