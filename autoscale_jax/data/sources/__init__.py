"""Documents from where they lie: JSON lines, Parquet, TensorFlow Datasets, plain text.

Each source is cut into units, and the documents of a unit are read by random access.
"""

from autoscale_jax.data.sources.documents import Documents, dataset, units_of
from autoscale_jax.data.sources.spec import Source, parse
from autoscale_jax.data.sources.unit import Unit, identity_hash

__all__ = ["Documents", "Source", "Unit", "dataset", "identity_hash", "parse", "units_of"]
