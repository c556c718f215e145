"""Picture 4: which domain's data moves which domain's loss."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoscale_jax.report import words
from autoscale_jax.report.schema import Study
from autoscale_jax.report.style import INK, Layout, looks

# Past so many columns the numbers no longer fit into their cells.
_MOST_NUMBERED = 12


def draw(study: Study, layout: Layout) -> Figure | None:
    """A heat map with trained domains as rows; None when no change is known."""
    effects = study["effects"]
    rows, columns = effects.get("domains", []), effects.get("eval_domains", [])
    change: list[list[float | None]] = [
        [_entry(effects.get("change", []), i, e) for e in range(len(columns))]
        for i in range(len(rows))
    ]
    known = [x for line in change for x in line if x is not None]
    if not known:
        return None
    limit = max(abs(x) for x in known) or 1.0
    cell = min(0.95 if layout.wide else 0.56, (layout.width - 2.2) / len(columns))
    width = 2.6 + max(cell, 0.2) * len(columns) if layout.wide else layout.width
    height = 1.75 + min(0.52, max(cell, 0.24)) * len(rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.subplots()
    values = [[float("nan") if x is None else x for x in line] for line in change]
    # Blue helps and red hurts, also for eyes that do not tell red from green.
    # A mesh of 41 colours stays vectors where an image, or more colours, would become pixels.
    colours = matplotlib.colormaps["RdBu_r"].resampled(41)
    edges_x, edges_y = [x - 0.5 for x in range(len(columns) + 1)], list(range(len(rows) + 1))
    mesh = ax.pcolormesh(
        edges_x,
        [y - 0.5 for y in edges_y],
        values,
        cmap=colours,
        vmin=-limit,
        vmax=limit,
        edgecolors="white",
    )
    mesh.set_linewidth(2)
    ax.invert_yaxis()
    ax.set_facecolor("#eceff2")
    _names(ax, study, rows, columns, layout)
    if len(columns) <= _MOST_NUMBERED:
        _numbers(ax, change, limit, layout)
    bar = figure.colorbar(mesh, ax=ax, location="bottom", aspect=32, pad=0.03, shrink=0.92)
    bar.outline.set_visible(False)  # type: ignore[operator]
    unit = "nats per token (blue: helps)" if layout.wide else "nats per token"
    bar.set_label(f"change of held-out loss, {unit}", fontsize=8.5)
    return figure


def _entry(change: list[list[float | None] | None], i: int, e: int) -> float | None:
    row = (change[i] if i < len(change) else None) or []
    return row[e] if e < len(row) else None


def _names(ax: Axes, study: Study, rows: list[str], columns: list[str], layout: Layout) -> None:
    look = looks(study)
    length = 16 if layout.wide else 12
    ax.set_yticks(range(len(rows)), [words.short(n, length) for n in rows])
    ax.set_xticks(range(len(columns)), [words.short(n, length) for n in columns])
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    longest = max(len(words.short(n, length)) for n in columns)
    if longest * len(columns) > (70 if layout.wide else 24):
        upright = len(columns) > (24 if layout.wide else 6)
        ax.tick_params(axis="x", labelrotation=90 if upright else 40)
        for label in ax.get_xticklabels():
            label.set(**({"fontsize": 7} if upright else {"ha": "left", "rotation_mode": "anchor"}))
    for label, name in zip(ax.get_yticklabels(), rows, strict=True):
        label.set(color=look[name].ink if name in look else INK, fontweight="bold")
    for label, name in zip(ax.get_xticklabels(), columns, strict=True):
        label.set(color=look[name].ink if name in look else INK, fontweight="bold")
    ax.set_xlabel("held-out loss of …", labelpad=8)
    ax.set_ylabel("more data of …")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _numbers(ax: Axes, change: list[list[float | None]], limit: float, layout: Layout) -> None:
    digits = 3 if layout.wide and limit < 1 else 2
    for i, line in enumerate(change):
        for e, x in enumerate(line):
            text = words.UNKNOWN if x is None else f"{x:+.{digits}f}".replace("-", "−")
            dark = x is not None and abs(x) > 0.52 * limit
            colour = "white" if dark else INK
            ax.text(e, i, text, ha="center", va="center", color=colour, fontsize=8.5)
