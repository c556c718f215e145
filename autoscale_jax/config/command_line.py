"""The config that a command line asks for."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from autoscale_jax.specs import BadInput


def from_flags(values: flags.FlagValues, argv: Sequence[str]) -> ConfigDict:
    """The config that the flag "config" of `values` gives, locked.

    Raises `BadInput` for anything that absl or the config file refuses.
    """
    try:
        rest = values(argv)[1:]
        config = values.config
        config.lock()  # a file that did not load fails at its first use: here
    except BadInput:
        raise
    except (flags.Error, AttributeError, KeyError, OSError, ValueError, TypeError) as error:
        raise BadInput(f"--config: {error}") from error
    if rest:
        raise BadInput(f"argument {rest[0]!r}: not a flag; overrides look like --config.seed=1")
    return config
