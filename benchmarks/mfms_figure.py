"""Regret against cost of the searches on the simulator, drawn from what mfms.py wrote.

    python benchmarks/mfms_figure.py RESULTS.json FILE.html [--methods ours,random] [--metrics c4]

RESULTS.json is that of `mfms.py --json`. One picture a domain, one panel a metric, one line a
method: the mean over seeds of the true regret of what is recommended, with the band of 10% to 90%
of seeds. Both axes are logarithmic.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, NullFormatter
from mfms_study import FULL

from autoscale_jax.report import html, style, words
from autoscale_jax.report.document import Document, Picture, Section, Text
from autoscale_jax.report.figures import Drawn

Curve = dict[str, Any]
OURS = "ours"  # the one line that is drawn to be seen first
LEAST = 1e-5  # regret that is as good as none
TICKS = (1, 10, 100, 1000, 10_000)
READING = (
    "How to read it: lower and further left is better. Cost is in units of 100 steps of the "
    "largest model, and the dotted line marks what one full training costs. Regret is the true "
    "value at the target of the mixture that would be recommended, less the optimum's; lines are "
    "means over seeds, bands hold the middle 80% of the seeds. A line begins where all seeds have "
    "something to recommend and ends with the search; one that leaves its panel at the bottom has "
    "found the optimum."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--methods", help="default all")
    parser.add_argument("--metrics", help="default all")
    args = parser.parse_args()
    found = json.loads(args.results.read_text())
    curves = found["curves"]
    for field in ("method", "metric"):
        curves = chosen(curves, field, getattr(args, f"{field}s"))
    if any("optimum" not in curve for curve in curves):
        raise SystemExit(f"{args.results}: no optimum beside the curves; write it again by mfms.py")
    args.file.write_text(page(curves, found["seeds"]))
    print(args.file)


def chosen(curves: list[Curve], field: str, text: str | None) -> list[Curve]:
    """The curves with one of the names of a list; all without one."""
    known = list(dict.fromkeys(curve[field] for curve in curves))
    names = known if text is None else text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"--{field}s {unknown[0]}: use some of {', '.join(known)}")
    return [curve for curve in curves if curve[field] in names]


def page(curves: list[Curve], seeds: int) -> str:
    """The HTML page of all domains."""
    methods = list(dict.fromkeys(curve["method"] for curve in curves))
    sections, pictures = [], {}
    for domain in dict.fromkeys(curve["domain"] for curve in curves):
        mine = [curve for curve in curves if curve["domain"] == domain]
        wide, narrow = (
            style.to_svg(
                functools.partial(draw, mine, methods, style.Layout(wide=w)), f"{domain}-{tag}-"
            )
            for w, tag in ((True, "w"), (False, "n"))
        )
        assert wide is not None and narrow is not None
        pictures[domain] = Drawn(wide, narrow)
        picture = Picture(domain, f"Regret against cost of {len(methods)} searches, {domain}")
        title = {"whole": "All mixtures", "capped": "No weight above a half"}.get(domain, domain)
        sections.append(Section(domain, title, (picture, Text(READING, "reading"))))
    title = f"Searches on the simulator: regret against cost, {seeds} seeds"
    return html.render(Document(title, None, tuple(sections)), pictures)


def draw(curves: list[Curve], methods: list[str], layout: style.Layout) -> Figure:
    """One panel a metric."""
    metrics = list(dict.fromkeys(curve["metric"] for curve in curves))
    columns = layout.columns(len(metrics), most=3)
    rows = -(-len(metrics) // columns)
    across = layout.width if columns > 1 else min(layout.width, 5.6)
    legend = 0.2 * math.ceil(len(methods) / int(across / 2))
    height = (2.4 if layout.wide else 2.0) * rows + 0.6 + legend
    figure = Figure(figsize=(across, height), layout="constrained")
    axes = list(figure.subplots(rows, columns, sharex=True, squeeze=False).flat)
    for ax in axes[len(metrics) :]:
        ax.set_visible(False)
    for i, (ax, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel(ax, [curve for curve in curves if curve["metric"] == metric], methods)
        cost_axis(ax, curves, TICKS if layout.wide else TICKS[::2])
        ax.set_title(metric.replace("_", " "), fontweight="bold", pad=3)
        ax.tick_params(labelbottom=i + columns >= len(metrics))
    figure.supxlabel("cost in units of 100 steps of the largest model (log scale)", fontsize=9)
    figure.supylabel("true regret (log scale)", fontsize=9)
    handles = [Line2D([], [], **look(method, methods)) for method in methods]
    figure.legend(handles, methods, loc="outside upper left", ncols=int(across / 2))
    return figure


def look(method: str, methods: list[str]) -> dict[str, Any]:
    """A method's line, the same in all panels."""
    if method == OURS:
        colour, dash, width = style.MIXTURES["predicted"]
        return {"color": colour, "linestyle": dash, "linewidth": width}
    one = style.look([name for name in methods if name != OURS].index(method))
    return {"color": one.colour, "linestyle": one.dash, "linewidth": 1.5}


def regrets(curve: Curve) -> np.ndarray:
    """(4, U) units, low, mean and high regret, as far as the search went."""
    shown = np.array(curve["units"]) <= curve["end"] * (1 + 1e-9)
    rows = [np.array(curve[key])[shown] for key in ("units", "low", "mean", "high")]
    return np.array([rows[0], *(row - curve["optimum"] for row in rows[1:])])


def panel(ax: Axes, curves: list[Curve], methods: list[str]) -> None:
    """All methods on one metric; ours last, above the others."""
    means = np.concatenate([regrets(curve)[2] for curve in curves])
    bottom = means[means > LEAST].min(initial=1.0) / 1.5
    top = max(1.2 * means.max(), 2 * bottom)
    for curve in sorted(curves, key=lambda curve: curve["method"] == OURS):
        units, *regret = regrets(curve)
        low, mean, high = np.maximum(regret, bottom / 10)  # a log axis has no 0
        line = look(curve["method"], methods)
        band = {"color": line["color"], "alpha": 0.2 if curve["method"] == OURS else 0.09}
        ax.fill_between(units, low, high, step="post", linewidth=0, **band)
        ax.step(units, mean, where="post", **line)
    ax.axvline(FULL, color=style.FAINT, linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    ax.set_yscale("log")
    ax.set_ylim(bottom, top)
    ax.yaxis.set_major_locator(LogLocator(10, numticks=8))
    ax.yaxis.set_major_formatter(lambda y, _: words.scientific(y, 0).removeprefix("1×"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(color=style.GRID, linewidth=0.7)


def cost_axis(ax: Axes, curves: list[Curve], ticks: Sequence[int]) -> None:
    ax.set_xscale("log")
    ax.set_xlim(1, max(curve["units"][-1] for curve in curves))
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{tick:,}" for tick in ticks]))
    ax.xaxis.set_minor_formatter(NullFormatter())


if __name__ == "__main__":
    main()
