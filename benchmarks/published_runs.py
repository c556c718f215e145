"""The published tables of runs in ../shared/data/runs, as arrays."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from autoscale_jax.specs import RunArrays

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "runs"
# The source's "overall" loss: weights of the 22 evaluation sets.
OVERALL = {
    "github": 0.095293, "pile_cc": 0.157022, "books3": 0.126543, "philpapers": 0.005015,
    "openwebtext2": 0.090664, "pubmed_abstracts": 0.023920, "dm_mathematics": 0.021605,
    "pg19": 0.018519, "freelaw": 0.054398, "hackernews": 0.007330, "europarl": 0.008102,
    "opensubtitles": 0.015818, "pubmed_central": 0.125, "wikipedia_en": 0.037423,
    "stackexchange": 0.055170, "bookcorpus2": 0.006944, "enron_emails": 0.001157,
    "nih_exporter": 0.001929, "youtubesubtitles": 0.009645, "ubuntu_irc": 0.008102,
    "arxiv": 0.101852, "uspto_backgrounds": 0.028549,
}  # fmt: skip
STEP = 4096 * 256  # tokens
EXTREME = "207"  # the run that the source's own code leaves out


def read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open() as file:
        return list(csv.DictReader(file))


def arrays_of(rows: list[dict[str, str]], tokens: list[float]) -> RunArrays:
    """Rows of a table as arrays; weights are renormalised."""
    mixed = [c for c in rows[0] if c.startswith("w_")]
    losses = [c for c in rows[0] if c.startswith("loss_")]
    w_RxK = np.array([[float(r[c]) for c in mixed] for r in rows])
    w_RxK /= w_RxK.sum(1, keepdims=True)
    return RunArrays(
        domains=tuple(c[2:] for c in mixed),
        eval_domains=tuple(c[5:] for c in losses),
        names_R=tuple(r["run"] for r in rows),
        tokens_RxK=w_RxK * np.array(tokens)[:, None],
        loss_RxE=np.array([[float(r[c]) for c in losses] for r in rows]),
        seed_R=np.zeros(len(rows), dtype=int),
    )


def take(arrays: RunArrays, rows: np.ndarray) -> RunArrays:
    return RunArrays(
        arrays.domains, arrays.eval_domains, tuple(arrays.names_R[i] for i in rows),
        arrays.tokens_RxK[rows], arrays.loss_RxE[rows], arrays.seed_R[rows],
    )  # fmt: skip


class Checkpoints:
    """One table of Data Mixing Laws: runs by model size and step, and the overall loss."""

    def __init__(self, name: str) -> None:
        rows = [r for r in read(name) if r["run"] != EXTREME]
        self.rows = [r for r in rows if all(v != "" for v in r.values())]
        self.v_E = np.array([OVERALL[c[5:]] for c in rows[0] if c.startswith("loss_")])
        self.v_E /= self.v_E.sum()

    def at(
        self, size: str, steps: tuple[int, ...], names: tuple[str, ...] = ()
    ) -> RunArrays | None:
        """Checkpoints of these runs (all, where none are named) at these steps."""
        mine = [r for r in self.rows if r["model_size"] == size and int(r["step"]) in steps]
        mine = [r for r in mine if not names or r["run"] in names]
        return arrays_of(mine, [float(int(r["step"]) * STEP) for r in mine]) if mine else None

    def miss(self, loss_RxE: np.ndarray, truth: RunArrays) -> float:
        return float(np.abs((loss_RxE - truth.loss_RxE) @ self.v_E).mean())
