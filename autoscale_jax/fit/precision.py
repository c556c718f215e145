"""Float64 for the fits only: the training in the same process stays in its own precision."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np

from autoscale_jax.specs import BadInput

F = TypeVar("F", bound=Callable[..., Any])


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """Float64 arithmetic on the local CPU: three-point fits do not converge in float32."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        # Accelerators have no fast float64, and these problems are a few kilobytes.
        with contextlib.suppress(RuntimeError):  # a process started without the CPU backend
            stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        yield


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is abstract: the caller is inside jit, vmap or grad."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def float64(function: F) -> F:
    """Run `function` in float64 and hand back numpy arrays; inside a trace, run it as it is.

    Raises:
      BadInput: inside a trace without float64, where the result would be silently wrong.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if is_traced(args, kwargs):
            if jax.dtypes.canonicalize_dtype(np.float64) != np.float64:
                raise BadInput(
                    f"{function.__name__} inside jit or vmap needs float64: "
                    "wrap the call in `with jax.enable_x64(True):`"
                )
            return function(*args, **kwargs)
        with scope():
            out = function(*args, **kwargs)
            return jax.tree.map(_to_numpy, out)

    return wrapped  # type: ignore[return-value]


def _to_numpy(leaf: Any) -> Any:
    return np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf
