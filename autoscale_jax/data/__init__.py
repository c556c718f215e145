"""Documents -> tokens -> batches of an exact mixture."""

from autoscale_jax.data.corpus import DEFAULTS, Corpus, prepare
from autoscale_jax.data.embedded import embedded_documents
from autoscale_jax.data.mix import (
    batches,
    check_supply,
    eval_batches,
    order,
    quota,
    realised,
    supply,
)

__all__ = [
    "DEFAULTS",
    "Corpus",
    "batches",
    "check_supply",
    "embedded_documents",
    "eval_batches",
    "order",
    "prepare",
    "quota",
    "realised",
    "supply",
]
