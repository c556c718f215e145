"""Documents -> samples: the rules of what is used, and a first pass that takes note of them."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_jax.data.parallel import Reading, Report
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
    first_empty: str = ""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.read + other.read,
            self.left_out + other.left_out,
            self.empty + other.empty,
            self.short + other.short,
            self.bad + other.bad,
            self.first_bad or other.first_bad,
            self.first_empty or other.first_empty,
        )


@dataclasses.dataclass(frozen=True)
class ScanTask:
    unit: Unit
    rules: Rules
    folder: Path

    @property
    def path(self) -> Path:
        counted = [field.name for field in dataclasses.fields(Counts)]
        key = identity_hash(self.unit.identity(), dataclasses.asdict(self.rules), counted)
        return self.folder / f"{key}.npz"

    def notes(self) -> Notes:
        """What the scan found, once it is done."""
        return Notes(self.path)


def together(tasks: Iterable[ScanTask]) -> list[tuple[ScanTask, ...]]:
    """The tasks, those together that read the same records: domains told apart by `where`."""
    groups: dict[str, list[ScanTask]] = {}
    for task in tasks:
        options = {k: v for k, v in task.unit.options.items() if k != "where"}
        key = identity_hash(dataclasses.replace(task.unit, options=options).identity())
        groups.setdefault(key, []).append(task)
    return [tuple(group) for group in groups.values()]


def scan(tasks: Sequence[ScanTask], report: Report) -> None:
    """Reads the one unit of `tasks`, and leaves the `Notes` of each in its `path`."""
    documents, reading = Documents(tasks[0].unit), Reading(report)
    taken = [_Taken(task) for task in tasks]
    for i in documents.indices():
        for of_task in taken:
            of_task.take(documents, i)
        reading.at(documents.bytes_until(i))
    for of_task in taken:
        of_task.write()
    reading.end(tasks[0].unit.bytes)


class _Taken:
    """What one domain takes of a unit, while it is read."""

    def __init__(self, task: ScanTask) -> None:
        self._task = task
        self._counts = Counts()
        self._index, self._bits, self._chars = array("q"), array("Q"), array("q")

    def take(self, documents: Documents, index: int) -> None:
        sample = sample_of(documents, index, self._task.unit.options, self._task.rules)
        if isinstance(sample, Counts):
            if sample.empty and not self._counts.first_empty:
                sample = dataclasses.replace(sample, first_empty=documents.place(index))
            self._counts = self._counts + sample
            return
        self._counts = self._counts + Counts(read=1)
        self._index.append(index)
        self._bits.append(uniform64(sample, self._task.rules.seed))
        self._chars.append(len(sample))

    def write(self) -> None:
        counts = np.array(json.dumps(dataclasses.asdict(self._counts)))
        index_N, chars_N = (np.array(x, np.int64) for x in (self._index, self._chars))
        bits_N = np.array(self._bits, np.uint64)
        write_whole(
            self._task.path,
            lambda file: np.savez(
                file, index_N=index_N, bits_N=bits_N, chars_N=chars_N, counts=counts
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


def sample_of(
    documents: Documents, index: int, options: Mapping[str, Any], rules: Rules
) -> str | Counts:
    """The sample that a document gives to a domain, or what it counts as when it gives none."""
    try:
        text = documents.text(index, options)
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


def samples(
    unit: Unit, rules: Rules, index_N: np.ndarray, reading: Reading | None = None
) -> Iterator[str]:
    """Some samples of a unit, by the index of their records, which ascends."""
    documents = Documents(unit)
    for i in map(int, index_N):
        sample = sample_of(documents, i, unit.options, rules)
        if isinstance(sample, Counts):
            raise BadInput(f"{documents.place(i)}: changed while it was prepared; start again")
        yield sample
        if reading is not None:
            reading.at(documents.bytes_until(i))
