"""Seconds from the start of a study to its first training step, and where they go.

    python benchmarks/first_step.py [--json FILE] [--config configs/quickstart.py] [--limit 20]

Fresh processes, each with a new workdir, so that the corpus is prepared as well: one with an empty
cache of compiled programs, then one with what that left. Exits 1 when either takes longer than the
limit. CPU seconds stand beside: on a machine that does other things they say what is ours.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("imports", "corpus", "compilation", "other", "total", "CPU")


def first_step(config: str, workdir: Path, began: float) -> dict[str, float]:
    """In this process: the study up to its first report of progress, which no return survives.

    "compilation" is that of the training program, tracing included; "other" is JAX's start, the
    ledger, initialisation, the measurement of how many runs a program, and the step.
    """
    sys.argv = ["launch", f"--config={config}", f"--workdir={workdir}"]
    from autoscale_jax import launch, pipeline
    from autoscale_jax.train import loop, population

    seconds = dict.fromkeys(PARTS, 0.0) | {"imports": time.time() - began}

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.time()
            try:
                return function(*arguments, **named)
            finally:
                seconds[part] += time.time() - start

        return call

    pipeline.prepare = timed("corpus", pipeline.prepare)
    for module in (population, loop):
        module.make_train_chunk = timed("compilation", module.make_train_chunk)

    def report(*_: Any) -> None:
        seconds["total"] = time.time() - began
        seconds["CPU"] = sum(os.times()[:4])
        known = seconds["imports"] + seconds["corpus"] + seconds["compilation"]
        seconds["other"] = max(0.0, seconds["total"] - known)
        print(json.dumps(seconds), flush=True)
        os._exit(0)

    pipeline.StudyProgress.update = report
    launch.main(sys.argv)
    raise RuntimeError("the study ended without a step")


def measure(config: str, cache: Path) -> dict[str, float]:
    """The parts of a fresh process, seconds."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, __file__, "--config", config, "--within", workdir]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        began = repr(time.time())
        done = subprocess.run(
            [*command, "--began", began], env=environment, stdout=subprocess.PIPE, check=True
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)  # a workdir: one process
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.within:
        first_step(arguments.config, arguments.within, arguments.began)
    with tempfile.TemporaryDirectory() as cache:
        found = {name: measure(arguments.config, Path(cache)) for name in ("cold", "warm")}
    for name, seconds in found.items():
        met = "met" if seconds["total"] < arguments.limit else "missed"
        parts = ", ".join(f"{part} {seconds[part]:.1f}" for part in PARTS)
        print(f"{name} cache: {parts} s (required: total < {arguments.limit:g}: {met})")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    sys.exit(any(seconds["total"] >= arguments.limit for seconds in found.values()))


if __name__ == "__main__":
    main()
