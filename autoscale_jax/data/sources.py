"""Documents from files: JSON lines (.jsonl, .jsonl.gz, .jsonl.zst; field `text`) and plain text."""

from __future__ import annotations

import glob
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from autoscale_jax.specs import BadInput

_JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_CHUNK = 1 << 20


def find(globs: Mapping[str, str]) -> dict[str, list[Path]]:
    """Files of each domain, sorted. No file may belong to two domains."""
    files: dict[str, list[Path]] = {}
    owner: dict[Path, str] = {}
    for name, pattern in globs.items():
        if not isinstance(pattern, str):
            raise BadInput(f"data.domains.{name} = {pattern!r}: give one path or glob as text")
        found = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
        files[name] = [p for p in map(Path, found) if p.is_file()]
        if not files[name]:
            raise BadInput(f"data.domains.{name} = {pattern!r}: no such file; check path and glob")
        for path in files[name]:
            other = owner.setdefault(path.resolve(), name)
            if other != name:
                raise BadInput(
                    f"data.domains.{name} = {pattern!r}: {path} is also in domain {other!r};"
                    " give each file to one domain"
                )
    return files


def identity(files: Mapping[str, list[Path]]) -> dict[str, Any]:
    """Path, size and time of change of every file, as plain JSON."""
    return {
        name: [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
        for name, paths in files.items()
    }


def documents(
    files: Mapping[str, list[Path]], on_bad_line: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Documents by domain, and warnings that count what `on_bad_line` = 'skip' left out.

    With 'refuse' the first unreadable line or file raises `BadInput` with its place.
    """
    out: dict[str, list[str]] = {}
    warnings = []
    for name, paths in files.items():
        bad: list[str] = []
        out[name] = []
        for path in paths:
            for text in _read(path):
                if isinstance(text, BadInput):
                    if on_bad_line == "refuse":
                        raise text
                    bad.append(str(text))
                elif text.strip():
                    out[name].append(text)
        if bad:
            warnings.append(
                f"domain {name!r}: skipped {len(bad)} bad lines or files; the first is {bad[0]}"
            )
        if not out[name]:
            raise BadInput(f"data.domains.{name}: no text in {len(paths)} files, first {paths[0]}")
    return out, warnings


def _read(path: Path) -> Iterator[str | BadInput]:
    """Texts of one file; what cannot be read comes as the error it would be."""
    number = 0
    try:
        if not path.name.endswith(_JSON_SUFFIXES):
            yield path.read_bytes().decode("utf-8-sig")
            return
        for number, line in enumerate(_lines(_chunks(path)), start=1):
            if line.strip():
                yield _text_of(line, f"{path}:{number}")
    except UnicodeDecodeError as e:
        yield BadInput(f"{path}: not UTF-8 at byte {e.start}; {_SKIP}")
    except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as e:
        yield BadInput(f"{path}:{number + 1}: compression cut short or damaged ({e}); {_SKIP}")
    except OSError as e:
        yield BadInput(f"{path}: cannot be read ({e.strerror}); {_SKIP}")


_SKIP = "repair it or set data.on_bad_line='skip'"


def _text_of(line: bytes, where: str) -> str | BadInput:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        return BadInput(f"{where}: not UTF-8 at byte {e.start} of the line; {_SKIP}")
    except (ValueError, RecursionError) as e:  # ValueError: also numbers of too many digits
        return BadInput(f"{where}: not JSON ({e}); {_SKIP}")
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        return BadInput(f"{where}: no field 'text' with a string; {_SKIP}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return BadInput(f"{where}: field 'text' holds half a surrogate pair; {_SKIP}")
    return text


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    yield rest


def _chunks(path: Path) -> Iterator[bytes]:
    """The uncompressed content, a part at a time."""
    if path.suffix == ".zst":
        yield from _zstd_chunks(path)
        return
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """All frames of a zstd file. zstandard.open would take a file cut short for a whole one."""
    frame = None
    with path.open("rb") as file:
        while data := file.read(_CHUNK):
            while data:
                frame = frame or zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()
                yield frame.decompress(data)
                data = frame.unused_data
                if frame.eof:
                    frame = None
    if frame:
        raise EOFError("the last frame has no end")
