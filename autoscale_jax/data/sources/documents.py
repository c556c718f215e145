"""Units -> documents by random access, and the Grain data set of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain

from autoscale_jax.data import embedded
from autoscale_jax.data.sources import files, jsonl, parquet, text, tfds
from autoscale_jax.data.sources.spec import Source, text_field
from autoscale_jax.data.sources.unit import SKIP, Records, Unit, group, unit_bytes
from autoscale_jax.specs import BadInput

_FILE = 40  # bits of a document's index that count the records of its file


class EmbeddedDocuments:
    """One domain of the text that comes with the installation."""

    def __init__(self, unit: Unit) -> None:
        self._name = unit.options["name"]
        self._texts = _embedded(self._name)

    def __len__(self) -> int:
        return len(self._texts)

    def place(self, index: int) -> str:
        return f"embedded {self._name}: document {index}"

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"text": self._texts[index]}


@functools.lru_cache(maxsize=len(embedded.DEFAULT))
def _embedded(name: str) -> list[str]:
    return embedded.embedded_documents([name])[name]  # some 5 MB, read three times over


_READERS: dict[str, Callable[[Unit], Records]] = {
    "jsonl": jsonl.JsonLines,
    "parquet": parquet.ParquetRows,
    "tfds": tfds.TfdsRecords,
    "text": text.TextFiles,
    "embedded": EmbeddedDocuments,
}


def units_of(name: str, source: Source, most_bytes: int | None = None) -> list[Unit]:
    """The units of one domain, of some `most_bytes` as stored or what `unit_bytes` takes.

    Files by format, each in the order of the paths; then data sets. Raises `BadInput` where there
    is nothing.
    """
    found: list[tuple[str, int, Any]] = []
    sets: list[Unit] = []
    for path in source.paths:
        options = {"text": text_field(source, path), "where": dict(source.where)}
        if path.startswith(tfds.PREFIX):
            ranges = tfds.units(path, source.data_dir, most_bytes)
            sets += [dataclasses.replace(u, options={**u.options, **options}) for u in ranges]
        elif not (more := files.find(path)):
            raise BadInput(f"data.domains.{name} = {path!r}: no such file; check path and glob")
        else:
            found += more
    options = {"text": source.text or "text", "where": dict(source.where)}
    most = most_bytes or unit_bytes(sum(size for _, size, _ in found))
    of_files = _file_units(found, options, most)
    return [dataclasses.replace(u, options={**u.options, **options}) for u in of_files] + sets


def _file_units(
    found: Sequence[tuple[str, int, Any]], options: Mapping[str, Any], most_bytes: int
) -> list[Unit]:
    lines = [file for file in found if file[0].endswith(jsonl.SUFFIXES)]
    tables = [file for file in found if file[0].endswith(parquet.SUFFIXES)]
    plain = [file for file in found if not file[0].endswith(jsonl.SUFFIXES + parquet.SUFFIXES)]
    columns = [field.split(".")[0] for field in [options["text"], *options["where"]]]
    units: list[Unit] = []
    for g in group(lines, most_bytes):
        units += jsonl.ranges(g[0], most_bytes) if len(g) == 1 else [Unit("jsonl", g)]
    units += [Unit("parquet", g, options={"columns": columns}) for g in group(tables, most_bytes)]
    return units + [Unit("text", g) for g in group(plain, most_bytes)]


def parts_of(unit: Unit) -> list[Unit]:
    """The same documents in units that one reader opens: of one file, where opening costs."""
    if unit.format == "text" or len(unit.files) < 2:
        return [unit]
    return [dataclasses.replace(unit, files=(file,)) for file in unit.files]


class Documents:
    """The texts of a unit by random access; one of its files is open at a time.

    An element is a text; None where a record is blank or not among those that `where` keeps; and
    what cannot be read raises `BadInput` with its file and line, or record. An index is that of the
    record in its file, and the file's place in the unit from bit 40 on: files that nobody asks
    for are never opened, and going through `indices` opens each once.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._parts = parts_of(unit)
        self._before = [0, *itertools.accumulate(part.bytes for part in self._parts)]
        self._opened: tuple[int, Records] | None = None
        self._last: tuple[int, Mapping[str, Any] | BadInput | None] = (-1, None)

    def _open(self, part: int) -> Records:
        opened = self._opened
        if opened is None or opened[0] != part:
            self._opened = None  # closes the file before
            opened = self._opened = (part, _READERS[self._unit.format](self._parts[part]))
        return opened[1]

    def __len__(self) -> int:
        """Opens every file."""
        return sum(len(self._open(part)) for part in range(len(self._parts)))

    def indices(self) -> Iterator[int]:
        """Of all documents, in order."""
        for part in range(len(self._parts)):
            first = part << _FILE
            yield from range(first, first + len(self._open(part)))

    def _find(self, index: int) -> tuple[Records, int]:
        return self._open(index >> _FILE), index & ((1 << _FILE) - 1)

    def place(self, index: int) -> str:
        records, i = self._find(index)
        return records.place(i)

    def bytes_until(self, index: int) -> int:
        """Bytes of the unit up to the end of a document, were those of a file equally long."""
        records, i = self._find(index)
        part = index >> _FILE
        return self._before[part] + self._parts[part].bytes * (i + 1) // len(records)

    def __getitem__(self, index: int) -> str | None:
        return self.text(index, self._unit.options)

    def text(self, index: int, options: Mapping[str, Any]) -> str | None:
        """As an element, with the "text" and "where" of a unit that has the same files.

        A record is read once for all that ask for it in turn.
        """
        last = self._last
        if last[0] != index:
            last = self._last = (index, self._record(index))
        record = last[1]
        if isinstance(record, BadInput):
            raise record
        if record is None:
            return None
        for field, wanted in options.get("where", {}).items():
            if _decoded(_look_up(record, field)) != wanted:
                return None
        return self._text_in(record, options.get("text", "text"), index)

    def _record(self, index: int) -> Mapping[str, Any] | BadInput | None:
        records, i = self._find(index)
        try:
            return records[i]
        except BadInput as bad:
            return bad

    def _text_in(self, record: Mapping[str, Any], field: str, index: int) -> str:
        try:
            text = _decoded(_look_up(record, field))
        except UnicodeDecodeError as e:
            raise BadInput(
                f"{self.place(index)}: field {field!r} is not UTF-8 at byte {e.start}; {SKIP}"
            ) from e
        if not isinstance(text, str):
            raise BadInput(f"{self.place(index)}: no field {field!r} with a string; {SKIP}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise BadInput(
                f"{self.place(index)}: field {field!r} holds half a surrogate pair; {SKIP}"
            ) from e
        return text


def _look_up(record: Mapping[str, Any], field: str) -> Any:
    value: Any = record
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _decoded(value: Any) -> Any:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def dataset(name: str, source: Source) -> grain.MapDataset:
    """All documents of a domain as a random-access Grain data set (None: left out by `where`).

    How many documents a JSON lines file holds is known only from reading it, so that making the
    data set reads those files once; see `jsonl.JsonLines`.
    """
    parts = [part for unit in units_of(name, source) for part in parts_of(unit)]
    return grain.MapDataset.concatenate([grain.MapDataset.source(_Reopened(p)) for p in parts])


class _Reopened:
    """Documents of one file that travel to other processes as the unit alone."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._documents = Documents(unit)
        self._len = len(self._documents)  # opens the file, before threads read from it

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, index: int) -> str | None:
        return self._documents[int(index)]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._unit,)
