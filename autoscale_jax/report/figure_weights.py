"""Picture 1: domain weights against token scale, as areas, and each share with its interval."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoscale_jax.report import words
from autoscale_jax.report.schema import Study, TrajectoryPoint
from autoscale_jax.report.style import (
    FAINT,
    GRID,
    INK,
    Layout,
    Look,
    domain_names,
    looks,
    percent_axis,
    spread_labels,
    token_axis,
)

MEASURED = "measured optimum"

# Up to so many domains, the areas and the small panels fit side by side.
_MOST_BESIDE = 9
# The height of one domain's name, in inches.
_LABEL = 0.18


def draw(study: Study, layout: Layout) -> Figure | None:
    """Stacked areas beside one small panel a domain; None when no mixture is known at any scale."""
    points = [p for p in study["trajectory"] if p.get("weights") and p.get("tokens", 0) > 0]
    points.sort(key=lambda p: p["tokens"])
    if not points:
        return None
    names = [n for n in domain_names(study) if any(n in p["weights"] for p in points)]
    look = looks(study)
    crowded = len(names) > _MOST_BESIDE
    columns = layout.columns(len(names), most=6 if crowded else 3)
    rows = -(-len(names) // columns)
    panels = 0.3 + 1.7 * rows
    if layout.wide and not crowded:
        areas = max(3.9, panels)
        figure = Figure(figsize=(layout.width, areas), layout="constrained")
        parts: Any = figure.subfigures(1, 2, width_ratios=(4.6, 5.8), wspace=0.03)
    else:
        areas = max(3.9, 0.8 + _LABEL * len(names))
        figure = Figure(figsize=(layout.width, areas + panels), layout="constrained")
        parts = figure.subfigures(2, 1, height_ratios=(areas, panels), hspace=0.03)
    left, right = parts
    gap = _LABEL / (areas - 0.8)
    _areas(left.subplots(), points, names, look, study["target_tokens"], gap)
    axes = right.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    _panels(list(axes.flat), points, names, look, columns)
    right.supxlabel("training tokens of the run (log scale)", fontsize=9)
    return figure


def _areas(
    ax: Axes,
    points: list[TrajectoryPoint],
    names: list[str],
    look: dict[str, Look],
    target: int | None,
    gap: float,
) -> None:
    """The shares stacked to 100%, named at the right edge; a single scale gives a column.

    `gap` is the height of a name as a fraction of the areas'.
    """
    scales = [float(p["tokens"]) for p in points]
    shares = [[p["weights"].get(n, 0.0) for p in points] for n in names]
    if len(scales) == 1:
        scales = [scales[0] / 1.5, scales[0] * 1.5]
        shares = [2 * s for s in shares]
    bottom = [0.0] * len(scales)
    middles = []
    for name, share in zip(names, shares, strict=True):
        top = [b + s for b, s in zip(bottom, share, strict=True)]
        ax.fill_between(
            scales,
            bottom,
            top,
            facecolor=look[name].colour,
            edgecolor="white",
            linewidth=0.9,
            hatch=look[name].hatch,
            alpha=0.88,
        )
        middles.append((bottom[-1] + top[-1]) / 2)
        bottom = top
    ax.set_ylim(0, 1)
    ax.set_xlim(scales[0], scales[-1])
    scale_inside = [p["tokens"] for p in points if p["tokens"] == target]
    token_axis(ax, [p["tokens"] for p in points], target=next(iter(scale_inside), None))
    if target and scales[0] < target < scales[-1]:
        ax.axvline(target, color=INK, linewidth=1.2)
    percent_axis(ax)
    ax.set_ylabel("share of the training tokens")
    ax.set_xlabel("training tokens of the run (log scale)")
    ax.spines[["left", "bottom"]].set_visible(False)
    heights = spread_labels(middles, gap, 0.02, 0.98)
    # The shares that count are those of the target, wherever the picture goes on to.
    shown = target is None or points[-1]["tokens"] == target
    for name, share, y in zip(names, shares, heights, strict=True):
        ax.annotate(
            f"{words.short(name)} {words.percent(share[-1], 0)}" if shown else words.short(name),
            (1.02, y),
            xycoords="axes fraction",
            va="center",
            color=look[name].ink,
            annotation_clip=False,
        )
    _mark_extrapolation(ax, points)


def _mark_extrapolation(ax: Axes, points: list[TrajectoryPoint]) -> None:
    """A line at each measured scale and, above the areas, where measuring ends."""
    measured = [p["tokens"] for p in points if p.get("kind") == MEASURED]
    for scale in measured if len(points) > 1 else []:
        ax.axvline(scale, color="white", linewidth=1.2, linestyle=(0, (3, 2)))
    last = points[-1]["tokens"]
    if not measured or measured[-1] >= last:
        kind = "measured" if measured else "extrapolated"
        ax.set_title(kind, color=FAINT)
        return
    edge, first = math.log(measured[-1]), math.log(points[0]["tokens"])
    fraction = (edge - first) / (math.log(last) - first)
    # An extrapolation is quieter than a measurement.
    ax.axvspan(measured[-1], last, facecolor="white", alpha=0.22, linewidth=0)
    if fraction > 0.25:
        ax.text(0, 1.02, "measured", transform=ax.transAxes, color=FAINT)
    ax.text(fraction, 1.02, " extrapolated", transform=ax.transAxes, color=FAINT)


def _panels(
    axes: list[Axes],
    points: list[TrajectoryPoint],
    names: list[str],
    look: dict[str, Look],
    columns: int,
) -> None:
    """Each domain's share with its 90% interval; a dashed line is the uniform share."""
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    for i, (ax, name) in enumerate(zip(axes, names, strict=False)):
        here = [p for p in points if name in p["weights"]]
        x = [p["tokens"] for p in here]
        y = [p["weights"][name] for p in here]
        colour = look[name].colour
        ax.axhline(1 / len(names), color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.plot(x, y, color=colour, linewidth=1.3, alpha=0.55, linestyle=look[name].dash)
        for point, share in zip(here, y, strict=True):
            low = point.get("low", {}).get(name)
            high = point.get("high", {}).get(name)
            if low is not None and high is not None:
                ax.vlines(point["tokens"], low, high, color=colour, linewidth=2.2, alpha=0.75)
            face = colour if point.get("kind") == MEASURED else "white"
            ax.plot(
                [point["tokens"]],
                [share],
                marker="o",
                markersize=5.2,
                markerfacecolor=face,
                markeredgecolor=colour,
                markeredgewidth=1.4,
                linestyle="none",
            )
        ax.set_title(words.short(name, 20), color=look[name].ink, fontweight="bold", pad=3)
        ax.grid(axis="y", color=GRID, linewidth=0.7)
        token_axis(ax, [p["tokens"] for p in points], most=3)
        percent_axis(ax)
        # The panel below may be missing in the last row: then this one bears the labels.
        if i + columns >= len(names):
            ax.tick_params(labelbottom=True)
    tops = [
        max(p.get("high", {}).get(n) or 0, p["weights"].get(n, 0)) for p in points for n in names
    ]
    axes[0].set_ylim(0, 1.06 * max(tops))
    pad = 1.6
    axes[0].set_xlim(points[0]["tokens"] / pad, points[-1]["tokens"] * pad)
    axes[0].tick_params(labelcolor=INK)
