"""TensorFlow Datasets in their ArrayRecord format, without TensorFlow."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from etils import epath

from autoscale_jax.data.sources import files
from autoscale_jax.data.sources.unit import SKIP, Unit, unit_bytes
from autoscale_jax.specs import BadInput

PREFIX = "tfds:"
# Where the text is, for data sets that do not call it "text".
TEXT_FIELDS = {
    "scientific_papers": "article",
    "amazon_us_reviews": "data.review_body",
    "pg19": "book_text",
    "big_patent": "description",
    "cnn_dailymail": "article",
}


def split_name(path: str) -> tuple[str, str]:
    """tfds:NAME[/CONFIG][/VERSION]:SPLIT -> what TFDS calls the data set, and the split."""
    name, colon, split = path.removeprefix(PREFIX).rpartition(":")
    return (name, split) if colon else (split, "train")


def units(path: str, data_dir: str | None, most_bytes: int | None) -> list[Unit]:
    """Ranges of records of a prepared data set, of `most_bytes` or what `unit_bytes` takes.

    Raises `BadInput` where there is none.
    """
    name, split = split_name(path)
    folder = _folder(name, data_dir)
    info = _builder(folder).info
    if split not in info.splits:
        raise BadInput(f"{path}: no split {split!r} in {folder}; it has {', '.join(info.splits)}")
    if (format := info.file_format) is None or format.value != "array_record":
        raise BadInput(
            f"{path}: {folder} holds {format.value if format else 'unknown'} files, which need"
            " TensorFlow; convert them with tensorflow_datasets.scripts.convert_format"
            " --out_file_format=array_record"
        )
    found = tuple(
        file
        for shard in info.splits[split].filepaths
        for file in files.find(str(shard)) or [(str(shard), 0, "missing")]
    )
    for file, size, changed in found:
        if changed == "missing" or not size:
            raise BadInput(f"{file}: is missing or empty; download and prepare {name} again")
    n = info.splits[split].num_examples
    total = sum(size for _, size, _ in found)
    parts = max(1, min(n, -(-total // (most_bytes or unit_bytes(total)))))
    share = total // parts
    return [
        Unit(
            "tfds",
            ((str(folder), share, [[file, size, changed] for file, size, changed in found]),),
            (i * n // parts, (i + 1) * n // parts),
            {"split": split},
        )
        for i in range(parts)
    ]


def _folder(name: str, data_dir: str | None) -> epath.Path:
    """The folder of the newest version of NAME or NAME/CONFIG, or of the version that is named."""
    import tensorflow_datasets as tfds  # a second to import

    root = epath.Path(data_dir) if data_dir else epath.Path(tfds.core.constants.DATA_DIR)
    folder = root.expanduser() / name
    if not (folder / "dataset_info.json").exists():
        versions = [p for p in folder.iterdir() if _version(p.name)] if folder.is_dir() else []
        versions = [p for p in versions if (p / "dataset_info.json").exists()]
        if not versions:
            raise BadInput(
                f"{PREFIX}{name}: no prepared data set in {folder}; build it with"
                " tfds build --file_format=array_record, name its config, or set data_dir"
            )
        folder = max(versions, key=lambda p: _version(p.name))
    if files.is_remote(str(folder)):
        raise BadInput(f"{folder}: ArrayRecord is read from local paths; mount the bucket")
    return folder


def _version(name: str) -> tuple[int, ...]:
    parts = name.split(".")
    return tuple(map(int, parts)) if len(parts) == 3 and all(p.isdigit() for p in parts) else ()


@functools.lru_cache(maxsize=8)
def _builder(folder: epath.Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder)
    except Exception as e:  # of many kinds, none of them TFDS's own
        raise BadInput(f"{folder}: not a TFDS data set ({e}); prepare it again") from e


class TfdsRecords:
    """The records of a range of one split."""

    def __init__(self, unit: Unit) -> None:
        ((self._folder, _, shards),) = unit.files
        assert unit.records is not None
        self._shards = ", ".join(file for file, _, _ in shards)
        self._first, last = unit.records
        self._len = last - self._first
        self._damage: BadInput | None = None
        try:
            builder = _builder(epath.Path(self._folder))
            self._source = builder.as_data_source(unit.options["split"])
            n = len(self._source)
        except (RuntimeError, ValueError, OSError, IndexError) as e:
            self._damage = BadInput(f"{self._folder}: cannot be read ({e}); {SKIP}")
            return
        if n < last:
            self._damage = BadInput(
                f"{self._folder}: {n} records and its dataset_info.json says {last} or more;"
                f" one of {self._shards} was cut short"
            )

    def __len__(self) -> int:
        return 1 if self._damage else self._len

    def place(self, index: int) -> str:
        return f"{self._folder}: record {self._first + index}"

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self._damage:
            raise self._damage
        try:
            return self._source[self._first + index]
        except Exception as e:  # the reader raises bare errors of several kinds
            where = f"{self.place(index)} of {self._shards}"
            raise BadInput(f"{where}: damaged ({e}); {SKIP}") from e
