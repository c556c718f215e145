"""Token stores: ArrayRecord shards of one side of a domain, and flat copies that training maps.

What is prepared is ArrayRecord: compressed, checksummed by chunk, readable anywhere. Reading random
sequences from it takes some 30 microseconds of CPU each, so a shard that is trained on
is first unpacked, and checked against its hash, into a flat file of token ids.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import hashlib
import itertools
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from array_record.python import array_record_module

from autoscale_jax.data import maps
from autoscale_jax.data.sources import files
from autoscale_jax.specs import BadInput

RECORD_TOKENS = 1 << 15
_OPTIONS = "group_size:1,zstd:1"
_STALE_SECONDS = 3600
_READ = 64  # records at a time
REMEDY = (
    "restore it from a copy or, if the study prepared it in its own cache, delete its folder to"
    " prepare it anew"
)


class Tokens(Protocol):
    """A stream of token ids by random access."""

    def __len__(self) -> int: ...

    def read(self, start: int, out: np.ndarray) -> None:
        """Fills the int32 array `out` with the tokens from `start` on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One ArrayRecord file; `sha256` is of its ids as little-endian uint32."""

    file: str
    bytes: int
    tokens: int
    sha256: str


def write_shard(path: Path, parts: Iterable[np.ndarray], dtype: np.dtype) -> Shard:
    """Writes token ids as records of `RECORD_TOKENS` ids. The file appears whole or not at all."""
    sha, total = hashlib.sha256(), 0
    rest = np.zeros(0, dtype)
    with _appearing(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), _OPTIONS)
        for part in itertools.chain(parts, [None]):
            if part is not None:
                sha.update(part.astype("<u4").tobytes())
                total += len(part)
                rest = np.concatenate([rest, part.astype(dtype)])
            whole = len(rest) // RECORD_TOKENS * RECORD_TOKENS if part is not None else len(rest)
            for start in range(0, whole, RECORD_TOKENS):
                writer.write(rest[start : min(start + RECORD_TOKENS, whole)].tobytes())
            rest = rest[whole:]
        _close(writer, path)
    return Shard(path.name, path.stat().st_size, total, sha.hexdigest())


def _close(writer: Any, path: Path) -> None:
    try:
        if writer.ok():
            writer.close()
            return
        error = "not ok"
    except RuntimeError as e:  # with what the disk said in its text
        error = str(e)
    raise OSError(f"{path}: writing failed: {error}")


class _appearing:
    """A temporary file beside `path` that takes its name once it is whole and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # not mkstemp, whose files nobody else may read
        self._temporary = self._path.parent / f"tmp-{uuid.uuid4().hex}"
        return self._temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._temporary.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(self._temporary, self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what processes that were killed had half written, an hour ago or longer."""
    for path in folder.glob("*/tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # another process finished it meanwhile
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """A file that appears whole or not at all: `write` gets it opened."""
    with _appearing(path) as temporary, temporary.open("wb") as file:
        write(file)


def check_shards(folder: str, shards: Iterable[Shard]) -> None:
    """Raises `BadInput` for a shard that is gone.

    Lists the folder once and looks at no file, of which there may be 100,000 on a remote disk;
    `read_shard` compares the sizes.
    """
    found = files.names(folder)
    for shard in shards:
        if shard.file not in found:
            raise BadInput(f"{folder}/{shard.file}: is missing; {REMEDY}")


def check_size(path: str, size: int, shard: Shard) -> None:
    """Raises `BadInput` for a shard that was cut short."""
    if size != shard.bytes:
        raise BadInput(
            f"{path}: {size} bytes and the manifest says {shard.bytes}; the file was cut short or"
            f" changed: {REMEDY}"
        )


def read_shard(folder: str, shard: Shard, dtype: np.dtype) -> Iterable[np.ndarray]:
    """The ids of a shard, many records at a time. Raises `BadInput` for a damaged file."""
    path = f"{folder}/{shard.file}"
    record = 0
    sha = hashlib.sha256()
    try:
        with _local(path) as local:
            check_size(path, os.path.getsize(local), shard)
            reader = array_record_module.ArrayRecordReader(local, "readahead_buffer_size:0")
            expected = -(-shard.tokens // RECORD_TOKENS)
            if (n := reader.num_records()) != expected:
                raise BadInput(f"{path}: {n} records and the manifest says {expected}; {REMEDY}")
            for record in range(0, n, _READ):
                part = np.frombuffer(b"".join(reader.read(record, min(record + _READ, n))), dtype)
                sha.update(part.astype("<u4").tobytes())
                yield part
            reader.close()
    except (RuntimeError, ValueError, IndexError, OSError) as e:
        if isinstance(e, BadInput):
            raise
        raise BadInput(f"{path}: record {record}: damaged ({e}); {REMEDY}") from e
    if sha.hexdigest() != shard.sha256:
        raise BadInput(f"{path}: its tokens are not those of the manifest's sha256; {REMEDY}")


class _local:
    """A local path of a file that may be remote: array_record reads from local paths alone."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._copy: str | None = None

    def __enter__(self) -> str:
        if not files.is_remote(self._path):
            return self._path
        with tempfile.NamedTemporaryFile(prefix="autoscale_jax-", delete=False) as copy:
            self._copy = copy.name
            with files.open_binary(self._path) as remote:
                while chunk := remote.read(files.CHUNK):
                    copy.write(chunk)
        return self._copy

    def __exit__(self, *_: object) -> None:
        if self._copy:
            os.unlink(self._copy)


class TokenStore:
    """The tokens of some shards, one after the other. A shard is unpacked when first read.

    `flat` is the folder of the unpacked copies, named by content: several corpora share them, and
    it may be deleted at any time.
    """

    def __init__(self, folder: str, shards: Sequence[Shard], dtype: np.dtype, flat: Path) -> None:
        self._folder, self._shards, self._dtype, self._flat = folder, list(shards), dtype, flat
        self._starts = [0, *itertools.accumulate(shard.tokens for shard in shards)]
        self._opened: list[np.ndarray | None] = [None] * len(self._shards)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": [None] * len(self._shards)}

    def read(self, start: int, out: np.ndarray) -> None:
        """Fills `out` with the tokens from `start` on."""
        k = bisect.bisect_right(self._starts, start) - 1
        done = 0
        while done < len(out):
            tokens = self._opened[k]
            if tokens is None:
                tokens = self._opened[k] = self._open(k)
                maps.hold(self, k)
            at = start + done - self._starts[k]
            part = tokens[at : at + len(out) - done]
            out[done : done + len(part)] = part
            done += len(part)
            k += 1

    def forget(self, k: int) -> None:
        """Lets go of the map of shard `k`, to be opened again when it is read."""
        self._opened[k] = None

    def __getitem__(self, index: slice) -> np.ndarray:
        """A copy of a stretch of tokens, int32."""
        start, stop, step = index.indices(len(self))
        out = np.empty(max(0, stop - start), np.int32)
        self.read(start, out)
        return out[::step]

    def parts(self) -> Iterable[np.ndarray]:
        """All tokens, shard by shard, read-only."""
        for k in range(len(self._shards)):
            yield self._open(k)

    def _open(self, k: int) -> np.ndarray:
        shard = self._shards[k]
        path = self._flat / f"{shard.sha256[:32]}.{self._dtype.name}"
        size = shard.tokens * self._dtype.itemsize
        if not path.is_file() or path.stat().st_size != size:
            parts = read_shard(self._folder, shard, self._dtype)
            write_whole(path, lambda file: [file.write(part.tobytes()) for part in parts])
        if not size:
            return np.zeros(0, self._dtype)
        return maps.read_only(path, self._dtype)
