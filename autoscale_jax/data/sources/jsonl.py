"""JSON lines, plain or compressed: a record a line, by random access."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoscale_jax.data.sources import files
from autoscale_jax.data.sources.unit import SKIP, Unit
from autoscale_jax.specs import BadInput

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")


class JsonLines:
    """The records of one file.

    Opening it reads the whole file once, to find where its lines begin: gzip and zstd have no other
    way in. What is compressed or remote is unpacked for that into a temporary file without a
    name, of the size of the text, and lines are then read from there. Plain local files are mapped.
    """

    def __init__(self, unit: Unit) -> None:
        ((self._path, _, _),) = unit.files
        self._damage: str | None = None
        local = not files.is_remote(self._path) and self._path.endswith(".jsonl")
        self._file = None if local else files.temporary()
        ends: list[np.ndarray] = []
        size = 0
        try:
            for chunk in files.chunks(self._path):
                ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + size)
                size += len(chunk)
                if self._file is not None:
                    self._file.write(chunk)
        except files.DAMAGE as e:
            self._damage = f"compression cut short or damaged ({e})"
        except OSError as e:
            self._damage = f"cannot be read ({e.strerror or e})"
        end_N = np.concatenate([np.zeros(0, np.int64), *ends])
        last = int(end_N[-1]) + 1 if len(end_N) else 0
        if self._damage is None and last < size:  # a last line without a line end
            end_N = np.append(end_N, size)
        self._end_N = end_N
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
        return len(self._end_N) + (self._damage is not None)

    def place(self, index: int) -> str:
        return f"{self._path}:{index + 1}"

    def __getitem__(self, index: int) -> Mapping[str, Any] | None:
        if index == len(self._end_N) and self._damage:
            raise BadInput(f"{self.place(index)}: {self._damage}; {SKIP}")
        start = int(self._end_N[index - 1]) + 1 if index else 0
        return parse(self._text[start : int(self._end_N[index])], self.place(index))


def parse(line: bytes, place: str) -> Mapping[str, Any] | None:
    """The object of one line; None of a blank one."""
    if not line.strip():
        return None
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise BadInput(f"{place}: not UTF-8 at byte {e.start} of the line; {SKIP}") from e
    except (ValueError, RecursionError) as e:  # ValueError: also numbers of too many digits
        raise BadInput(f"{place}: not JSON ({e}); {SKIP}") from e
    return record if isinstance(record, dict) else {}
