"""Units -> documents by random access, and the Grain data set of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain

from autoscale_jax.data import embedded
from autoscale_jax.data.sources import files, jsonl, parquet, text, tfds
from autoscale_jax.data.sources.spec import Source, text_field
from autoscale_jax.data.sources.unit import SKIP, Records, Unit, group
from autoscale_jax.specs import BadInput

UNIT_BYTES = 32 << 20


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


def units_of(name: str, source: Source, unit_bytes: int = UNIT_BYTES) -> list[Unit]:
    """The units of one domain, in the order of its paths. Raises `BadInput` where nothing is."""
    units: list[Unit] = []
    for path in source.paths:
        options = {"text": text_field(source, path), "where": dict(source.where)}
        if path.startswith(tfds.PREFIX):
            found = tfds.units(path, source.data_dir, unit_bytes)
        else:
            found = _file_units(files.find(path), options, unit_bytes)
        if not found:
            raise BadInput(f"data.domains.{name} = {path!r}: no such file; check path and glob")
        units += [Unit(u.format, u.files, u.records, {**u.options, **options}) for u in found]
    return units


def _file_units(
    found: Sequence[tuple[str, int, Any]], options: Mapping[str, Any], unit_bytes: int
) -> list[Unit]:
    units: list[Unit] = []
    plain: list[tuple[str, int, Any]] = []
    columns = [field.split(".")[0] for field in [options["text"], *options["where"]]]
    for file in found:
        if file[0].endswith(jsonl.SUFFIXES):
            units.append(Unit("jsonl", (file,)))
        elif file[0].endswith(parquet.SUFFIXES):
            units.append(Unit("parquet", (file,), options={"columns": columns}))
        else:
            plain.append(file)
    return units + [Unit("text", g) for g in group(plain, unit_bytes)]


class Documents:
    """The texts of a unit by random access.

    An element is a text; None where a record is blank or not among those that `where` keeps; and
    what cannot be read raises `BadInput` with its file and line, or record.
    """

    def __init__(self, unit: Unit) -> None:
        self._records = _READERS[unit.format](unit)
        self._field = unit.options.get("text", "text")
        self._where = unit.options.get("where", {})

    def __len__(self) -> int:
        return len(self._records)

    def place(self, index: int) -> str:
        return self._records.place(index)

    def __getitem__(self, index: int) -> str | None:
        record = self._records[index]
        if record is None:
            return None
        for field, wanted in self._where.items():
            if _decoded(_look_up(record, field)) != wanted:
                return None
        try:
            text = _decoded(_look_up(record, self._field))
        except UnicodeDecodeError as e:
            raise BadInput(
                f"{self.place(index)}: field {self._field!r} is not UTF-8 at byte {e.start}; {SKIP}"
            ) from e
        if not isinstance(text, str):
            raise BadInput(f"{self.place(index)}: no field {self._field!r} with a string; {SKIP}")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise BadInput(
                f"{self.place(index)}: field {self._field!r} holds half a surrogate pair; {SKIP}"
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
    opened = [grain.MapDataset.source(_Reopened(unit)) for unit in units_of(name, source)]
    return grain.MapDataset.concatenate(opened)


class _Reopened:
    """Documents of a unit that travel to other processes as the unit alone."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._documents = Documents(unit)

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> str | None:
        return self._documents[int(index)]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._unit,)
