"""`python -m autoscale_jax.launch --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]`.

Exit codes: 0 done; 2 bad input (one line says which field, which value and what to do); 1 the
machine failed (a full disk, say): the same command continues the study.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from autoscale_jax.pipeline import run_study
from autoscale_jax.specs import BadInput

_CONFIG = config_flags.DEFINE_config_file("config", None, "Study config: a file, FILE:ARGUMENT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study's ledger and report.")
flags.mark_flags_as_required(["config", "workdir"])


def read_flags(argv: Sequence[str]) -> tuple[ConfigDict, Path]:
    """Config and workdir. Raises `BadInput` for anything absl or the config file refuses."""
    try:
        rest = flags.FLAGS(argv)[1:]
        config = _CONFIG.value
        config.lock()  # a file that did not load fails at its first use: here
    except BadInput:
        raise
    except (flags.Error, AttributeError, KeyError, OSError, ValueError, TypeError) as error:
        raise BadInput(f"--config: {error}") from error
    if rest:
        raise BadInput(f"argument {rest[0]!r}: not a flag; overrides look like --config.seed=1")
    return config, Path(str(_WORKDIR.value))


def main(argv: Sequence[str]) -> None:
    """Run the study that the flags describe."""
    config, workdir = read_flags(argv)
    jax.config.update("jax_compilation_cache_dir", str(workdir / "xla_cache"))
    # without an accelerator, each run that trains at once gets a simulated device of its own
    jax.config.update("jax_num_cpu_devices", int(config.execute.slots))
    run_study(config, workdir)


def _one_line(error: object) -> str:
    return " ".join(str(error).replace("\\n", " ").split())


def run() -> None:
    """The console entry: turns the two kinds of failure into one line and an exit code."""
    try:
        main(sys.argv)
    except BadInput as error:
        sys.exit(_say(error, 2))
    except OSError as error:
        code = _say(f"{error}: mend it, then the same command continues", 1)
        os._exit(code)  # without the complaints of writers whose disk is full


def _say(error: object, code: int) -> int:
    print(f"autoscale_jax: {_one_line(error)}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    run()
