"""DDO and AutoScale on text files of your own.

    python -m autoscale_jax.launch --config=configs/gpt2_ddo.py:local --workdir=workdir/mine \\
        --config.data.domains="{'books': 'data/books*.jsonl.gz', 'web': 'data/web/*.txt'}"

Files are .jsonl, .jsonl.gz or .jsonl.zst with a field "text", or plain text, one document a file.

`local`: a GPT-2 of one layer and 64 dimensions, for a laptop: 5 domains take 34 trainings on 16
million tokens, about 5 minutes on two CPU cores.
"""

from ml_collections import ConfigDict

from autoscale_jax.config import default_config
from autoscale_jax.specs import BadInput


def get_config(variant: str = "local") -> ConfigDict:
    """The study of one variant."""
    if variant != "local":
        raise BadInput(f"--config=...:{variant}: no such variant; there is local")
    config = default_config()
    config.data.source = "files"
    config.execute.slots = 2
    return config
