"""The devices of a run as a mesh, and how arrays get onto it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from autoscale_jax.specs import BadInput

# data: rows of a batch, parameters whole; fsdp: rows, and each parameter split; tensor: heads,
# MLP and vocabulary split. The last axis is the innermost: neighbours, within a node.
AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the axes over which the rows of a batch are split


def make_mesh(devices: Sequence[jax.Device], fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Mesh (data, fsdp, tensor) over the given devices; "data" takes what the others leave.

    Raises `BadInput` when fsdp x tensor does not divide the devices.
    """
    if len(devices) % (fsdp * tensor):
        raise BadInput(
            f"config.mesh.fsdp = {fsdp}, config.mesh.tensor = {tensor}: their product must divide "
            f"the {len(devices)} devices of a slot"
        )
    shape = (len(devices) // (fsdp * tensor), fsdp, tensor)
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)


def row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return int(np.prod([mesh.shape[axis] for axis in ROWS]))


def row_block(mesh: Mesh) -> tuple[int, int]:
    """(i, n) where this process's devices hold the i-th of n equal blocks of a batch's rows.

    (0, 1), all rows, where theirs are no such block.
    """
    process_RxT = np.vectorize(lambda device: device.process_index)(mesh.devices)
    return block_of(process_RxT.reshape(row_shards(mesh), -1), jax.process_index())


def block_of(process_RxT: np.ndarray, process: int) -> tuple[int, int]:
    """The same from the processes of the devices that hold each of R parts of the rows."""
    mine = np.flatnonzero((process_RxT == process).any(1))
    first, size, parts = int(mine[0]), len(mine), len(process_RxT)
    whole = mine[-1] - first + 1 == size and first % size == 0 and parts % size == 0
    return (first // size, parts // size) if whole else (0, 1)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh, axis: int) -> NamedSharding:
    """For arrays whose axis `axis` counts the rows of a batch: each device holds its share."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, ROWS))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Numpy arrays, the same in every process, as global arrays: each device gets its part only."""

    def one(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    return jax.tree.map(lambda x: one(np.asarray(x)), tree)


def put_rows(tree: Any, mesh: Mesh, axis: int, blocks: int) -> Any:
    """The same with rows on axis `axis`, from this process's block of `blocks` (`row_block`)."""
    sharding = rows(mesh, axis)
    if blocks == 1:
        return put(tree, sharding)

    def one(x: np.ndarray) -> jax.Array:
        shape = (*x.shape[:axis], x.shape[axis] * blocks, *x.shape[axis + 1 :])
        return jax.make_array_from_process_local_data(sharding, x, shape)

    return jax.tree.map(one, tree)
