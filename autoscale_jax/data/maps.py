"""Flat files of token ids, mapped into memory: many of them, with no file kept open.

A process may have some 1,024 files open and 65,530 maps (Linux, `vm.max_map_count`); a large corpus
has more shards than the first and may have more than the second.
"""

from __future__ import annotations

import collections
import threading
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

MOST = 30_000  # maps of this process at a time; libraries and threads need some of their own


class Holder(Protocol):
    """Keeps numbered maps."""

    def forget(self, k: int) -> None:
        """Lets go of map `k`; whoever reads from it now may finish."""


_lock = threading.Lock()
_held: collections.deque[tuple[weakref.ref[Holder], int]] = collections.deque()


def read_only(path: Path, dtype: np.dtype) -> np.ndarray:
    """The ids in a file that is not empty. The map lives as long as the array.

    numpy's and Python's own maps keep a descriptor each; Arrow's outlive the file that gave them.
    """
    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype)


def hold(holder: Holder, k: int) -> None:
    """Counts map `k` of a holder. Beyond `MOST`, the one counted first is let go.

    In the order of opening, not of use: training reads at random, where both miss equally often,
    and reading from an open map then costs no bookkeeping and takes no lock.
    """
    with _lock:
        _held.append((weakref.ref(holder), k))
        while len(_held) > MOST:
            first, oldest = _held.popleft()
            if (owner := first()) is not None:
                owner.forget(oldest)
