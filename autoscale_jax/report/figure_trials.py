"""Picture 5: what a search tried, by model size and training steps, in order."""

from __future__ import annotations

import itertools
import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation, Transform

from autoscale_jax.report import words
from autoscale_jax.report.schema import Study, TrialRow
from autoscale_jax.report.search import known_sizes
from autoscale_jax.report.style import FAINT, GRID, INK, Layout, token_axis

RGBA = tuple[float, float, float, float]

_BAD = "#a61b1b"
# Diameters of the dots, in points.
_LEAST, _MOST = 5.0, 25.0
_DIGIT = 4.2  # the width of one in a dot
# Dots of one size and number of steps share a disc, of which they fill so much.
_PACKED = 0.6
_GOLDEN = math.pi * (3 - math.sqrt(5))
# The share of the axes beyond the outermost sizes and steps, at each end.
_MARGIN = 0.16


def draw(study: Study, layout: Layout) -> Figure | None:
    """One dot a run, larger for more FLOPs; None before the first run."""
    search = study["search"]
    parameters = {size["name"]: float(size["parameters"]) for size in known_sizes(search)}
    rows = [
        row
        for row in search.get("trials", [])
        if row.get("steps", 0) > 0 and row.get("size") in parameters
    ]
    if not rows:
        return None
    width, height = (8.2, 4.9) if layout.wide else (layout.width, 4.9)
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    steps = [row["steps"] for row in rows]
    target = search.get("target_steps")
    columns = sorted({*steps, *([target] if target else [])})
    room = min(_room(steps, width - 1.3), _room(list(parameters.values()), height - 1.7))
    ramp = matplotlib.colormaps["viridis"].resampled(24)
    colours = ListedColormap([ramp(0.86 * (1 - i / 23)) for i in range(24)])
    _dots(ax, rows, parameters, room, colours)
    _axes(ax, columns, parameters)
    if target:
        large = max(parameters.values())
        ax.plot(target, large, marker="+", markersize=22, color=FAINT, zorder=1)
        ax.annotate("target", (target, large), (3, 12), textcoords="offset points", color=FAINT)
    _legend(figure, rows, target is not None, layout)
    if len(rows) > 1:
        _order(figure, ax, rows, colours)
    return figure


def _order(figure: Figure, ax: Axes, rows: list[TrialRow], colours: Colormap) -> None:
    shades = ScalarMappable(_norm(rows), colours)
    bar = figure.colorbar(shades, ax=ax, location="bottom", aspect=36, pad=0.02, shrink=0.8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.solids.set_edgecolor("face")  # type: ignore[union-attr]  # no seams between the colours
    bar.ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bar.set_label("order in which the runs were asked for", fontsize=8.5)


def _norm(rows: list[TrialRow]) -> Normalize:
    orders = [row.get("order", 1) for row in rows]
    return Normalize(min(orders), max(min(orders) + 1, *orders))


def _room(values: list[float] | list[int], inches: float) -> float:
    """Half the least distance of neighbours on a log axis so long, in points."""
    logs = sorted({math.log(v) for v in values})
    across = 72 * inches * (1 - 2 * _MARGIN)
    if len(logs) == 1:
        return across / 4
    nearest = min(b - a for a, b in itertools.pairwise(logs))
    return max(_MOST / 4, across * nearest / (logs[-1] - logs[0]) / 2)


def _dots(
    ax: Axes, rows: list[TrialRow], parameters: dict[str, float], room: float, colours: Colormap
) -> None:
    """The runs of one size and number of steps as a spiral around it, the first in the middle."""
    cells: dict[tuple[str, int], list[TrialRow]] = {}
    for row in rows:
        cells.setdefault((row["size"], row["steps"]), []).append(row)
    area = _area(list(cells.values()), room)
    norm = _norm(rows)
    least = _DIGIT * len(str(max(row.get("order", 1) for row in rows))) + 3
    for (size, steps), inside in cells.items():
        across = [max(_LEAST, math.sqrt(area * _weight(row))) for row in inside]
        pace = max(math.sqrt(sum(d * d for d in across) / len(across)), 0.75 * max(across)) / 1.7
        pace = min(pace, max(0.0, room - max(across) / 2) / math.sqrt(len(inside)))
        for i, (row, diameter) in enumerate(zip(inside, across, strict=True)):
            away = pace * math.sqrt(i + 0.5) if len(inside) > 1 else 0.0
            x, y = away * math.cos(_GOLDEN * i), away * math.sin(_GOLDEN * i)
            shift = ScaledTranslation(x / 72, y / 72, ax.figure.dpi_scale_trans)
            shade = norm(row.get("order", 1))
            place = (steps, parameters[size], ax.transData + shift)
            ink = "white" if shade > 0.4 else INK
            _dot(ax, row, diameter, least, place, colours(shade), ink)


def _dot(
    ax: Axes,
    row: TrialRow,
    diameter: float,
    least: float,
    place: tuple[float, float, Transform],
    colour: RGBA,
    ink: str,
) -> None:
    """A run's mark, numbered from `least` on, where any number fits."""
    x, y, transform = place
    bad, initial = row.get("status", "ok") != "ok", row.get("initial", False)
    ax.plot(
        [x],
        [y],
        marker="X" if bad else "s" if initial else "o",
        markersize=diameter * (0.9 if initial else 1),
        color=_BAD if bad else colour,
        markeredgecolor="white",
        markeredgewidth=0.7,
        linestyle="none",
        transform=transform,
        clip_on=False,
    )
    if not bad and diameter >= least:
        number = str(row.get("order", ""))
        ax.text(
            x, y, number, transform=transform, color=ink, ha="center", va="center", fontsize=6.5
        )


def _weight(row: TrialRow) -> float:
    """What a dot's area stands for: FLOPs, whose root tells a thousandth part from nothing."""
    return math.sqrt(row.get("flops") or 0.0)


def _area(cells: list[list[TrialRow]], room: float) -> float:
    """Square points a weight: no dot is larger than the most, and every cell holds its own."""
    most = max(_weight(row) for cell in cells for row in cell)
    fullest = max(sum(map(_weight, cell)) for cell in cells)
    if not most:
        return 0.0
    return min(_MOST**2 / most, _PACKED * (2 * room) ** 2 / fullest)


def _axes(ax: Axes, columns: list[int], parameters: dict[str, float]) -> None:
    token_axis(ax, columns, most=6)
    ax.set_yscale("log")
    names = [
        name if name == words.tokens(n) else f"{words.short(name, 12)}\n{words.tokens(n)}"
        for name, n in parameters.items()
    ]
    ax.yaxis.set_major_locator(FixedLocator(list(parameters.values())))
    ax.yaxis.set_major_formatter(FixedFormatter(names))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_xlim(*_widened(columns))
    ax.set_ylim(*_widened(list(parameters.values())))
    ax.set_xlabel("training steps (log scale)")
    ax.set_ylabel("model size in parameters (log scale)")
    ax.grid(color=GRID, linewidth=0.7)


def _widened(values: list[float] | list[int]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high / low) ** (_MARGIN / (1 - 2 * _MARGIN)) if high > low else 2.0
    return low / pad, high * pad


def _legend(figure: Figure, rows: list[TrialRow], target: bool, layout: Layout) -> None:
    """What the shapes mean, as far as the picture has them."""
    kinds = [("o", "#5b6672", "run", 7)]
    if any(row.get("initial") for row in rows):
        kinds = [("o", "#5b6672", "chosen by what earlier runs taught", 7)]
        kinds.append(("s", "#5b6672", "initial design", 6))
    if any(row.get("status", "ok") != "ok" for row in rows):
        kinds.append(("X", _BAD, "without a result", 7))
    handles = [
        Line2D([], [], marker=m, color=c, markersize=size, linestyle="none")
        for m, c, _, size in kinds
    ]
    columns = len(kinds) if layout.wide else 1
    figure.legend(handles, [k[2] for k in kinds], loc="outside upper left", ncols=columns)
