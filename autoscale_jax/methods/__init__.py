"""Ways to find a mixture: each asks for runs, then proposes weights from the table of runs."""

from autoscale_jax.methods.autoscale import AutoScale
from autoscale_jax.methods.base import Method
from autoscale_jax.methods.ddo import DDO

__all__ = ["DDO", "AutoScale", "Method"]
