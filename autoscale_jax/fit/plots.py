"""Pictures of a proposal, on matplotlib's axes: the command line and the notebook draw the same.

matplotlib is imported where a file is written, so that fits alone do not load it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_jax.fit.next_run import NextRun
from autoscale_jax.specs import BadInput, Proposal, RunArrays

FORMATS = (".png", ".svg", ".pdf")
BAR = "#a9c3e0"
# Of the mixtures that the proposal is compared with.
MARKS = (("_", "#332288"), ("x", "#cc3311"), ("+", "#117733"), ("1", "#882255"), ("2", "#555555"))


def draw_weights(axes: Any, proposal: Proposal) -> None:
    """Bars of the weights with 90% intervals; the mixtures they are compared with as marks."""
    names = list(proposal.weights)
    middle_K, low_K, high_K = (
        np.array([by_name[n] for n in names])
        for by_name in (proposal.weights, proposal.low, proposal.high)
    )
    axes.bar(names, middle_K, color=BAR, label="proposal")
    spread = [middle_K - low_K, high_K - middle_K]
    axes.errorbar(names, middle_K, spread, fmt="none", color="black", capsize=6)
    others = {n: c["weights"] for n, c in proposal.details["candidates"].items()}
    if others["reference"] in [w for n, w in others.items() if n != "reference"]:
        del others["reference"]  # it is one of the others, under its own name
    for (label, weights), (marker, color) in zip(others.items(), itertools.cycle(MARKS)):
        points = [weights[n] for n in names]
        axes.plot(names, points, marker, color=color, markersize=12, mew=1.8, label=label)
    axes.tick_params(axis="x", rotation=90 if len(names) > 8 else 0)
    axes.set_ylabel("weight")
    axes.set_title(f"{proposal.tokens:,} tokens, 90% intervals")
    axes.legend()


def draw_fit(axes: Any, arrays: RunArrays, predicted_RxE: np.ndarray) -> None:
    """Losses as a law predicts them against the measured ones, in nats per token."""
    for e, name in enumerate(arrays.eval_domains):
        axes.plot(arrays.loss_RxE[:, e], predicted_RxE[:, e], "o", markersize=4, label=name)
    ends = [arrays.loss_RxE.min(), arrays.loss_RxE.max()]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.set_xlabel("measured loss, nats per token")
    axes.set_ylabel("predicted")
    axes.set_title("the laws and the runs they were fitted to")
    axes.legend(fontsize="small", ncols=1 + len(arrays.eval_domains) // 10)


def draw_next(axes: Any, runs: Sequence[NextRun]) -> None:
    """Bars of what runs are worth, as shares of the first one's, the best on top."""
    labels = [run.label for run in runs]
    most = max((run.worth for run in runs), default=0.0) or 1.0  # all may be worth nothing
    axes.barh(labels, [run.worth / most for run in runs], color=BAR)
    axes.invert_yaxis()
    axes.set_xlabel("fall of the expected regret for its cost, relative")
    axes.set_title("runs worth most")


def save(
    path: Path,
    proposal: Proposal,
    arrays: RunArrays,
    predicted_RxE: np.ndarray,
    next_runs: Sequence[NextRun] = (),
) -> None:
    """Writes the pictures side by side; those of next runs where there are any."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * (3 if next_runs else 2), 4.5), layout="constrained")
    axes = figure.subplots(1, 3 if next_runs else 2)
    draw_weights(axes[0], proposal)
    draw_fit(axes[1], arrays, predicted_RxE)
    if next_runs:
        draw_next(axes[2], next_runs)
    figure.savefig(path)


def check_format(path: Path) -> None:
    """Refuses a file name whose ending is no format of pictures."""
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"--plot = {path}: end the name in {', '.join(FORMATS)}")
