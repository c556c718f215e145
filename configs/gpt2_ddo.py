"""DDO (AutoScale, Algorithm 1): the best mixture at one token budget, for GPT-2 Large.

    bash launch/node.sh --config=configs/gpt2_ddo.py --workdir=workdir/gpt2_ddo

Data: SlimPajama's files in data/slimpajama/train, GPT-2's tokenizer.json in data/gpt2. At 0.3B
tokens: a uniform base run with two seeds, the tokens of each of RedPajama's seven domains times and
by 3, and four mixtures trained at the same budget: 20 trainings, 6.4B tokens.

Cost: at least 36 card hours on 8 A100 of 40 GB by the planner (docs/planner.md), 4.6 h. The paper
reports 15.5 h for 3B tokens there, 124 card hours; at that rate it is 264.
Expected: a mean perplexity below uniform's and LLaMA's at the same budget. The paper's figures are
for 3B tokens: see configs/gpt2_autoscale.py.

Variants (FILE:VARIANT): `redpajama`, from RedPajama-Data-1T's folders in data/redpajama, of
Wikipedia the English articles alone as in the paper (SlimPajama does not say the language);
`120m`, the decoder of the paper's Table 5 in place of GPT-2 Large; `smoke`, the same path with a
small model on embedded text, in CPU minutes; `local`, a small model on text files of
your own, extrapolated: 5 domains take 34 trainings on 16 million tokens, minutes:

    python -m autoscale_jax.launch --config=configs/gpt2_ddo.py:local --workdir=workdir/mine \\
        --config.data.domains="{'books': 'data/books*.jsonl.gz', 'web': 'data/web/*.txt'}"

files are .jsonl or .json, also .gz or .zst, with a field "text" a line, or plain text, one document
a file.
"""

from ml_collections import ConfigDict

from autoscale_jax import paper
from autoscale_jax.config import default_config

BUDGET = 300_000_000


def get_config(variant: str = "paper") -> ConfigDict:
    """The study of one variant."""
    config = default_config()
    if variant == "local":
        config.data.source = "files"
        config.execute.slots = 2
        return config
    config.study.update({"method": "ddo", "budgets": (BUDGET,), "target_tokens": BUDGET})
    config.study.base_seeds = 2
    config.verify.update({"mixtures": ("uniform", "natural", "predicted"), "seeds": 1})
    if variant == "120m":
        paper.doremi_120m(config)
    else:
        paper.gpt2_large(config)
    as_published = variant == "redpajama"
    corpora = paper.redpajama_as_published if as_published else paper.redpajama
    variants = ("paper", "redpajama", "120m", "smoke", "local")
    paper.variant_of(config, variant, variants, corpora)
    return config
