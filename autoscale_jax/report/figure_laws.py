"""Picture 2: the law fitted to each domain, with the runs it was fitted to."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autoscale_jax.report import words
from autoscale_jax.report.schema import LawRow, Point, Study
from autoscale_jax.report.style import FAINT, GRID, Layout, looks, round_tokens, token_axis

_MARKERS = ("o", "s", "^", "D", "v", "P")


def draw(study: Study, layout: Layout) -> Figure | None:
    """One panel a domain, one colour and marker a budget; None when nothing has been measured."""
    laws = [law for law in study["laws"] if _known(law, "points") or _known(law, "curve")]
    names = list(dict.fromkeys(law.get("domain", "") for law in laws))
    if not laws:
        return None
    look = looks(study)
    budgets = sorted({law.get("budget", 0) for law in laws})
    # Budgets have an order, so their colours do: light and yellowish is small, dark is large.
    ramp = matplotlib.colormaps["viridis"]
    shades = [to_hex(ramp(0.72 * (1 - i / max(1, len(budgets) - 1)))) for i in range(len(budgets))]
    columns = layout.columns(len(names), most=5)
    rows = -(-len(names) // columns)
    height = 0.95 + (2.35 if layout.wide else 1.95) * rows
    width = layout.width if len(names) > 2 else min(layout.width, 1 + 3.4 * len(names))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for ax, name in zip(axes, names, strict=False):
        mine = [law for law in laws if law.get("domain", "") == name]
        for law in mine:
            i = budgets.index(law.get("budget", 0))
            _law(ax, law, shades[i], _MARKERS[i % len(_MARKERS)])
        _panel(ax, mine)
        colour = look[name].ink if name in look else FAINT
        ax.set_title(words.short(name, 20), color=colour, fontweight="bold", pad=3)
    figure.supxlabel("tokens of that domain in the run (log scale)", fontsize=9)
    figure.supylabel(words.objective_axis(study["objective"]), fontsize=9)
    handles = [
        Line2D([], [], color=c, marker=_MARKERS[i % len(_MARKERS)], markersize=5, linewidth=1.5)
        for i, c in enumerate(shades)
    ]
    labels = [f"base run of {words.tokens(b)} tokens" for b in budgets]
    if any(not _decided(law) for law in laws):
        handles.append(Line2D([], [], color=FAINT, linestyle=(0, (3, 2)), linewidth=1.5))
        labels.append("dashed: not decided by the data")
    columns = len(handles) if layout.wide else 1
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)
    return figure


def _known(law: LawRow, what: str) -> list[Point]:
    """The points of a law, or of its curve, that have both numbers."""
    rows: list[Point] = law.get(what, [])  # type: ignore[assignment]
    return [p for p in rows if p.get("tokens", 0) > 0 and "objective" in p]


def _decided(law: LawRow) -> bool:
    return bool(law.get("ok", True) and law.get("decided", True))


def _law(ax: Axes, law: LawRow, colour: str, marker: str) -> None:
    points, curve = _known(law, "points"), _known(law, "curve")
    ax.plot(
        [p["tokens"] for p in curve],
        [p["objective"] or 0.0 for p in curve],
        color=colour,
        linewidth=1.6,
        linestyle="-" if _decided(law) else (0, (3, 2)),
    )
    ax.plot(
        [p["tokens"] for p in points],
        [p["objective"] or 0.0 for p in points],
        color=colour,
        marker=marker,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linestyle="none",
    )


def _panel(ax: Axes, laws: list[LawRow]) -> None:
    """Ticks at the token counts of the runs, and a word where a fit failed."""
    xs = [p["tokens"] for law in laws for p in _known(law, "points") + _known(law, "curve")]
    low, high = min(xs), max(xs)
    token_axis(ax, round_tokens(low, high))
    ax.set_xlim(low / 1.25, high * 1.25)
    ax.grid(color=GRID, linewidth=0.7)
    failed = [words.tokens(law.get("budget")) for law in laws if not law.get("ok", True)]
    if failed:
        text = "no fit" if len(failed) == len(laws) else f"no fit at {words.listing(failed)}"
        ax.text(0.98, 0.97, text, transform=ax.transAxes, ha="right", va="top", color="#a61b1b")
