"""MFMS-BO: search mixture, model size and steps together, the best mixture for GPT-2 Large at 3B.

    bash launch/node.sh --config=configs/gpt2_mfms_bo.py --workdir=workdir/gpt2_mfms_bo

Data as for configs/gpt2_ddo.py: RedPajama's seven domains. Proxies are GPT-2 of 30M, 124M and 355M
parameters and the target itself, 774M, for 1,200 to 36,000 steps of 80 x 1,024 tokens: as many as
the FLOPs of four trainings of the target pay for. Then uniform, our prediction and LLaMA's weights
are trained on 3B tokens each. All runs keep a constant rate (the smaller models' after GPT-3's);
the decay of the model to be used comes after the study.

Cost: seven trainings of the target, 1.09e20 FLOPs: at least 119 card hours on 8 A100 of 40 GB by
the planner (docs/planner.md), 15 h. Disk: the last state of each proxy until the study ends, 12
bytes a parameter.
Expected: a mean perplexity below uniform's and LLaMA's. The paper trained no such models: its
figures show 2.6 times fewer FLOPs than Hyperband on a simulator of 20M to 1B parameters.

Variant (FILE:VARIANT): `smoke`, the same path with three small models on embedded text, in CPU
minutes.
"""

from ml_collections import ConfigDict

from autoscale_jax import paper
from autoscale_jax.config import default_config

SIZES = {
    "30m": {"num_layers": 6, "d_model": 384, "num_heads": 6, "peak_lr": 6e-4},
    "124m": {"num_layers": 12, "d_model": 768, "num_heads": 12, "peak_lr": 6e-4},
    "355m": {"num_layers": 24, "d_model": 1024, "num_heads": 16, "peak_lr": 3e-4},
}
SMOKE_SIZES = {
    "d16": {"num_layers": 1, "d_model": 16, "num_heads": 4},
    "d32": {"num_layers": 1, "d_model": 32, "num_heads": 4},
}


def get_config(variant: str = "paper") -> ConfigDict:
    """The study of one variant."""
    config = default_config()
    paper.gpt2_large(config)
    config.train.update({"schedule": "constant", "warmup_ratio": 0.0, "warmup_steps": 300})
    config.study.update({"method": "mfms_bo", "target_tokens": 3_000_000_000})
    config.search.update({"steps": (1_200, 3_600, 12_000, 36_000), "budget": 4.0})
    config.search.sizes = SIZES
    config.verify.update({"mixtures": ("uniform", "predicted"), "seeds": 1})
    paper.variant_of(config, variant, ("paper", "smoke"), paper.redpajama)
    if variant == "smoke":
        config.search.update({"steps": (128, 384, 1152), "sizes": SMOKE_SIZES})
        config.train.update({"warmup_steps": 64, "eval_every_tokens": 8192})
    return config
