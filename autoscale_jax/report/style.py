"""How the pictures look: one colour a domain over the whole report, and figures as plain SVG.

The domain colours are Okabe and Ito's, made for colour-blind readers, the yellow darkened to be
seen on white; past eight domains the colours come round again with a hatch or a dashed line.
"""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullFormatter

from autoscale_jax.report import words
from autoscale_jax.report.schema import Study

INK = "#1f2933"
FAINT = "#8a94a0"
GRID = "#e4e8ec"

_DOMAINS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C7A00", "#7F7F7F")
_HATCHES = ("", "///", "...", "xxx", "\\\\\\")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 3)))

# Mixtures are told from domains by tone: one dark line for the answer, quiet ones beside it.
MIXTURES: dict[str, tuple[str, Any, float]] = {
    "predicted": ("#332288", "-", 2.4),
    "uniform": ("#6b7280", "-", 1.6),
    "natural": ("#999933", (0, (5, 1.5)), 1.6),
    "keep": ("#AA4466", (0, (1.5, 1.2)), 1.8),
}
_OTHER_MIXTURE = ("#111111", (0, (5, 1, 1, 1)), 1.4)

_RC: dict[Any, Any] = {
    "text.parse_math": False,  # a domain may be called "$x$"
    "svg.fonttype": "none",  # text stays text: small, searchable, in the reader's own font
    "svg.hashsalt": "report",  # the same study gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b4bcc5",
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": "#b4bcc5",
    "ytick.color": "#b4bcc5",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Room for a figure: `wide` for a desk, not wide for a telephone. Sizes are in inches."""

    wide: bool

    @property
    def width(self) -> float:
        return 10.4 if self.wide else 4.1

    def columns(self, panels: int, most: int) -> int:
        """Columns that hold `panels` small panels in even rows, at most `most` when wide."""
        if not self.wide:
            return min(2, panels)
        rows = -(-panels // most)
        return -(-panels // rows)


@dataclasses.dataclass(frozen=True)
class Look:
    """A domain's colour, hatch (areas) and dash (lines)."""

    colour: str
    hatch: str
    dash: Any

    @property
    def ink(self) -> str:
        """The colour darkened enough to be read as text on white."""
        r, g, b = (int(self.colour[i : i + 2], 16) for i in (1, 3, 5))
        return f"#{int(r * 0.72):02x}{int(g * 0.72):02x}{int(b * 0.72):02x}"


def domain_names(study: Study) -> list[str]:
    """Training domains as the study lists them, then any that only turn up further down."""
    found = [row["name"] for row in study["domains"] if "name" in row]
    for point in study["trajectory"]:
        found += point.get("weights", {})
    for proposal in study["proposals"]:
        found += proposal.get("weights", {})
    return list(dict.fromkeys(found))


def looks(study: Study) -> dict[str, Look]:
    """Each domain's look, evaluation-only domains after those that are trained on."""
    names = domain_names(study)
    names += [law["domain"] for law in study["laws"] if "domain" in law]
    for run in study["verification"]:
        names += run.get("loss", {})
    return {name: look(i) for i, name in enumerate(dict.fromkeys(names))}


def look(i: int) -> Look:
    """The look of the i-th of several things that are told apart."""
    lap = i // len(_DOMAINS) % len(_HATCHES)
    return Look(_DOMAINS[i % len(_DOMAINS)], _HATCHES[lap], _DASHES[lap])


def mixture_look(name: str) -> tuple[str, Any, float]:
    """A mixture's colour, dash and line width."""
    return MIXTURES.get(name, _OTHER_MIXTURE)


def token_axis(
    ax: Axes, values: Iterable[float], most: int = 4, target: float | None = None
) -> None:
    """A log axis of tokens labelled at the study's own values, at most `most` of them.

    The target is always among them when given, and named.
    """
    ax.set_xscale("log")
    wanted = sorted({float(v) for v in values if v > 0})
    if len(wanted) > most:
        ratio = (wanted[-1] / wanted[0]) ** (1 / (most - 1))
        even = [wanted[0] * ratio**i for i in range(most)]
        wanted = sorted({_nearest(wanted, x) for x in even})
        if target is not None and target not in wanted:
            wanted[wanted.index(_nearest(wanted, target))] = target
    ax.xaxis.set_major_locator(FixedLocator(wanted))
    names = [words.tokens(v) + ("\ntarget" if v == target else "") for v in wanted]
    ax.xaxis.set_major_formatter(FixedFormatter(names))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(FixedLocator([]))


def _nearest(values: list[float], x: float) -> float:
    return min(values, key=lambda v: abs(math.log(v / x)))


def round_tokens(low: float, high: float, most: int = 3) -> list[float]:
    """Up to `most` round token counts (1, 2 or 5 times a power of ten) spread over [low, high]."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0**e for e in decades for m in (1, 2, 5)]
    inside = [v for v in fine if low <= v <= high] or [low]
    return inside[:: -(-len(inside) // most)]


def percent_axis(ax: Axes) -> None:
    """The y axis in per cent of 1."""
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f}%"))


def spread_labels(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights near the wanted ones (ascending), at least `gap` apart, within [low, high]."""
    gap = min(gap, (high - low) / max(1, len(wanted) - 1)) if len(wanted) > 1 else gap
    placed: list[float] = []
    for i, y in enumerate(wanted):
        floor = placed[-1] + gap if placed else low
        ceiling = high - gap * (len(wanted) - 1 - i)
        placed.append(min(max(y, floor), ceiling))
    return placed


def to_svg(draw: Callable[[], Figure | None], prefix: str) -> str | None:
    """Draw a figure under the report's style and return it as SVG text, or None for no figure.

    The ids in it start with `prefix`, so that several pictures can share one HTML page.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        # Which glyphs the drawing machine's font lacks is of no interest: the reader's font draws.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = draw()
        if figure is None:
            return None
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_html(buffer.getvalue(), prefix)


def _for_html(svg: bytes, prefix: str) -> str:
    """SVG that may stand in an HTML page: no namespace prefixes, global styles or shared ids."""
    root = ET.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            if name == "id":
                value = prefix + value
            elif name in ("style", "clip-path"):
                value = value.replace("url(#", f"url(#{prefix}")
            elif name.endswith("href") and value.startswith("#"):
                value = f"#{prefix}{value[1:]}"
            element.set(name.rpartition("}")[2], value)
    for parent in root.iter():
        for child in list(parent):
            if child.tag in ("style", "metadata"):
                parent.remove(child)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("style", "stroke-linejoin:round;stroke-linecap:butt")
    root.attrib.pop("version", None)
    return ET.tostring(root, encoding="unicode")
