"""Picture 7: what a search's recommendation of the moment promised, against what it had cost."""

from __future__ import annotations

import itertools
import statistics

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from autoscale_jax.report import words
from autoscale_jax.report.schema import PathPoint, Study
from autoscale_jax.report.style import (
    GRID,
    MIXTURES,
    Layout,
    mixture_look,
    round_tokens,
    spread_labels,
)

_COLOUR = MIXTURES["predicted"][0]
# The height of a name, in inches.
_LABEL = 0.17


def draw(study: Study, layout: Layout) -> Figure | None:
    """Predicted objective and 90% band, with the trainings at the target; None without a path."""
    path = [p for p in study["search"].get("path", []) if (p.get("flops") or 0) > 0]
    path = sorted((p for p in path if "objective" in p), key=_flops)
    if not path:
        return None
    width, height = (8.2, 4.0) if layout.wide else (layout.width, 3.7)
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    trained = _trained(study)
    _limits(ax, path[len(path) // 3 :], [y for ys in trained.values() for y in ys])
    bottom, top = ax.get_ylim()
    path = list(itertools.dropwhile(lambda p: not bottom <= _value(p, "objective") <= top, path))
    flops = [_flops(p) for p in path]
    low, mean, high = ([_value(p, key) for p in path] for key in ("low", "objective", "high"))
    ax.step(flops, mean, where="post", color=_COLOUR, linewidth=2)
    ax.plot(flops[-1], mean[-1], marker="o", markersize=5, color=_COLOUR)
    ax.fill_between(flops, low, high, step="post", color=_COLOUR, alpha=0.18, linewidth=0)
    for edge in (low, high):
        ax.step(flops, edge, where="post", color=_COLOUR, linewidth=0.6, alpha=0.6)
    _marks(ax, trained, flops, _LABEL / (height - 1.1))
    _flops_axis(ax, flops)
    ax.set_ylabel(f"{words.objective_axis(study['objective'])} at the target")
    ax.set_title("predicted, with its 90% band", color=_COLOUR, pad=6)
    return figure


def _flops(point: PathPoint) -> float:
    return point.get("flops") or 0.0


def _value(point: PathPoint, key: str) -> float:
    """A number of a point, the prediction itself where an end of its band is not known."""
    found = point.get(key)
    return float(found if found is not None else point["objective"] or 0.0)  # type: ignore[arg-type]


def _trained(study: Study) -> dict[str, list[float]]:
    """Objectives of the verification runs that ended well, by mixture."""
    found: dict[str, list[float]] = {}
    for run in study["verification"]:
        if run.get("status", "ok") == "ok" and run.get("objective") is not None:
            found.setdefault(run.get("mixture", "?"), []).append(run["objective"] or 0.0)
    return found


def _limits(ax: Axes, path: list[PathPoint], trained: list[float]) -> None:
    """Those of the later part of a path: what was predicted from next to nothing may be far off."""
    shown = [_value(p, key) for p in path for key in ("low", "objective", "high")] + trained
    pad = 0.06 * (max(shown) - min(shown)) or 0.01 * abs(max(shown)) or 1.0
    ax.set_ylim(min(shown) - pad, max(shown) + pad)
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}"))
    ax.grid(color=GRID, linewidth=0.7)


def _marks(ax: Axes, trained: dict[str, list[float]], flops: list[float], gap: float) -> None:
    """One dot a training at the target behind the end of the search, and its mixture's mean."""
    span = flops[-1] / flops[0] if flops[-1] > flops[0] else 10.0
    beyond = flops[-1] * span**0.07
    ax.set_xscale("log")
    ax.set_xlim(flops[0] / span**0.02, flops[-1] * span ** (0.12 if trained else 0.02))
    ranked = sorted(trained, key=lambda name: statistics.fmean(trained[name]))
    low, high = ax.get_ylim()
    middles = [(statistics.fmean(trained[name]) - low) / (high - low) for name in ranked]
    for name, y in zip(ranked, spread_labels(middles, gap, 0.02, 0.98), strict=True):
        colour, dash, _ = mixture_look(name)
        values = trained[name]
        ax.axhline(statistics.fmean(values), color=colour, linestyle=dash, linewidth=1, zorder=1)
        ax.plot(
            [beyond] * len(values),
            values,
            marker="D",
            markersize=4.5,
            color=colour,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linestyle="none",
            zorder=3,
        )
        ax.annotate(
            f"{words.short(name, 12)} trained",
            (1.015, y),
            xycoords="axes fraction",
            va="center",
            color=colour,
            fontsize=8.5,
            annotation_clip=False,
        )


def _flops_axis(ax: Axes, flops: list[float]) -> None:
    ticks = round_tokens(flops[0], flops[-1], most=5)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([words.scientific(x, 0) for x in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("FLOPs that the search had spent (log scale)")
