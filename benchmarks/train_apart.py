"""Measurements in processes of their own: none finds what another left behind, and one that fails
(out of memory, say) does not end the others.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def apart(
    measure: Callable[[Any], dict[str, Any]], given: Any, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What `measure(given)` returns, or {"failed": why}; its traceback goes to stderr.

    environment: variables of that process; what XLA_FLAGS says already stays.
    """
    before = dict(os.environ)
    for name, value in environment.items():
        kept = before.get(name, "") if name == "XLA_FLAGS" else ""
        os.environ[name] = f"{kept} {value}".strip()
    spawn = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
            return process.submit(_caught, measure, given).result()
    except concurrent.futures.BrokenExecutor as error:  # killed, or ended by a library
        return {"failed": f"the process ended ({error})"}
    finally:
        os.environ.clear()
        os.environ.update(before)


def _caught(measure: Callable[[Any], dict[str, Any]], given: Any) -> dict[str, Any]:
    try:
        return measure(given)
    except Exception as error:  # whatever it is: it is reported, and the others go on
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
