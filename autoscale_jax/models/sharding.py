"""What a model asks of the mesh it runs on.

Models run on one device, or inside `with jax.set_mesh(mesh)` on a mesh with axes among "data" and
"fsdp", over which the rows of a batch are split, and "tensor", over which heads, MLP and vocabulary
are. Parameters are placed from outside, by `models.logical_axes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

ROWS = ("data", "fsdp")
TENSOR = "tensor"
ALL = (*ROWS, TENSOR)


def _axes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the axes that the mesh in use has and leaves to the compiler."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(name for name in names if name in mesh.auto_axes)


def ways(*names: str) -> int:
    """Into how many parts these mesh axes together split an axis of an array."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in _axes(names))


def spec(*axes: tuple[str, ...]) -> PartitionSpec:
    """For each axis of an array the mesh axes that split it, () for one that stays whole."""
    return PartitionSpec(*(_axes(names) or None for names in axes))


def constrain(x: jax.Array, *axes: tuple[str, ...]) -> jax.Array:
    """`x`, laid out as `spec(*axes)` says."""
    return x if ways(*ALL) == 1 else jax.lax.with_sharding_constraint(x, spec(*axes))


def on_each(over: tuple[str, ...], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Decorator: each device applies the function to what it has of the arguments.

    They are split over the mesh axes `over`; the compiler splits over the others as it likes.
    """

    def decorate(f: Callable[..., Any]) -> Callable[..., Any]:
        if ways(*over) == 1:
            return f
        return jax.shard_map(
            f, in_specs=in_specs, out_specs=out_specs, axis_names={*_axes(over)}, check_vma=False
        )

    return decorate


def platform() -> str:
    """Of the devices that the program will run on: "cpu", "gpu" or "tpu".

    A mesh of described devices, to compile for without having them, knows its own.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()
