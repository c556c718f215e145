"""Parquet: a record a row; one row group at a time is in memory."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from autoscale_jax.data.sources import files
from autoscale_jax.data.sources.unit import SKIP, Unit
from autoscale_jax.specs import BadInput

SUFFIXES = (".parquet",)


class ParquetRows:
    """The rows of one file: `options["columns"]` of them, whatever is nested in these."""

    def __init__(self, unit: Unit) -> None:
        ((self._path, _, _),) = unit.files
        self._lock = threading.Lock()  # Grain reads from many threads, ParquetFile allows one
        self._group: tuple[int, list[Mapping[str, Any]]] = (-1, [])
        self._damage: BadInput | None = None
        self._starts = [0]
        try:
            self._file = pq.ParquetFile(files.open_binary(self._path))
        except (pa.ArrowException, OSError) as e:
            self._damage = BadInput(f"{self._path}: not a whole Parquet file ({e}); {SKIP}")
            return
        have = self._file.schema_arrow.names
        self._columns = [c for c in unit.options["columns"] if c in have]
        meta = self._file.metadata
        sizes = (meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        self._starts = [0, *itertools.accumulate(sizes)]

    def __len__(self) -> int:
        return 1 if self._damage else self._starts[-1]

    def place(self, index: int) -> str:
        return f"{self._path}: row {index}"

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self._damage:
            raise self._damage
        g = bisect.bisect_right(self._starts, index) - 1
        with self._lock:
            if self._group[0] != g:
                try:
                    rows = self._file.read_row_group(g, columns=self._columns).to_pylist()
                except (pa.ArrowException, OSError) as e:
                    raise BadInput(f"{self.place(index)}: cannot be read ({e}); {SKIP}") from e
                self._group = (g, rows)
            return self._group[1][index - self._starts[g]]
