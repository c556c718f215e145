"""Picture 5: what a search tried, by model size and training steps, in order."""

from __future__ import annotations

import itertools
import math
import statistics

import matplotlib
import numpy as np
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
from autoscale_jax.report.style import FAINT, GRID, INK, Layout, round_tokens, token_axis

RGBA = tuple[float, float, float, float]

_BAD = "#a61b1b"
# Diameters of the dots, in points.
_LEAST, _MOST = 5.0, 25.0
_TICKS = 6
_DIGIT = 4.2  # the width of one in a dot
# Dots of one size and number of steps share a square, of which they fill so much.
_PACKED = 0.45
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
    steps = sorted({row["steps"] for row in rows})
    room = min(_room(steps, width - 1.3), _room(list(parameters.values()), height - 1.7))
    ramp = matplotlib.colormaps["viridis"].resampled(24)
    colours = ListedColormap([ramp(0.86 * (1 - i / 23)) for i in range(24)])
    _axes(ax, steps, parameters)
    target = search.get("target_steps")
    if target:
        ax.plot(target, max(parameters.values()), "+", markersize=22, color=FAINT, zorder=1)
    ax.set_xlim(*_widened([*steps, *([target] if target else [])]))
    _legend(figure, rows, layout, target)
    if len(rows) > 1:
        _order(figure, ax, rows, colours)
    _dots(ax, rows, parameters, room, colours)
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
    """Half the usual distance of neighbours on a log axis so long, in points; the least that dots
    need where steps are no grid and hardly any share their place."""
    logs = sorted({math.log(v) for v in values})
    across = 72 * inches * (1 - 2 * _MARGIN)
    if len(logs) == 1:
        return across / 4
    apart = statistics.median(b - a for a, b in itertools.pairwise(logs))
    return max(0.75 * _MOST, across * apart / (logs[-1] - logs[0]) / 2)


def _dots(
    ax: Axes, rows: list[TrialRow], parameters: dict[str, float], room: float, colours: Colormap
) -> None:
    """The runs' marks, each as near to its place as those before it leave room."""
    area, norm = _area(rows, room), _norm(rows)
    across = np.array([max(_LEAST, math.sqrt(area * _weight(row))) for row in rows])
    at_Rx2 = np.array([(row["steps"], parameters[row["size"]]) for row in rows], float)
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]  # lays the axes out
    shown_Rx2 = ax.transData.transform(at_Rx2) * 72 / ax.figure.dpi
    shift_Rx2 = _apart(shown_Rx2, across) - shown_Rx2
    least = _DIGIT * len(str(max(row.get("order", 1) for row in rows))) + 3
    for row, diameter, at, shift in zip(rows, across, at_Rx2, shift_Rx2, strict=True):
        right, up = (shift / 72).tolist()
        move = ScaledTranslation(right, up, ax.figure.dpi_scale_trans)
        shade = norm(row.get("order", 1))
        number = str(row.get("order", "")) if diameter >= least else ""
        ink = "white" if shade > 0.4 else INK
        _dot(ax, row, diameter, (*at, ax.transData + move), colours(shade), (number, ink))


def _apart(wanted_Rx2: np.ndarray, across_R: np.ndarray) -> np.ndarray:
    """Places of discs of such diameters, one after the other as near to the wanted ones as can be
    without overlap."""
    placed_Rx2 = wanted_Rx2.copy()
    spot_S = np.arange(4 * len(wanted_Rx2) + 1)
    around_Sx2 = np.sqrt(spot_S)[:, None] * np.stack(
        [np.cos(_GOLDEN * spot_S), np.sin(_GOLDEN * spot_S)], 1
    )
    for i in range(1, len(wanted_Rx2)):
        tried_Sx2 = wanted_Rx2[i] + 0.3 * across_R[i] * around_Sx2
        far_SxR = np.linalg.norm(tried_Sx2[:, None] - placed_Rx2[:i], axis=-1)
        free_S = (far_SxR >= (across_R[i] + across_R[:i]) / 2).all(1)
        placed_Rx2[i] = tried_Sx2[int(np.argmax(free_S))]
    return placed_Rx2


def _dot(
    ax: Axes,
    row: TrialRow,
    diameter: float,
    place: tuple[float, float, Transform],
    colour: RGBA,
    label: tuple[str, str],
) -> None:
    """A run's mark, and the label's text in its ink."""
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
    if not bad:
        text, ink = label
        ax.text(x, y, text, transform=transform, color=ink, ha="center", va="center", fontsize=6.5)


def _weight(row: TrialRow) -> float:
    """What a dot's area stands for: FLOPs, whose root tells a thousandth part from nothing."""
    return math.sqrt(row.get("flops") or 0.0)


def _area(rows: list[TrialRow], room: float) -> float:
    """Square points a weight: no dot is larger than the most, and every place holds its dots."""
    cells: dict[tuple[str, int], float] = {}
    for row in rows:
        place = row["size"], row["steps"]
        cells[place] = cells.get(place, 0.0) + _weight(row)
    most = max(map(_weight, rows))
    return min(_MOST**2 / most, _PACKED * (2 * room) ** 2 / max(cells.values())) if most else 0.0


def _axes(ax: Axes, steps: list[int], parameters: dict[str, float]) -> None:
    even = len(steps) > _TICKS
    token_axis(ax, round_tokens(steps[0], steps[-1], _TICKS) if even else steps, _TICKS)
    ax.set_yscale("log")
    names = [
        name if name == words.tokens(n) else f"{words.short(name, 12)}\n{words.tokens(n)}"
        for name, n in parameters.items()
    ]
    ax.yaxis.set_major_locator(FixedLocator(list(parameters.values())))
    ax.yaxis.set_major_formatter(FixedFormatter(names))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(*_widened(list(parameters.values())))
    ax.set_xlabel("training steps (log scale)")
    ax.set_ylabel("model size in parameters (log scale)")
    ax.grid(color=GRID, linewidth=0.7)


def _widened(values: list[float] | list[int]) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = (high / low) ** (_MARGIN / (1 - 2 * _MARGIN)) if high > low else 2.0
    return low / pad, high * pad


def _legend(figure: Figure, rows: list[TrialRow], layout: Layout, target: int | None) -> None:
    """What the shapes mean, as far as the picture has them."""
    kinds = [("o", "#5b6672", "run", 7)]
    if any(row.get("initial") for row in rows):
        kinds = [("o", "#5b6672", "chosen by what earlier runs taught", 7)]
        kinds.append(("s", "#5b6672", "initial design", 6))
    if any(row.get("status", "ok") != "ok" for row in rows):
        kinds.append(("X", _BAD, "without a result", 7))
    if target:
        kinds.append(("+", FAINT, f"target: {words.tokens(target)} steps", 9))
    handles = [
        Line2D([], [], marker=m, color=c, markersize=size, linestyle="none")
        for m, c, _, size in kinds
    ]
    columns = len(kinds) if layout.wide else 1
    figure.legend(handles, [k[2] for k in kinds], loc="outside upper left", ncols=columns)
