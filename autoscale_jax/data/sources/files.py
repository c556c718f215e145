"""Finding files, here or behind gs:// and other remote schemes, and reading them."""

from __future__ import annotations

import contextlib
import glob
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard
from etils import epath

from autoscale_jax.specs import BadInput

CHUNK = 1 << 20
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


def is_remote(path: str) -> bool:
    return "://" in path


@contextlib.contextmanager
def reachable(path: str, named: str = "") -> Iterator[None]:
    """Turns what a remote scheme's library raises into `BadInput`: a line that names the path, or
    the field that holds it as `named`."""
    try:
        yield
    except Exception as e:  # each library has errors of its own, ImportError is for one not there
        if not is_remote(path) or isinstance(e, BadInput | UnicodeDecodeError):
            raise
        raise BadInput(
            f"{named or path}: cannot be reached ({e}); check the path, the credentials and that"
            " the package for this scheme is installed (gcsfs for gs://, s3fs for s3://)"
        ) from e


def exists(path: str, named: str = "") -> bool:
    """Whether there is such a file or folder. Raises `BadInput` where nobody can tell."""
    with reachable(path, named):
        return epath.Path(path).expanduser().exists()


def read_text(path: str) -> str:
    """The text of a file. Raises `BadInput` where it is remote and cannot be reached."""
    with reachable(path):
        return epath.Path(path).expanduser().read_text("utf-8")


def find(pattern: str) -> list[tuple[str, int, Any]]:
    """(path, bytes, time of change) of the files that a path or glob names, sorted by path."""
    if is_remote(pattern):
        return _find_remote(pattern)
    found = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
    files = [Path(p).resolve() for p in found if Path(p).is_file()]
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]


def _find_remote(pattern: str) -> list[tuple[str, int, Any]]:
    with reachable(pattern):
        wild = re.search(r"[*?\[]", pattern)
        if wild is None:
            paths = [epath.Path(pattern)] if epath.Path(pattern).exists() else []
        else:
            base, _, rest = pattern[: wild.start()].rpartition("/")
            paths = sorted(epath.Path(base).glob(rest + pattern[wild.start() :]), key=str)
        files = [(p, p.stat()) for p in paths]
    return [(str(p), s.length, str(s.mtime)) for p, s in files if not s.is_directory]


def names(folder: str) -> set[str]:
    """The names in a folder, from one listing."""
    with reachable(folder):
        return (
            {p.name for p in epath.Path(folder).iterdir()}
            if is_remote(folder)
            else set(os.listdir(folder))
        )


def open_binary(path: str) -> IO[bytes]:
    """The file's bytes, as they are stored."""
    return epath.Path(path).open("rb") if is_remote(path) else Path(path).open("rb")


def chunks(path: str, start: int = 0) -> Iterator[bytes]:
    """The uncompressed content, a part at a time. Raises one of `DAMAGE` or OSError.

    Of a file that is not compressed, what follows its first `start` bytes.
    """
    with open_binary(path) as file:
        if start:
            file.seek(start)
        if path.endswith(".zst"):
            yield from _zstd_chunks(file)
            return
        with gzip.GzipFile(fileobj=file) if path.endswith(".gz") else file as plain:
            while chunk := plain.read(CHUNK):
                yield chunk


def _zstd_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """All frames of a zstd file. zstandard.open would take a file cut short for a whole one."""
    frame = None
    while data := file.read(CHUNK):
        while data:
            frame = frame or zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
            yield frame.decompress(data)
            data = frame.unused_data
            if frame.eof:
                frame = None
    if frame:
        raise EOFError("the last frame has no end")


def temporary() -> IO[bytes]:
    """A file without a name, gone with the process."""
    return tempfile.TemporaryFile(prefix="autoscale_jax-")
