"""Several processes that train as one: the first decides and writes, the others follow.

All of them run the same programs on the devices of all. What they do next must not depend on clocks
or folders as each of them sees these: the first process tells the others.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

_MEETINGS = itertools.count()  # no two share a name; every process counts the same
LONGEST_WAIT = 7 * 24 * 3600 * 1000  # ms: followers wait while the first process fits and writes


def leads() -> bool:
    """Whether this is the process that writes ledger, report and progress."""
    return jax.process_index() == 0


def from_leader(value: Any) -> Any:
    """The first process's `value`, plain JSON, in every process; all must call it."""
    if jax.process_count() == 1:
        return value
    meet()  # the others wait here, not inside a collective of the devices
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    if not leads():
        data = np.zeros(size, np.uint8)
    return json.loads(multihost_utils.broadcast_one_to_all(data).tobytes())


def whole(tree: Any) -> Any:
    """Arrays that the devices of all processes hold together, as numpy arrays; all must call it."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def meet() -> None:
    """Wait until every process has come here."""
    if jax.process_count() > 1:
        key = f"autoscale_jax_{next(_MEETINGS)}"
        multihost.get_barrier_sync_fn()(key=key, timeout_ms=LONGEST_WAIT)
