"""The report's pictures, each drawn twice: wide for a desk, narrow for a telephone."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from matplotlib.figure import Figure

from autoscale_jax.report import (
    figure_curves,
    figure_effects,
    figure_laws,
    figure_path,
    figure_slices,
    figure_trials,
    figure_weights,
    style,
)
from autoscale_jax.report.schema import Study

_DRAW: dict[str, Callable[[Study, style.Layout], Figure | None]] = {
    "weights": figure_weights.draw,
    "laws": figure_laws.draw,
    "curves": figure_curves.draw,
    "effects": figure_effects.draw,
    "trials": figure_trials.draw,
    "slices": figure_slices.draw,
    "path": figure_path.draw,
}
NAMES = tuple(_DRAW)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One picture as SVG text, in both sizes."""

    wide: str
    narrow: str


def draw_all(study: Study) -> dict[str, Drawn]:
    """Every picture that the study has the numbers for, by name."""
    drawn = {}
    for name, draw in _DRAW.items():
        wide, narrow = (
            style.to_svg(functools.partial(draw, study, style.Layout(wide=w)), f"{name}-{tag}-")
            for w, tag in ((True, "w"), (False, "n"))
        )
        if wide is not None and narrow is not None:
            drawn[name] = Drawn(wide, narrow)
    return drawn
