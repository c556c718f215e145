"""Where a run's arrays live: a mesh over its devices, batch rows split, parameters replicated."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """One-axis mesh ("data") over the given devices."""
    return Mesh(np.asarray(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_rows(mesh: Mesh) -> NamedSharding:
    """For arrays [steps, batch, ...]: each device holds its share of every batch."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))
