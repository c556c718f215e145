"""The table of runs: in memory, as an append-only ledger on disk, and as CSV in two layouts."""

from autoscale_jax.runs.table import RunTable

__all__ = ["RunTable"]
