"""The small pieces that sources are cut into, to be read by one process each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

SKIP = "repair it or set data.on_bad_line='skip'"
_SMALLEST, _LARGEST, _MANY = 32 << 20, 512 << 20, 256


def unit_bytes(total: int) -> int:
    """How many bytes of `total` belong into one unit, as they are stored.

    Few enough units for all that is done by unit (a shard a side, a map), enough of them for many
    processes, and so small that a killed one has at most minutes to repeat. A power of two,
    so that a grown domain is seldom cut otherwise.
    """
    size = _SMALLEST
    while size < _LARGEST and total > _MANY * size:
        size *= 2
    return size


@dataclasses.dataclass(frozen=True)
class Unit:
    """Some files, or some records of a data set, in one format. Plain data: it travels and hashes.

    `files` are (path, bytes, what changes when the file does). `records` is a range of records, or
    of bytes in a JSON lines file, where the files are not the natural pieces; `options` is the
    format's own.
    """

    format: str
    files: tuple[tuple[str, int, Any], ...]
    records: tuple[int, int] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.files)

    def identity(self) -> list[Any]:
        """What the text in it is a function of, as plain JSON."""
        return [self.format, self.files, self.records, dict(self.options)]


class Records(Protocol):
    """Random access to the records of a unit.

    A record that cannot be read raises `BadInput` with its place; so does the last one of a file
    that is damaged from there on.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any] | None:
        """None where there is nothing, as on a blank line."""

    def place(self, index: int) -> str:
        """File and line, or record, for messages."""


def identity_hash(*parts: Any) -> str:
    """16 hex digits of anything that is plain JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def group(files: Sequence[tuple[str, int, Any]], most_bytes: int) -> list[tuple]:
    """Consecutive files together, up to `most_bytes` unless one alone is larger."""
    groups: list[list] = []
    size = 0
    for file in files:
        if not groups or size + file[1] > most_bytes:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file[1]
    return [tuple(g) for g in groups]
