"""The whole way on a laptop: embedded corpus, two proxy scales, extrapolation, verification.

    bash launch/quickstart.sh
    python -m autoscale_jax.launch --config=configs/quickstart.py --workdir=workdir/quickstart

34 small trainings, 16 million tokens: about 5 minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from autoscale_jax.config import default_config


def get_config() -> ConfigDict:
    """The defaults, two runs at a time."""
    config = default_config()
    config.execute.slots = 2
    return config
