"""DDO (AutoScale, Algorithm 1): the best mixture at one token budget, for BERT base.

    bash launch/node.sh --config=configs/bert_ddo.py --workdir=workdir/bert_ddo

Data: Amazon reviews, arXiv, books (PG-19) and Wikipedia from TensorFlow Datasets, prepared with
--file_format=array_record; OpenWebText, which is not among these, as Parquet files with a field
"text" in data/openwebtext; and BERT's tokenizer.json in data/bert. At 0.25B tokens (1 GB of
text): a uniform base run with two seeds, each domain's tokens times and by 3, and three mixtures
trained at the same budget: 15 trainings, 4.1B tokens.

Cost: at least 3.3 card hours on 4 A100 of 40 GB by the planner (docs/planner.md), 0.8 h.
Expected: a mean perplexity of masked tokens below uniform's at the same budget. The paper's figures
are for larger ones: see configs/bert_autoscale.py.

Variant (FILE:VARIANT): `smoke`, the same path with a small model on embedded text, in CPU minutes.
"""

from ml_collections import ConfigDict

from autoscale_jax import paper
from autoscale_jax.config import default_config

BUDGET = 250_000_000


def get_config(variant: str = "paper") -> ConfigDict:
    """The study of one variant."""
    config = default_config()
    config.study.update({"method": "ddo", "budgets": (BUDGET,), "target_tokens": BUDGET})
    config.study.base_seeds = 2
    config.verify.update({"mixtures": ("uniform", "natural", "predicted"), "seeds": 1})
    paper.bert_base(config)
    paper.variant_of(config, variant, ("paper", "smoke"), paper.bert_corpora)
    return config
