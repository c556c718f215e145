"""JSON lines, plain or compressed: a record a line, by random access."""

from __future__ import annotations

import functools
import itertools
import json
import mmap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from autoscale_jax.data.sources import files
from autoscale_jax.data.sources.unit import SKIP, Unit
from autoscale_jax.specs import BadInput

_PLAIN = (".jsonl", ".json")
SUFFIXES = tuple(name + end for name in _PLAIN for end in ("", ".gz", ".zst"))


def is_mapped(path: str) -> bool:
    """Whether lines are read from the file itself, so that it can be cut into ranges of bytes."""
    return not files.is_remote(path) and path.endswith(_PLAIN)


def ranges(file: tuple[str, int, Any], most_bytes: int) -> list[Unit]:
    """A large file in units of some `most_bytes`, if its lines can be reached by their bytes."""
    path, size, changed = file
    n = max(1, -(-size // most_bytes)) if is_mapped(path) else 1
    if n == 1:
        return [Unit("jsonl", (file,))]
    cuts = [i * size // n for i in range(n + 1)]
    return [
        Unit("jsonl", ((path, end - start, [size, changed]),), (start, end))
        for start, end in itertools.pairwise(cuts)
    ]


class JsonLines:
    """The records of one file, or of those of its lines that begin in a range of bytes.

    Opening it reads the whole file once, to find where its lines begin: gzip and zstd have no other
    way in. What is compressed or remote is unpacked for that into a temporary file without a
    name, of the size of the text, and lines are then read from there. Plain local files are mapped.
    """

    def __init__(self, unit: Unit) -> None:
        ((self._path, _, _),) = unit.files
        self._damage: str | None = None
        self._start, stop = 0, None
        if unit.records is not None:
            self._start, stop = unit.records
        self._file = None if is_mapped(self._path) else files.temporary()
        size = max(0, self._start - 1)  # a line begins where the one before it ends
        edges = [np.array([-1])] if self._start == 0 else []
        try:
            for chunk in files.chunks(self._path, size):
                edges.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + size)
                size += len(chunk)
                if self._file is not None:
                    self._file.write(chunk)
                if stop is not None and len(edges[-1]) and edges[-1][-1] >= stop - 1:
                    break
        except files.DAMAGE as e:
            self._damage = f"compression cut short or damaged ({e})"
        except OSError as e:
            self._damage = f"cannot be read ({e.strerror or e})"
        # Line i is between edges i and i + 1: the line ends before and behind it.
        edge = np.concatenate([np.zeros(0, np.int64), *edges])
        last = size if stop is None else min(size, stop)
        edge = edge[: np.searchsorted(edge, last - 1) + 1]
        if self._damage is None and len(edge) and edge[-1] < last - 1:
            edge = np.append(edge, size)  # a last line without a line end
        self._edge = edge
        self._lines = max(0, len(edge) - 1)
        self._text = self._map(size)

    def _map(self, size: int) -> mmap.mmap | bytes:
        if not size:
            return b""
        if self._file is None:
            with open(self._path, "rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.flush()
        return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self._lines + (self._damage is not None)

    @functools.cached_property
    def _lines_before(self) -> int:
        """Lines of the file before the first one here: read again, since only messages ask."""
        lines, left = 0, self._start and int(self._edge[0]) + 1
        for chunk in files.chunks(self._path) if left else ():
            lines += chunk[:left].count(b"\n")
            left -= min(left, len(chunk))
            if not left:
                break
        return lines

    def place(self, index: int) -> str:
        return f"{self._path}:{self._lines_before + index + 1}"

    def __getitem__(self, index: int) -> Mapping[str, Any] | None:
        if index == self._lines and self._damage:
            raise BadInput(f"{self.place(index)}: {self._damage}; {SKIP}")
        line = self._text[int(self._edge[index]) + 1 : int(self._edge[index + 1])]
        return parse(line, functools.partial(self.place, index))


def parse(line: bytes, place: Callable[[], str]) -> Mapping[str, Any] | None:
    """The object of one line; None of a blank one."""
    if not line.strip():
        return None
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise BadInput(f"{place()}: not UTF-8 at byte {e.start} of the line; {SKIP}") from e
    except (ValueError, RecursionError) as e:  # ValueError: also numbers of too many digits
        raise BadInput(f"{place()}: not JSON ({e}); {SKIP}") from e
    return record if isinstance(record, dict) else {}
