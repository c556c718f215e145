"""Picture 3: validation curves of the verification runs, and their distance from the reference."""

from __future__ import annotations

import math
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from autoscale_jax.report import words
from autoscale_jax.report.schema import Study, VerificationRow
from autoscale_jax.report.style import FAINT, GRID, MIXTURES, Layout, mixture_look, token_axis

Line = list[tuple[float, float]]

# The first part of training says nothing about mixtures and would flatten the rest.
_SHOWN_FROM = 0.2


def draw(study: Study, layout: Layout) -> Figure | None:
    """Objective against tokens, and per seed its change from the reference; None without curves."""
    lines = _lines(study["verification"])
    if not lines:
        return None
    reference = study["reference"]
    gaps = _gaps(lines, reference)
    panels = 2 if gaps else 1
    size = (layout.width if gaps else 6.0, 3.9) if layout.wide else (layout.width, 3.2 * panels)
    figure = Figure(figsize=size, layout="constrained")
    shape = (1, panels) if layout.wide else (panels, 1)
    axes = list(figure.subplots(*shape, squeeze=False).flat)
    _objective(axes[0], lines, reference)
    axes[0].set_ylabel(words.objective_axis(study["objective"]))
    if gaps:
        _distance(axes[1], gaps, reference)
        name = words.objective(study["objective"])
        axes[1].set_ylabel(f"{name} relative to {reference}")
    known = [m for m in MIXTURES if any(mixture == m for mixture, _ in lines)]
    known += [m for m in dict.fromkeys(mixture for mixture, _ in lines) if m not in MIXTURES]
    handles = []
    for mixture in known:
        colour, dash, width = mixture_look(mixture)
        handles.append(Line2D([], [], color=colour, linestyle=dash, linewidth=width))
    columns = len(known) if layout.wide else 2
    figure.legend(handles, known, loc="outside upper left", ncols=columns)
    return figure


def _lines(runs: list[VerificationRow]) -> dict[tuple[str, int], Line]:
    """Points (tokens, objective) of every run that has at least two, by mixture and seed."""
    lines = {}
    for run in runs:
        points = [
            (float(c["tokens"]), y)
            for c in run.get("curve", [])
            if c.get("tokens", 0) > 0 and (y := c.get("objective") or 0.0) > 0
        ]
        if len(points) > 1:
            lines[run.get("mixture", "?"), run.get("seed", 0)] = sorted(points)
    return lines


def _at(line: Line, tokens: float) -> float | None:
    """The objective at `tokens`, linear in log tokens between two points; None outside them."""
    for (x0, y0), (x1, y1) in pairwise(line):
        if x0 <= tokens <= x1:
            part = math.log(tokens / x0) / math.log(x1 / x0) if x1 > x0 else 1.0
            return y0 + part * (y1 - y0)
    return None


def _gaps(lines: dict[tuple[str, int], Line], reference: str) -> dict[tuple[str, int], Line]:
    """Each run's relative difference from the reference run of the same seed."""
    gaps = {}
    for (mixture, seed), line in lines.items():
        other = lines.get((reference, seed))
        if mixture == reference or other is None:
            continue
        gap = [(x, y / base - 1) for x, y in line if (base := _at(other, x)) is not None]
        if len(gap) > 1:
            gaps[mixture, seed] = gap
    return gaps


def _start(lines: dict[tuple[str, int], Line]) -> tuple[float, float]:
    """Where the picture starts and ends, in tokens."""
    end = max(line[-1][0] for line in lines.values())
    begin = min(line[0][0] for line in lines.values())
    return max(begin, _SHOWN_FROM * end), end


def _objective(ax: Axes, lines: dict[tuple[str, int], Line], reference: str) -> None:
    start, end = _start(lines)
    shown = []
    for (mixture, _), line in lines.items():
        colour, dash, width = mixture_look(mixture)
        ax.plot(*zip(*line, strict=True), color=colour, linestyle=dash, linewidth=width, alpha=0.85)
        shown += [y for x, y in line if x >= start]
    finals = [line[-1][1] for (mixture, _), line in lines.items() if mixture == reference]
    if finals:
        level = sum(finals) / len(finals)
        ax.axhline(level, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.annotate(
            f"where {reference} ends",
            (0.01, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            color=FAINT,
            fontsize=8.5,
        )
    _token_ticks(ax, start, end)
    ax.set_yscale("log")
    low, high = min(shown), max(shown)
    ax.set_ylim(low * (low / high) ** 0.1, high)
    _plain_log_ticks(ax)
    ax.grid(color=GRID, linewidth=0.7)


def _plain_log_ticks(ax: Axes) -> None:
    """A short log axis needs ordinary numbers, not powers of ten."""
    low, high = ax.get_ylim()
    ticks = [
        t for t in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= t <= high
    ]
    ax.set_yticks(ticks)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _distance(ax: Axes, gaps: dict[tuple[str, int], Line], reference: str) -> None:
    """One line a run, zero being the reference run of the same seed."""
    start, end = _start(gaps)
    shown = [0.0]
    for (mixture, _), line in gaps.items():
        colour, dash, width = mixture_look(mixture)
        ax.plot(*zip(*line, strict=True), color=colour, linestyle=dash, linewidth=width, alpha=0.85)
        ax.plot(*line[-1], marker="o", markersize=4, color=colour, clip_on=False)
        shown += [y for x, y in line if x >= start]
    colour, _, width = mixture_look(reference)
    ax.axhline(0, color=colour, linewidth=width)
    _token_ticks(ax, start, end)
    pad = 0.08 * (max(shown) - min(shown)) or 0.01
    ax.set_ylim(min(shown) - pad, max(shown) + pad)
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: words.change(y)))
    ax.grid(color=GRID, linewidth=0.7)


def _token_ticks(ax: Axes, start: float, end: float) -> None:
    """Ticks at the end of training and at its halves, and the axis' name."""
    ticks = [end / 2**i for i in range(5) if end / 2**i >= start]
    token_axis(ax, ticks, most=5)
    ax.set_xlim(start, end * 1.02)
    ax.set_xlabel("tokens trained on (log scale)")
