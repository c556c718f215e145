"""What to do when a device has no memory left."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import jax

SAID = ("RESOURCE_EXHAUSTED", "Out of memory")  # by accelerators; by CPUs


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether a program did not compile or run because a device has no room for it."""
    return any(words in str(error) for words in SAID)


@contextlib.contextmanager
def told_what_to_do() -> Iterator[None]:
    """Turns an allocation that failed on a device into an `OSError` that names the remedies."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            errno.ENOMEM,
            f"a device is out of memory ({reason}): recompute activations "
            "(config.model.remat='full'), split steps (config.train.accumulation), split the model "
            "(config.mesh.fsdp) or train fewer runs at once (config.execute.population)",
        ) from error
