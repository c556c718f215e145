"""The file behind a RunTable: one checksummed JSON record a line, appended durably by one process.

A line is `{"v": 1, "sum": <16 hex digits of the SHA-256 of run>, "run": {...}}`. Numbers that are
not finite are written as null, so that every line is plain JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscale_jax.specs import BadInput, CurvePoint, Run, RunSpec

VERSION = 1


def plain(run: Run) -> Run:
    """The run as its record gives it back: plain types, names sorted, numbers finite or NaN.

    A table holds runs in this form, so that a resumed study computes with the very same numbers,
    in the same order, as an uninterrupted one. An "ok" run with a loss that is not finite diverged.
    """
    loss = _floats(run.loss)
    bad = [f"loss of {name} is {run.loss[name]}" for name in loss if math.isnan(loss[name])]
    diverged = run.status == "ok" and bool(bad)
    return dataclasses.replace(
        run,
        status="diverged" if diverged else run.status,
        message="; ".join([*([run.message] if run.message else []), *bad])
        if diverged
        else run.message,
        loss=loss,
        realised={name: int(run.realised[name]) for name in sorted(run.realised)},
        epochs=_floats(run.epochs),
        curve=tuple(CurvePoint(int(point.tokens), _floats(point.loss)) for point in run.curve),
        flops=_finite(run.flops),
        seconds=_finite(run.seconds),
        data={name: run.data[name] for name in sorted(run.data)},
    )


def encode(run: Run) -> bytes:
    """One line of the ledger, newline included."""
    spec = run.spec
    text = _canonical(
        {
            "spec": spec.identity() | {"seed": int(spec.seed), "label": spec.label},
            "key": run.key,
            "status": run.status,
            "loss": _nulls(run.loss),
            "realised": dict(run.realised),
            "epochs": _nulls(run.epochs),
            "curve": [[point.tokens, _nulls(point.loss)] for point in run.curve],
            "flops": _null(run.flops),
            "seconds": _null(run.seconds),
            "message": run.message,
        }
        | ({"data": dict(run.data)} if run.data else {})
    )
    return f'{{"v":{VERSION},"sum":"{_checksum(text)}","run":{text}}}\n'.encode()


def decode(line: bytes) -> Run:
    """The run of one line. Raises `ValueError` with the reason when the line is damaged."""
    try:
        record = json.loads(line)
        version = record["v"]
        if version != VERSION:
            raise ValueError(f"record version {version!r}, this program knows {VERSION}")
        if _checksum(_canonical(record["run"])) != record["sum"]:
            raise ValueError("checksum does not match")
        row = record["run"]
        return Run(
            spec=RunSpec(**row["spec"]),
            key=row["key"],
            status=row["status"],
            loss=_numbers(row["loss"]),
            realised=row["realised"],
            epochs=_numbers(row["epochs"]),
            curve=tuple(CurvePoint(n, _numbers(loss)) for n, loss in row["curve"]),
            flops=_number(row["flops"]),
            seconds=_number(row["seconds"]),
            message=row["message"],
            data=row.get("data", {}),  # lines from before it was recorded lack it
        )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError("not JSON") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not a record of a run") from error


class Ledger:
    """The open file. `records` holds (line number, run) as found; `notes` what was odd about it.

    Opened with `write`, the file is created when missing and locked: the lock ends with the
    process, however it ends. Raises `BadInput` when the folder is missing, the file cannot be
    opened, another process holds the lock, or a line other than an unfinished last one is damaged.
    """

    def __init__(self, path: Path, write: bool) -> None:
        self.path = path
        self.notes: list[str] = []
        self._close: weakref.finalize | None = None
        self._fd = self._open(write)
        self._cut: int | None = None  # length to go back to before the next record is appended
        self._lead = b""  # the newline that the last record lacks
        try:
            self.records = self._read()
        except BaseException:
            self.close()
            raise

    def append(self, run: Run) -> None:
        """Adds one record durably, or leaves the file as it was and raises the `OSError`."""
        if self._close is None or not self._close.alive:
            raise RuntimeError(f"{self.path} is not open for adding runs in this process")
        if os.fstat(self._fd).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "ledger was deleted while in use", str(self.path))
        data = self._lead + encode(run)
        size = os.fstat(self._fd).st_size if self._cut is None else self._cut
        try:
            if self._cut is not None:
                os.ftruncate(self._fd, size)
            done = os.write(self._fd, data)
            while done < len(data):  # a short write: the next one tells why, e.g. no space left
                more = os.write(self._fd, data[done:])
                if more == 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += more
            os.fsync(self._fd)
        except BaseException as error:
            if isinstance(error, OSError):
                error.filename = str(self.path)
            self._cut = size
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
                self._cut = None
            raise
        self._lead, self._cut = b"", None

    def close(self) -> None:
        """Releases the lock and the file. A second call does nothing."""
        if self._close is not None:
            self._close()

    def _open(self, write: bool) -> int:
        if not self.path.parent.is_dir():
            raise BadInput(f"{self.path}: no folder {self.path.parent}: create it first")
        if not write:
            return -1
        new = not self.path.exists()
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}: choose another workdir") from error
        self._close = weakref.finalize(self, os.close, fd)
        _OPEN.add(self)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise BadInput(
                f"{self.path}: another process is adding runs to this ledger: wait until it ends, "
                "or choose another workdir"
            ) from None
        except OSError as error:  # some network file systems have no locks
            self.notes.append(
                f"{self.path.name} is not locked ({error.strerror}): start no second "
                "study in this workdir"
            )
        if new:
            _sync_folder(self.path.parent)
        return fd

    def _read(self) -> list[tuple[int, Run]]:
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise BadInput(f"{self.path}: {error.strerror}: give the path of a ledger") from error
        *lines, rest = data.split(b"\n")
        records = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                records.append((number, decode(line)))
            except ValueError as error:
                raise BadInput(
                    f"{self.path} line {number}: {error}: restore the line from a copy, or delete "
                    "it and its run is trained again"
                ) from error
        if rest:
            try:
                records.append((len(lines) + 1, decode(rest)))
                self._lead = b"\n"
            except ValueError:
                self._cut = len(data) - len(rest)
                self.notes.append(
                    f"last line of {self.path.name} was cut short by a crash: "
                    "recovered by dropping it"
                )
        return records


# A forked child shares the lock of its parent: it would outlive a killed parent and shut out the
# resumed study, so children let go of it.
_OPEN: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _close_in_child() -> None:
    for ledger in list(_OPEN):
        ledger.close()


os.register_at_fork(after_in_child=_close_in_child)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can sync a folder
            os.fsync(fd)
    finally:
        os.close(fd)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _finite(x: float) -> float:
    return float(x) if math.isfinite(x) else math.nan


def _floats(values: Mapping[str, float]) -> dict[str, float]:
    return {name: _finite(values[name]) for name in sorted(values)}


def _null(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _nulls(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _null(x) for name, x in values.items()}


def _number(x: float | None) -> float:
    return math.nan if x is None else x


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(x) for name, x in values.items()}
