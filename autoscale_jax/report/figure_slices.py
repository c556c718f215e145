"""Picture 6: what a search's surrogate predicts at the target while weight moves between two."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from autoscale_jax.report import words
from autoscale_jax.report.schema import Objective, Slice, Study
from autoscale_jax.report.style import GRID, INK, MIXTURES, Layout

_COLOUR = MIXTURES["predicted"][0]


def draw(study: Study, layout: Layout) -> Figure | None:
    """One panel a slice, objective against share; None when no slice is known."""
    slices = [one for one in study["search"].get("slices", []) if _known(one)]
    if not slices:
        return None
    panels = len(slices)
    size = (min(layout.width, 5.2 * panels), 3.8) if layout.wide else (layout.width, 3.0 * panels)
    figure = Figure(figsize=size, layout="constrained")
    shape = (1, panels) if layout.wide else (panels, 1)
    axes = list(figure.subplots(*shape, sharey=True, squeeze=False).flat)
    for ax, one in zip(axes, slices, strict=True):
        _slice(ax, one, study["objective"])
    figure.supylabel(f"predicted {words.objective_axis(study['objective'])}", fontsize=9)
    handles = [
        Line2D([], [], color=_COLOUR, linewidth=2),
        Patch(facecolor=_COLOUR, alpha=0.18, linewidth=0),
        Line2D([], [], color=_COLOUR, marker="o", markerfacecolor="white", linestyle="none"),
    ]
    labels = ["surrogate", "90% band", "lowest"]
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return figure


def _known(one: Slice) -> bool:
    """Whether a slice has all its numbers: a missing one would shift those behind it."""
    lengths = {len(one.get("share", [])), len(one.get("mean", []))}
    lengths |= {len(one.get("low", [])), len(one.get("high", []))}
    return len(lengths) == 1 and lengths != {0}


def _slice(ax: Axes, one: Slice, objective: Objective) -> None:
    share, mean = one["share"], one["mean"]
    ax.fill_between(share, one["low"], one["high"], color=_COLOUR, alpha=0.18, linewidth=0)
    for edge in (one["low"], one["high"]):  # a pale area may be lost in print
        ax.plot(share, edge, color=_COLOUR, linewidth=0.6, alpha=0.6)
    ax.plot(share, mean, color=_COLOUR, linewidth=2)
    best = min(range(len(mean)), key=mean.__getitem__)
    ax.plot(
        share[best],
        mean[best],
        marker="o",
        markersize=6,
        color=_COLOUR,
        markerfacecolor="white",
        markeredgewidth=1.6,
        clip_on=False,
        zorder=3,
    )
    start, end = one.get("from", "?"), one.get("to", "?")
    title = f"{words.short(start, 20)} → {words.short(end, 20)}"
    ax.set_title(title, color=INK, fontweight="bold", pad=5)
    ax.set_xlim(share[0], share[-1])
    ax.set_xlabel(f"of the weight that may move, on {words.short(end, 16)}")
    ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: words.percent(x, 0)))
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}"))
    ax.tick_params(labelleft=True)
    ax.grid(color=GRID, linewidth=0.7)
