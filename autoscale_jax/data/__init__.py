"""Documents -> tokens -> batches of an exact mixture."""

from autoscale_jax.data.corpus import Corpus, open_corpus, prepare
from autoscale_jax.data.embedded import embedded_documents
from autoscale_jax.data.mix import batches, eval_batches
from autoscale_jax.data.order import Order
from autoscale_jax.data.quotas import check_supply, quota, realised, supply
from autoscale_jax.data.settings import DEFAULTS
from autoscale_jax.data.trunk import GRID, trunk_of
from autoscale_jax.data.vocabulary import most_tokens

__all__ = [
    "DEFAULTS",
    "GRID",
    "Corpus",
    "Order",
    "batches",
    "check_supply",
    "embedded_documents",
    "eval_batches",
    "most_tokens",
    "open_corpus",
    "prepare",
    "quota",
    "realised",
    "supply",
    "trunk_of",
]
