"""`python -m autoscale_jax.data.prepare --config=FILE --cache=DIR [--config.data.FIELD=VALUE ...]`.

Prepares the corpus of a study ahead of it: give `WORKDIR/corpus` as the cache, or any folder
whose `domain-*` folders other studies then name as sources. Killed at any moment, the same command
continues. Exit codes: 0 done; 2 bad input; 1 the machine failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from autoscale_jax.config import from_flags
from autoscale_jax.data import corpus
from autoscale_jax.specs import BadInput
from autoscale_jax.workdir import local


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> None:
    """Prepares what the flags describe and prints the table of its domains."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Study config: a file, FILE:ARGUMENT.", flag_values=values
    )
    flags.DEFINE_string("cache", None, "Folder of the prepared corpora.", flag_values=values)
    flags.DEFINE_integer("workers", 0, "Processes; 0 = one a core.", flag_values=values)
    flags.mark_flags_as_required(["config", "cache"], flag_values=values)
    data = from_flags(values, argv).data.to_dict()
    prepared = corpus.prepare(data, local("--cache", values.cache), values.workers, _say)
    print(prepared.summary())


def run() -> None:
    """The console entry: turns failures into one line and an exit code."""
    try:
        main(sys.argv)
    except BadInput as error:
        _say(f"autoscale_jax: {' '.join(str(error).split())}")
        sys.exit(2)
    except OSError as error:
        _say(f"autoscale_jax: {error}: mend it, then the same command continues")
        sys.exit(1)


if __name__ == "__main__":
    run()
