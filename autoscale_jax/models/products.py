"""Products with parameters, in the shape that each device's compiler does best."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from autoscale_jax.models import sharding


def dot_general() -> Callable[..., jax.Array]:
    """What dense layers multiply with.

    On a CPU the derived gradient of a kernel is a product and a transposition, and the compiler
    gives that product to a library half as fast as the one it uses otherwise. Asked for as two
    matrices, it takes the fast one: 6% of a small model's step. Axes that "tensor" splits are left
    as they are, since flattening would gather them.
    """
    cpu = sharding.platform() == "cpu" and sharding.ways(sharding.TENSOR) == 1
    return _as_matrices if cpu else jax.lax.dot_general


def _as_matrices(x: jax.Array, kernel: jax.Array, dimensions: Any, **_: Any) -> jax.Array:
    """Contracts the last axes of `x` with the first of `kernel`."""
    count = len(dimensions[0][0])
    rows, features = x.shape[: x.ndim - count], kernel.shape[count:]
    inner = math.prod(kernel.shape[:count])
    return _product(x.reshape(-1, inner), kernel.reshape(inner, -1)).reshape(*rows, *features)


@jax.custom_vjp
def _product(x_RxI: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
    return x_RxI @ kernel_IxO


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Any]:
    return x @ kernel, (x, kernel)


def _product_backward(factors: Any, g_RxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_RxI, kernel_IxO = factors
    return g_RxO @ kernel_IxO.T, x_RxI.T @ g_RxO


_product.defvjp(_product_forward, _product_backward)
