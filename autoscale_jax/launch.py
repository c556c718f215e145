"""`python -m autoscale_jax.launch --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]`.

Exit codes: 0 done; 2 bad input (one line says which field, which value and what to do); 1 the
machine failed (a full disk, say): the same command continues the study.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from autoscale_jax.pipeline import run_study
from autoscale_jax.specs import BadInput

_CONFIG = config_flags.DEFINE_config_file("config", None, "Study config: a file, FILE:ARGUMENT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study's ledger and report.")
flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Run the study that the flags describe."""
    if len(argv) > 1:
        raise BadInput(f"argument {argv[1]!r}: not a flag; overrides look like --config.seed=1")
    config, workdir = _CONFIG.value, Path(str(_WORKDIR.value))
    jax.config.update("jax_compilation_cache_dir", str(workdir / "xla_cache"))
    # without an accelerator, each run that trains at once gets a simulated device of its own
    jax.config.update("jax_num_cpu_devices", int(config.execute.slots))
    run_study(config, workdir)


def _parse(argv: Sequence[str]) -> list[str]:
    """absl's flags; a field that the config does not have becomes one line with the nearest one."""
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        raise BadInput(f"--config: {_one_line(error)}") from error
    except (flags.Error, OSError, ValueError, TypeError) as error:
        raise BadInput(_one_line(error)) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).replace("\\n", " ").split())


def run() -> None:
    """The console entry: turns the two kinds of failure into one line and an exit code."""
    try:
        argv = _parse(sys.argv)
        main(argv)
    except BadInput as error:
        sys.exit(_say(error, 2))
    except OSError as error:
        sys.exit(_say(f"{error}: mend it, then the same command continues", 1))


def _say(error: object, code: int) -> int:
    print(f"autoscale_jax: {_one_line(Exception(error))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    run()
