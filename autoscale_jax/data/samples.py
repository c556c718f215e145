"""Documents -> samples: the rules of what is used, and a first pass that takes note of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_jax.data.sources import Documents, Source, Unit, identity_hash
from autoscale_jax.data.store import write_whole
from autoscale_jax.data.window import uniform64, window
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which documents of a domain are used, and what part of each."""

    min_chars: int
    window_chars: int
    window: str
    on_bad_line: str
    seed: int

    @classmethod
    def of(cls, settings: dict[str, Any], source: Source | None) -> Rules:
        """The study's rules, where the domain has none of its own."""
        own = source or Source("")
        return cls(
            settings["min_chars"] if own.min_chars is None else own.min_chars,
            settings["window_chars"] if own.window_chars is None else own.window_chars,
            settings["window"] if own.window is None else own.window,
            settings["on_bad_line"],
            settings["seed"],
        )


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of the records of a unit."""

    read: int = 0
    left_out: int = 0  # blank lines, and what `where` does not keep
    empty: int = 0
    short: int = 0
    bad: int = 0
    first_bad: str = ""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.left_out + other.left_out,
            self.empty + other.empty,
            self.short + other.short,
            self.bad + other.bad,
            self.first_bad or other.first_bad,
        )


@dataclasses.dataclass(frozen=True)
class ScanTask:
    unit: Unit
    rules: Rules
    folder: Path

    @property
    def path(self) -> Path:
        key = identity_hash(self.unit.identity(), dataclasses.asdict(self.rules))
        return self.folder / f"{key}.npz"

    def notes(self) -> Notes:
        """What the scan found, once it is done."""
        return Notes(self.path)


def scan(task: ScanTask) -> None:
    """Reads a unit and leaves its `Notes` in `task.path`, unless they are there."""
    if task.path.exists():
        return
    index, bits, chars = [], [], []
    counts = Counts()
    documents = Documents(task.unit)
    for i in range(len(documents)):
        sample = sample_of(documents, i, task.rules)
        if isinstance(sample, Counts):
            counts = counts + sample
        else:
            counts = counts + Counts(read=1)
            index.append(i)
            bits.append(uniform64(sample, task.rules.seed))
            chars.append(len(sample))
    write_whole(
        task.path,
        lambda file: np.savez(
            file,
            index_N=np.array(index, np.int64),
            bits_N=np.array(bits, np.uint64),
            chars_N=np.array(chars, np.int64),
            counts=np.array(json.dumps(dataclasses.asdict(counts))),
        ),
    )


@dataclasses.dataclass(frozen=True)
class Notes:
    """What `scan` left of a unit's N samples; read anew each time, so that none of it is held."""

    path: Path

    def counts(self) -> Counts:
        return Counts(**json.loads(str(self._read("counts"))))

    def index_N(self) -> np.ndarray:
        """Which records they are."""
        return self._read("index_N")

    def bits_N(self) -> np.ndarray:
        """Their 64 bits (`window.uniform64`)."""
        return self._read("bits_N")

    def chars_N(self) -> np.ndarray:
        """How long they are."""
        return self._read("chars_N")

    def _read(self, name: str) -> np.ndarray:
        with np.load(self.path) as found:
            return found[name]


def sample_of(documents: Documents, index: int, rules: Rules) -> str | Counts:
    """The sample that a document gives, or as what it counts when it gives none."""
    try:
        text = documents[index]
    except BadInput as bad:
        if rules.on_bad_line == "refuse":
            raise
        return Counts(read=1, bad=1, first_bad=str(bad))
    if text is None:
        return Counts(read=1, left_out=1)
    text = text.strip()
    if not text:
        return Counts(read=1, empty=1)
    if len(text) <= rules.min_chars:
        return Counts(read=1, short=1)
    sample = window(text, rules.window_chars, rules.window, rules.seed).strip()
    return sample or Counts(read=1, empty=1)


def samples(unit: Unit, rules: Rules, index_N: np.ndarray) -> Iterator[str]:
    """Some samples of a unit, by the index of their records."""
    documents = Documents(unit)
    for i in index_N:
        sample = sample_of(documents, int(i), rules)
        if isinstance(sample, Counts):
            raise BadInput(f"{documents.place(int(i))}: changed while it was prepared; start again")
        yield sample
