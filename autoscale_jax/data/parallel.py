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
_SERIAL_BYTES = 64 << 20  # below this, starting processes costs more than it gives


def worker_count(workers: int, total_bytes: int) -> int:
    """`workers`, or for 0 the cores of this machine where there is work for them."""
    return workers or ((os.cpu_count() or 1) if total_bytes > _SERIAL_BYTES else 1)


class Workers:
    """Processes that share tasks; with one, all happens here. A context manager.

    They end with this process, even when it is killed.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: concurrent.futures.ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[tuple[int, R]]:
        """(which task, its result) as they are done; the first error stops the rest."""
        if self._count == 1 or len(tasks) < 2:
            yield from ((i, function(task)) for i, task in enumerate(tasks))
            return
        if self._pool is None:
            self._pool = concurrent.futures.ProcessPoolExecutor(
                min(self._count, len(tasks)),
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_end_with_parent,
            )
        futures = {self._pool.submit(function, task): i for i, task in enumerate(tasks)}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Progress:
    """Lines like `tokenise: 3.1 of 10.0 GB, 12/40 parts, 45 MB/s, 2 min left`."""

    def __init__(self, say: Callable[[str], Any] | None, every_seconds: float = 2.0) -> None:
        self._say, self._every = say, every_seconds

    def watch(
        self, label: str, results: Iterator[tuple[int, R]], sizes: Sequence[int]
    ) -> Iterator[tuple[int, R]]:
        """The results as they come, each reported with the bytes that its task read."""
        start = last = time.monotonic()
        done, total = 0, sum(sizes)
        for n, (i, result) in enumerate(results, start=1):
            done += sizes[i]
            now = time.monotonic()
            if self._say and total and (now - last >= self._every or n == len(sizes)):
                last = now
                rate = done / max(now - start, 1e-9)
                self._say(
                    f"{label}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {n}/{len(sizes)} parts, "
                    f"{rate / 1e6:.0f} MB/s, {_duration((total - done) / max(rate, 1e-9))} left"
                )
            yield i, result


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
