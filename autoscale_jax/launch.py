"""`python -m autoscale_jax.launch --config=FILE --workdir=DIR [--config.FIELD=VALUE ...]`.

Exit codes: 0 done; 2 bad input (one line says which field, which value and what to do); 1 the
machine failed (a full disk, say): the same command continues the study.

Several processes train as one when each is started with the same command, a folder that all share
as workdir and `--coordinator=auto` (on SLURM, TPU pods and Kubernetes), or elsewhere with
`--coordinator=HOST:PORT --num_processes=N --process_id=I`. The first one writes the study; when one
fails, all end within two minutes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

from autoscale_jax import config as configs
from autoscale_jax.pipeline import follow_study, run_study
from autoscale_jax.specs import BadInput
from autoscale_jax.train import processes
from autoscale_jax.workdir import local

config_flags.DEFINE_config_file("config", None, "Study config: a file, FILE:ARGUMENT.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study's ledger and report.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, or auto.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes train as one.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")
flags.mark_flags_as_required(["config", "workdir"])


def read_flags(argv: Sequence[str]) -> tuple[ConfigDict, Path]:
    """Config and workdir. Raises `BadInput` for anything absl or the config file refuses."""
    return configs.from_flags(flags.FLAGS, argv), local("--workdir", str(_WORKDIR.value))


def main(argv: Sequence[str]) -> None:
    """Run the study that the flags describe."""
    config, workdir = read_flags(argv)
    set_up_jax(config)
    if processes.leads():
        run_study(config, workdir)
    else:
        follow_study(config, workdir)


def set_up_jax(config: ConfigDict) -> None:
    """Cache of compiled programs, simulated devices, and the other processes, if any."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "autoscale_jax" / "xla"))
    # small models' programs compile within the second below which JAX would not keep them
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    # without an accelerator, each slot gets as many simulated devices as its mesh needs
    devices = int(config.execute.slots * config.mesh.fsdp * config.mesh.tensor)
    jax.config.update("jax_num_cpu_devices", max(1, devices // (_NUM_PROCESSES.value or 1)))
    if _COORDINATOR.value is None:
        return
    address = None if _COORDINATOR.value == "auto" else _COORDINATOR.value
    try:
        jax.distributed.initialize(address, _NUM_PROCESSES.value, _PROCESS_ID.value)
    except ValueError as error:
        remedy = "give HOST:PORT with --num_processes and --process_id"
        raise BadInput(f"--coordinator = {_COORDINATOR.value}: {error}; {remedy}") from error


def _one_line(error: object) -> str:
    return " ".join(str(error).replace("\\n", " ").split())


def run() -> None:
    """The console entry: turns the two kinds of failure into one line and an exit code."""
    try:
        main(sys.argv)
    except BadInput as error:
        code = _say(error, 2)
    except OSError as error:
        code = _say(f"{error}: mend it, then the same command continues", 1)
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized():
            raise
        code = _say(f"another process failed: {str(error)[:300]}", 1)
    else:
        return
    if code == 2 and not jax.distributed.is_initialized():
        sys.exit(code)
    os._exit(code)  # without waiting for other processes, or for writers whose disk is full


def _say(error: object, code: int) -> int:
    print(f"autoscale_jax: {_one_line(error)}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    run()
