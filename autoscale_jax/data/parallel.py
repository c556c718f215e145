"""Many tasks on the cores of this machine, with progress and an ETA."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
Report = Callable[[int], Any]  # takes how many bytes were read since it was last called
_SERIAL_BYTES = 64 << 20  # below this, starting processes costs more than it gives
_REPORT_BYTES = 1 << 20


def worker_count(workers: int, total_bytes: int) -> int:
    """`workers`, or for 0 the cores of this machine where there is work for them."""
    return workers or ((os.cpu_count() or 1) if total_bytes > _SERIAL_BYTES else 1)


class Reading:
    """How far one task has read, reported a megabyte or more at a time."""

    def __init__(self, report: Report) -> None:
        self._report, self._reported = report, 0

    def at(self, read: int) -> None:
        """`read` bytes of the task are done."""
        if read - self._reported >= _REPORT_BYTES:
            self.end(read)

    def end(self, total: int) -> None:
        """All `total` bytes are done."""
        self._report(total - self._reported)
        self._reported = total


class Meter:
    """Lines like `tokenise: 3.10 of 10.00 GB, 12/40 parts, 45 MB/s, 2 min left`.

    `found` of the `parts` and `found_bytes` of the `total` bytes were there before: they count as
    done and say nothing about the rate. At most a line every few seconds, and one at the end.
    """

    def __init__(
        self,
        line: Callable[[str], Any] | None,
        label: str,
        sizes: Sequence[int],
        found: Sequence[int] = (),
        every_seconds: float = 2.0,
    ) -> None:
        self._line, self._label, self._every = line, label, every_seconds
        self._parts = len(found) + len(sizes)
        self._done, self._found = len(found), sum(found)
        self._total = self._found + sum(sizes)
        self._read = 0
        self._start = self._last = time.monotonic()

    def read(self, more: int) -> None:
        """`more` bytes were read."""
        self._read += more
        if more and time.monotonic() - self._last >= self._every:
            self._say()

    def end(self) -> None:
        """A task is done."""
        self._done += 1
        if self._done == self._parts or time.monotonic() - self._last >= self._every:
            self._say()

    def _say(self) -> None:
        if self._line is None or not self._total:
            return
        self._last = time.monotonic()
        rate = self._read / max(self._last - self._start, 1e-9)
        done = self._found + self._read
        left = _duration((self._total - done) / rate) if rate else "unknown time"
        self._line(
            f"{self._label}: {done / 1e9:.2f} of {self._total / 1e9:.2f} GB,"
            f" {self._done}/{self._parts} parts, {rate / 1e6:.0f} MB/s, {left} left"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Workers:
    """Processes that share tasks; with one, all happens here. A context manager.

    They end with this process, even when it is killed.
    """

    def __init__(self, count: int, poll_seconds: float = 0.5) -> None:
        self._count, self._poll = count, poll_seconds
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None
        self._context = multiprocessing.get_context("spawn")
        self._read: Any = None  # bytes that all tasks of the pool have read, once there is one
        self._taken = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self, function: Callable[[T, Report], R], tasks: Sequence[T], meter: Meter
    ) -> Iterator[tuple[int, R]]:
        """(which task, its result) as they are done; the first error stops the rest.

        A task reports the bytes that it reads to the function it gets.
        """
        if self._count == 1 or len(tasks) < 2:
            for i, task in enumerate(tasks):
                result = function(task, meter.read)
                meter.end()
                yield i, result
            return
        pool = self._started()
        futures = {pool.submit(_reporting, function, task): i for i, task in enumerate(tasks)}
        waiting = set(futures)
        while waiting:
            done, waiting = concurrent.futures.wait(
                waiting, self._poll, concurrent.futures.FIRST_COMPLETED
            )
            read = self._read.value
            meter.read(read - self._taken)
            self._taken = read
            for future in done:
                meter.end()
                yield futures[future], future.result()

    def _started(self) -> concurrent.futures.ProcessPoolExecutor:
        if self._pool is None:
            self._read = self._context.Value("q", 0)
            self._pool = concurrent.futures.ProcessPoolExecutor(
                self._count,
                mp_context=self._context,
                initializer=_begin_worker,
                initargs=(self._read,),
            )
        return self._pool


_worker_read: Any = None  # in a worker: the counter that it shares with its parent


def _begin_worker(read: Any) -> None:
    global _worker_read
    _worker_read = read
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reporting(function: Callable[[T, Report], R], task: T) -> R:
    return function(task, _count)


def _count(more: int) -> None:
    with _worker_read.get_lock():
        _worker_read.value += more
