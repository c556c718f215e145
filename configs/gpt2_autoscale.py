"""AutoScale: DDO at 0.3B and 0.6B tokens, the best mixture at 3B, for GPT-2 Large.

    bash launch/node.sh --config=configs/gpt2_autoscale.py --workdir=workdir/gpt2_autoscale

Data as for configs/gpt2_ddo.py. 32 proxy trainings on 15.6B tokens; then uniform, the optimum of
the largest budget, the paper's extrapolation, our prediction and LLaMA's weights are trained on 3B
tokens each.

Cost: at least 174 card hours on 8 A100 of 40 GB by the planner (docs/planner.md), 22 h. The paper
reports 15.5 h for 3B tokens there, 124 card hours; at that rate it is 1,265.
Expected at 3B tokens, from the paper (mean perplexity over the domains, worst domain): AutoScale
21.12, 34.2; uniform with 30% more tokens 21.74, 40.3; LLaMA's weights 22.94, 37.4. At 10B tokens
(variant `10b`) AutoScale took 28 to 38% fewer steps.

Variants (FILE:VARIANT): `10b`, verified at 10B tokens. `120m`, the decoder of the paper's Table 5.
`smoke`, the same path with a small model on embedded text, in CPU minutes.
"""

from ml_collections import ConfigDict

from autoscale_jax import paper
from autoscale_jax.config import default_config

BUDGETS = (300_000_000, 600_000_000)
TARGETS = {"10b": 10_000_000_000}


def get_config(variant: str = "paper") -> ConfigDict:
    """The study of one variant."""
    config = default_config()
    target = TARGETS.get(variant, 3_000_000_000)
    config.study.update({"budgets": BUDGETS, "target_tokens": target, "base_seeds": 2})
    mixtures = ("uniform", "keep", "autoscale", "predicted")
    config.verify.update({"mixtures": mixtures, "seeds": 1})
    if variant == "120m":
        paper.doremi_120m(config)
    else:
        paper.gpt2_large(config)
    paper.variant_of(config, variant, ("paper", "10b", "120m", "smoke"), paper.redpajama)
    return config
