"""AutoScale: DDO at 0.25B and 0.5B tokens, the best mixture at 288,000 steps, for BERT base.

    bash launch/node.sh --config=configs/bert_autoscale.py --workdir=workdir/bert_autoscale

Data as for configs/bert_ddo.py. 24 proxy trainings on 10B tokens; then uniform, the optimum of the
largest budget, the paper's extrapolation and our prediction are trained for 288,000 steps of 48 x
300 tokens each, 4.15B tokens.

Cost: at least 22 card hours on 4 A100 of 40 GB by the planner (docs/planner.md), 5.4 h.
Expected, from the paper: 28% of uniform's steps saved at 18,000 steps, 14% from 36,000 (variant
`36k`) to 144,000, and 10% as printed at 288,000 (20,000 steps, which are 7%).

Variants (FILE:VARIANT): `36k`, verified at 36,000 steps. `smoke`, the same path with a small model
on embedded text, in CPU minutes.
"""

from ml_collections import ConfigDict

from autoscale_jax import paper
from autoscale_jax.config import default_config

BUDGETS = (250_000_000, 500_000_000)
STEPS = {"36k": 36_000}


def get_config(variant: str = "paper") -> ConfigDict:
    """The study of one variant."""
    config = default_config()
    paper.bert_base(config)
    step_tokens = config.train.batch_size * config.model.seq_len
    target = STEPS.get(variant, 288_000) * step_tokens
    config.study.update({"budgets": BUDGETS, "target_tokens": target, "base_seeds": 2})
    mixtures = ("uniform", "keep", "autoscale", "predicted")
    config.verify.update({"mixtures": mixtures, "seeds": 1})
    paper.variant_of(config, variant, ("paper", "36k", "smoke"), paper.bert_corpora)
    return config
