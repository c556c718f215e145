"""Cross-entropy straight from the last states, a piece of the length at a time.

A large vocabulary's logits would be the largest array of a training step: B x L x V in float32 is
197 MiB for each row of GPT-2. Here a device never holds more than `CHUNK` of them, forward or
backward: the backward pass computes each piece anew.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from autoscale_jax.models import sharding
from autoscale_jax.models.sharding import ROWS, TENSOR

CHUNK = 2**26  # logits on a device at a time: 256 MiB


@jax.named_scope("cross_entropy")  # as profiles show it
def cross_entropy(
    x_BxLxD: jax.Array,
    head_VxD: jax.Array,
    bias_V: jax.Array | None,
    targets_BxL: jax.Array,
    vocab: int,
) -> jax.Array:
    """[B, L] nats, float32, of softmax(x head' + bias) over the first `vocab` rows of the head.

    Products are of the dtype of x and added up in float32. The rows of the head from `vocab` on
    only pad: they take no probability and get no gradient.
    """
    rows = -(-x_BxLxD.shape[0] // sharding.ways(*ROWS))
    columns = head_VxD.shape[0] // sharding.ways(TENSOR)
    count = pieces(rows, x_BxLxD.shape[1], columns)
    split, whole = sharding.spec(ROWS), sharding.spec()

    # Each device sums the head's gradient over its own pieces before any is exchanged.
    @sharding.on_each(ROWS, in_specs=(split, whole, whole, split), out_specs=split)
    def run(x: jax.Array, head: jax.Array, bias: jax.Array | None, targets: jax.Array) -> Any:
        def piece(part: tuple[jax.Array, jax.Array]) -> jax.Array:
            return _losses(logits(part[0], head, bias, vocab), part[1])

        if count == 1:
            return piece((x, targets))
        return _join(jax.lax.map(jax.checkpoint(piece), _cut((x, targets), count)))

    return run(x_BxLxD, head_VxD, bias_V, targets_BxL)


def pieces(rows: int, length: int, columns: int) -> int:
    """Into how many equal parts to cut the length so that each has at most `CHUNK` logits.

    As few as possible; single positions where even they have more.
    """
    divisors = (n for n in range(1, length) if length % n == 0)
    return next((n for n in divisors if rows * length * columns <= n * CHUNK), length)


def logits(
    x_BxLxD: jax.Array, head_VxD: jax.Array, bias_V: jax.Array | None, vocab: int
) -> jax.Array:
    """[B, L, V] float32, those that pad the vocabulary at -1e30."""
    logit_BxLxV = _product(x_BxLxD, head_VxD)
    if bias_V is not None:
        logit_BxLxV += bias_V
    if vocab < len(head_VxD):
        logit_BxLxV = jnp.where(jnp.arange(len(head_VxD)) < vocab, logit_BxLxV, -1e30)
    return logit_BxLxV


def _losses(logit_BxLxV: jax.Array, targets_BxL: jax.Array) -> jax.Array:
    if sharding.platform() == "cpu":  # a gather: 7% of a small model's step faster
        picked_BxL = jnp.take_along_axis(logit_BxLxV, targets_BxL[..., None], -1)[..., 0]
    else:
        hit_BxLxV = targets_BxL[..., None] == jnp.arange(logit_BxLxV.shape[-1])
        picked_BxL = jnp.sum(jnp.where(hit_BxLxV, logit_BxLxV, 0), axis=-1)
    return jax.nn.logsumexp(logit_BxLxV, axis=-1) - picked_BxL


@jax.custom_vjp
def _product(x_BxLxD: jax.Array, head_VxD: jax.Array) -> jax.Array:
    """x head' in float32 from factors of x's dtype, and so are the products of its gradients."""
    head = head_VxD.astype(x_BxLxD.dtype)
    return jnp.einsum("bld,vd->blv", x_BxLxD, head, preferred_element_type=jnp.float32)


def _product_forward(x: jax.Array, head: jax.Array) -> tuple[jax.Array, Any]:
    return _product(x, head), (x, head)


def _product_backward(factors: Any, gradient_BxLxV: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BxLxD, head_VxD = factors
    g, head, f32 = gradient_BxLxV.astype(x_BxLxD.dtype), head_VxD.astype(x_BxLxD.dtype), jnp.float32
    dx_BxLxD = jnp.einsum("blv,vd->bld", g, head, preferred_element_type=f32)
    dhead_VxD = jnp.einsum("blv,bld->vd", g, x_BxLxD, preferred_element_type=f32)
    return dx_BxLxD.astype(x_BxLxD.dtype), dhead_VxD


_product.defvjp(_product_forward, _product_backward)


def _cut(tree: Any, count: int) -> Any:
    """Arrays [B, L, ...] as [count, B, L / count, ...]."""

    def one(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0)

    return jax.tree.map(one, tree)


def _join(x: jax.Array) -> jax.Array:
    """[count, B, L / count] as [B, L]."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1)
