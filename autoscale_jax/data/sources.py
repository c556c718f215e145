"""Documents from files: JSON lines (.jsonl, .jsonl.gz, .jsonl.zst; field `text`) and plain text."""

from __future__ import annotations

import glob
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import zstandard

from autoscale_jax.specs import BadInput

_JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def find(globs: Mapping[str, str]) -> dict[str, list[Path]]:
    """Files of each domain, sorted. No file may belong to two domains."""
    files: dict[str, list[Path]] = {}
    owner: dict[Path, str] = {}
    for name, pattern in globs.items():
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
            warnings.append(f"domain {name!r}: skipped {len(bad)} bad lines, first {bad[0]}")
        if not out[name]:
            raise BadInput(f"data.domains.{name}: no text in {len(paths)} files, first {paths[0]}")
    return out, warnings


def _read(path: Path) -> Iterator[str | BadInput]:
    """Texts of one file; what cannot be read comes as the error it would be."""
    if not path.name.endswith(_JSON_SUFFIXES):
        try:
            yield path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as e:
            yield BadInput(f"{path}: not UTF-8 at byte {e.start}; {_SKIP}")
        return
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _text_of(line, f"{path}:{number}")
    except (EOFError, gzip.BadGzipFile, zstandard.ZstdError) as e:
        yield BadInput(f"{path}:{number + 1}: damaged or cut-short compression ({e}); {_SKIP}")


_SKIP = "repair it or set data.on_bad_line='skip'"


def _text_of(line: bytes, where: str) -> str | BadInput:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as e:
        return BadInput(f"{where}: not UTF-8 at byte {e.start} of the line; {_SKIP}")
    except json.JSONDecodeError as e:
        return BadInput(f"{where}: not JSON ({e}); {_SKIP}")
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        return BadInput(f"{where}: no field 'text' with a string; {_SKIP}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return BadInput(f"{where}: field 'text' holds half a surrogate pair; {_SKIP}")
    return text


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    if path.suffix == ".zst":
        return io.BufferedReader(zstandard.open(path, "rb"))
    return path.open("rb")
