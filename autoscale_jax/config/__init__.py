"""The settings of a study: their defaults, their checks, and how a command line changes them."""

from autoscale_jax.config.checks import check_domains, validate
from autoscale_jax.config.command_line import from_flags
from autoscale_jax.config.defaults import default_config

__all__ = ["check_domains", "default_config", "from_flags", "validate"]
