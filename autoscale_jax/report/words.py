"""Numbers and names as a reader wants them: few digits, a unit, and a true minus sign."""

from __future__ import annotations

import math

from autoscale_jax.report.schema import Objective

# A dash in a table says that the number is not known (yet).
UNKNOWN = "–"


def tokens(n: float | None) -> str:
    """Three digits and a unit: 1638400 is "1.64M"."""
    if n is None:
        return UNKNOWN
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= scale * 0.9995:
            return f"{_three_digits(n / scale)}{unit}"
    return _three_digits(n)


def _three_digits(x: float) -> str:
    text = f"{x:.0f}" if abs(x) >= 99.95 else f"{x:.3g}"
    return text.replace("-", "−")


def count(n: float | None) -> str:
    """Every digit, in groups of three."""
    return UNKNOWN if n is None else f"{n:,.0f}".replace("-", "−")


def percent(x: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return UNKNOWN if x is None else f"{100 * x:.{digits}f}%".replace("-", "−")


def change(x: float | None) -> str:
    """A relative change with its sign, to a tenth of a per cent: "−4.1%"."""
    if x is None:
        return UNKNOWN
    text = f"{100 * x:+.1f}%"
    return "0.0%" if text in ("+0.0%", "-0.0%") else text.replace("-", "−")


def span(low: float | None, high: float | None, digits: int = 1) -> str:
    """An interval of fractions: "36.1–40.2%"; empty when an end is not known."""
    if low is None or high is None:
        return ""
    if low < 0:  # a dash beside a minus sign would be a riddle
        return f"{percent(low, digits)} to {percent(high, digits)}"
    return f"{100 * low:.{digits}f}–{100 * high:.{digits}f}%"


def change_span(low: float | None, high: float | None) -> str:
    """An interval of relative changes: "−5.3% to −2.9%"; empty when an end is not known."""
    return "" if low is None or high is None else f"{change(low)} to {change(high)}"


def perplexity(x: float | None) -> str:
    """Four digits, as many as a small run's noise could ever justify."""
    if x is None:
        return UNKNOWN
    if abs(x) >= 1e5:
        return f"{x:.3g}"
    return f"{x:.{max(0, 3 - max(0, _exponent(x)))}f}".replace("-", "−")


def _exponent(x: float) -> int:
    return math.floor(math.log10(abs(x))) if x else 0


def loss(x: float | None) -> str:
    """Nats per token, to a thousandth."""
    return UNKNOWN if x is None else f"{x:.3f}".replace("-", "−")


def scientific(x: float | None, digits: int = 1) -> str:
    """A number times a power of ten, by default with two digits: "3.2×10¹³"."""
    if x is None:
        return UNKNOWN
    if x == 0 or 0.01 <= abs(x) < 1e4:
        return f"{x:.3g}".replace("-", "−")
    mantissa, _, exponent = f"{x:.{digits}e}".partition("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}".replace("-", "−")


def small(x: float | None) -> str:
    """Two significant digits, for spreads and parameters."""
    if x is None:
        return UNKNOWN
    return f"{x:.2g}".replace("-", "−") if 1e-3 <= abs(x) < 100 or x == 0 else scientific(x)


def seconds(s: float | None) -> str:
    """A duration in its two largest units."""
    if s is None:
        return UNKNOWN
    if s < 59.5:
        return f"{s:.0f} s" if s >= 9.5 else f"{s:.1f} s"
    whole = round(s)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole / 86400:.1f} days"


def plural(n: int, noun: str) -> str:
    """ "1 run", "2 runs" """
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listing(items: list[str]) -> str:
    """ "a, b and c" """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def short(name: str, length: int = 16) -> str:
    """A name cut in its middle to `length` characters, for places with no room."""
    if len(name) <= length:
        return name
    head = (length - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


_KINDS = {
    "mean_perplexity": "mean perplexity",
    "mean_loss": "mean loss",
    "worst_perplexity": "worst-domain perplexity",
    "worst_loss": "worst-domain loss",
}


def objective(kind: Objective) -> str:
    """What is minimised, in words that fit in a sentence and on an axis."""
    if kind.get("label"):
        return kind["label"]
    name = kind.get("kind", "objective")
    text = _KINDS.get(name, name.replace("_", " "))
    weights = [w for w in kind.get("weights", {}).values() if w is not None]
    unequal = bool(weights) and max(weights) - min(weights) > 1e-9
    return f"weighted {text}" if unequal and name.startswith("mean") else text


def objective_axis(kind: Objective) -> str:
    """The objective with its unit."""
    return f"held-out {objective(kind)}{' (nats per token)' if _in_nats(kind) else ''}"


def objective_value(kind: Objective, x: float | None) -> str:
    """A value of the objective with the digits that its kind deserves."""
    return loss(x) if _in_nats(kind) else perplexity(x)


def _in_nats(kind: Objective) -> bool:
    return kind.get("kind", "").endswith("loss")
