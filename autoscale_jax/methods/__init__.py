"""Ways to find a mixture: each asks for runs, then proposes weights from the table of runs."""

from autoscale_jax.methods.asha import ASHA
from autoscale_jax.methods.autoscale import AutoScale
from autoscale_jax.methods.base import Method
from autoscale_jax.methods.corner_probe import CornerProbe
from autoscale_jax.methods.ddo import DDO
from autoscale_jax.methods.grid_search import GridSearch
from autoscale_jax.methods.hyperband import Hyperband
from autoscale_jax.methods.mfms_bo import MFMSBO
from autoscale_jax.methods.random_search import RandomSearch

__all__ = [
    "ASHA",
    "DDO",
    "MFMSBO",
    "AutoScale",
    "CornerProbe",
    "GridSearch",
    "Hyperband",
    "Method",
    "RandomSearch",
]
