"""Cross-entropy straight from the last states, a piece of the length at a time.

A large vocabulary's logits would be the largest array of a training step: B x L x V in float32 is
197 MiB for each row of GPT-2. Here a device never holds more than `CHUNK` of them, forward or
backward: the backward pass computes each piece anew.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from autoscale_jax.models import sharding
from autoscale_jax.models.sharding import ROWS, TENSOR

# Logits on a device at a time: 256 MiB; on a GPU 1 GiB, since each piece adds to the head's
# gradient in memory.
CHUNK = {"cpu": 2**26, "gpu": 2**28, "tpu": 2**26}


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
        return _losses(x, head, bias, targets, vocab, count)

    return run(x_BxLxD, head_VxD, bias_V, targets_BxL)


def pieces(rows: int, length: int, columns: int) -> int:
    """Into how many equal parts to cut the length so that each has at most `CHUNK` logits.

    As few as possible; single positions where even they have more.
    """
    most = CHUNK[sharding.platform()]
    divisors = (n for n in range(1, length) if length % n == 0)
    return next((n for n in divisors if rows * length * columns <= n * most), length)


def logits(
    x_BxLxD: jax.Array, head_VxD: jax.Array, bias_V: jax.Array | None, vocab: int
) -> jax.Array:
    """[B, L, V] float32, those that pad the vocabulary at -1e30."""
    head = head_VxD.astype(x_BxLxD.dtype)
    logit_BxLxV = jnp.einsum("bld,vd->blv", x_BxLxD, head, preferred_element_type=jnp.float32)
    if bias_V is not None:
        logit_BxLxV += bias_V
    if vocab < len(head_VxD):
        logit_BxLxV = jnp.where(jnp.arange(len(head_VxD)) < vocab, logit_BxLxV, -1e30)
    return logit_BxLxV


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _losses(
    x: jax.Array,
    head: jax.Array,
    bias: jax.Array | None,
    targets: jax.Array,
    vocab: int,
    count: int,
) -> jax.Array:
    return _forward(x, head, bias, targets, vocab, count)[0]


def _forward(
    x: jax.Array,
    head: jax.Array,
    bias: jax.Array | None,
    targets: jax.Array,
    vocab: int,
    count: int,
) -> tuple[jax.Array, Any]:
    """Losses, and what the backward pass takes: of a single piece the softmax's numerators, too."""
    rounded = head.astype(x.dtype)  # once for all pieces

    def piece(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        x_BxLxD, targets_BxL = part
        logit_BxLxV = logits(x_BxLxD, rounded, bias, vocab)
        most_BxLx1 = jnp.max(logit_BxLxV, axis=-1, keepdims=True)
        numerator_BxLxV = jnp.exp(logit_BxLxV - most_BxLx1)
        normaliser_BxL = jnp.log(jnp.sum(numerator_BxLxV, axis=-1)) + most_BxLx1[..., 0]
        found = normaliser_BxL - _picked(logit_BxLxV, targets_BxL), normaliser_BxL
        return (*found, numerator_BxLxV, most_BxLx1) if count == 1 else found

    if count == 1:
        loss_BxL, normaliser_BxL, *numerator = piece((x, targets))
        return loss_BxL, (x, head, bias, targets, normaliser_BxL, numerator)
    loss_BxL, normaliser_BxL = map(_join, jax.lax.map(piece, _cut((x, targets), count)))
    return loss_BxL, (x, head, bias, targets, normaliser_BxL, None)


def _backward(vocab: int, count: int, kept: Any, gradient_BxL: jax.Array) -> tuple[Any, ...]:
    """Products of factors of x's dtype, added up in float32."""
    x_BxLxD, head_VxD, bias_V, targets_BxL, normaliser_BxL, numerator = kept
    rounded = head_VxD.astype(x_BxLxD.dtype)

    def piece(sums: Any, part: Any) -> tuple[Any, jax.Array]:
        x, targets, normaliser, gradient = part
        if numerator is None:
            share = jnp.exp(logits(x, rounded, bias_V, vocab) - normaliser[..., None])
            share *= gradient[..., None]
        else:
            numerator_BxLxV, most_BxLx1 = numerator
            share = numerator_BxLxV * (
                jnp.exp(most_BxLx1 - normaliser[..., None]) * gradient[..., None]
            )
        wrong = _less(share, targets, gradient)
        f32, factor = jnp.float32, wrong.astype(x.dtype)
        dhead, dbias = sums
        dhead += jnp.einsum("blv,bld->vd", factor, x, preferred_element_type=f32)
        dbias = None if dbias is None else dbias + wrong.sum((0, 1))
        dx = jnp.einsum("blv,vd->bld", factor, rounded, preferred_element_type=f32)
        return (dhead, dbias), dx.astype(x.dtype)

    sums = jax.tree.map(lambda w: jnp.zeros(w.shape, jnp.float32), (head_VxD, bias_V))
    parts = (x_BxLxD, targets_BxL, normaliser_BxL, gradient_BxL)
    if count == 1:
        (dhead_VxD, dbias_V), dx_BxLxD = piece(sums, parts)
    else:
        (dhead_VxD, dbias_V), dx = jax.lax.scan(piece, sums, _cut(parts, count))
        dx_BxLxD = _join(dx)
    return dx_BxLxD, dhead_VxD, dbias_V, None


_losses.defvjp(_forward, _backward)


# One of V by its place on a CPU, where that is a few percent of a small model's step faster, and by
# comparison elsewhere.


def _picked(x_BxLxV: jax.Array, targets_BxL: jax.Array) -> jax.Array:
    """The target's own, [B, L]."""
    if sharding.platform() == "cpu":
        return jnp.take_along_axis(x_BxLxV, targets_BxL[..., None], -1)[..., 0]
    return jnp.sum(jnp.where(_hit(x_BxLxV, targets_BxL), x_BxLxV, 0), axis=-1)


def _less(x_BxLxV: jax.Array, targets_BxL: jax.Array, amount_BxL: jax.Array) -> jax.Array:
    """x with so much less at the target."""
    if sharding.platform() == "cpu":
        row_BxL, place_BxL = jnp.indices(targets_BxL.shape)
        return x_BxLxV.at[row_BxL, place_BxL, targets_BxL].add(-amount_BxL)
    return x_BxLxV - jnp.where(_hit(x_BxLxV, targets_BxL), amount_BxL[..., None], 0)


def _hit(x_BxLxV: jax.Array, targets_BxL: jax.Array) -> jax.Array:
    return targets_BxL[..., None] == jnp.arange(x_BxLxV.shape[-1])


def _cut(tree: Any, count: int) -> Any:
    """Arrays [B, L, ...] as [count, B, L / count, ...]."""

    def one(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0)

    return jax.tree.map(one, tree)


def _join(x: jax.Array) -> jax.Array:
    """[count, B, L / count, ...] as [B, L, ...]."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])
