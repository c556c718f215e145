"""Softmax attention, by the implementation that suits the device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from autoscale_jax.models import sharding

BACKENDS = ("auto", "xla", "cudnn", "splash")
SAVED = "attention"  # the name under which rematerialisation can keep the outcome
CUDNN = "dot_product_attention_fwd_wrapper"  # jax's primitive of cuDNN's forward kernel
TILE = 128  # splash works on whole tiles of positions


@jax.named_scope("softmax_attention")  # as profiles show it
def attention(
    q_BxLxHxd: jax.Array,
    k_BxLxHxd: jax.Array,
    v_BxLxHxd: jax.Array,
    segments_BxL: jax.Array | None = None,
    *,
    causal: bool,
    backend: str,
) -> jax.Array:
    """Each position's softmax-weighted sum of values, [B, L, H, d]; softmax in float32.

    segments: a position sees those of its own number alone; None: all of its row.
    causal: of these, itself and what came before it.
    backend: "xla" (any device), "cudnn" (NVIDIA, 16-bit, heads of up to 128 in steps of 8; with
        segments an even L), "splash" (TPU) or "auto". Only "xla" keeps the L x L scores in memory;
        "cudnn" keeps a mask of that size for each row where there are segments.
    """
    if backend == "auto":
        odd = segments_BxL is not None and q_BxLxHxd.shape[1] % 2 == 1
        backend = choose(q_BxLxHxd.dtype, q_BxLxHxd.shape[-1], odd)
    if backend == "cudnn":
        mask = None if segments_BxL is None else _same(segments_BxL, segments_BxL)
        return jax.nn.dot_product_attention(
            q_BxLxHxd, k_BxLxHxd, v_BxLxHxd, mask=mask, is_causal=causal, implementation="cudnn"
        )
    if backend == "splash":
        mixed = _splash_on_mesh(q_BxLxHxd, k_BxLxHxd, v_BxLxHxd, segments_BxL, causal)
    else:
        q, k, v = (x.swapaxes(1, 2) for x in (q_BxLxHxd, k_BxLxHxd, v_BxLxHxd))
        mixed = _heads_first(q, k, v, segments_BxL, causal).swapaxes(1, 2)
    return checkpoint_name(mixed, SAVED)


def saved(primitive: Any, *args: Any, **params: Any) -> bool:
    """Policy of rematerialisation that keeps the outcome of attention, and of cuDNN's kernel all
    that its backward pass takes: the forward one does not run twice."""
    named = jax.checkpoint_policies.save_only_these_names(SAVED)
    return primitive.name == CUDNN or named(primitive, *args, **params)


def choose(dtype: jnp.dtype, width: int, odd_mask: bool = False) -> str:
    """What "auto" stands for on the devices in use; `odd_mask`: segments of an odd length."""
    platform = sharding.platform()
    if platform == "tpu":
        return "splash"
    flash = dtype.itemsize == 2 and width % 8 == 0 and width <= 128 and not odd_mask
    return "cudnn" if platform == "gpu" and flash else "xla"


def _same(queries_BxL: jax.Array, keys_BxM: jax.Array) -> jax.Array:
    """Which keys are of a query's own segment, [B, 1 (heads), L, M] bool."""
    return queries_BxL[:, None, :, None] == keys_BxM[:, None, None, :]


def _blocks(length: int, causal: bool) -> list[tuple[slice, slice]]:
    """(queries, the keys that they see) of each block of queries; together they see every key.

    Four blocks of a causal square do 5/8 of its work.
    """
    size = max(-(-length // 4), 32) if causal else length
    stops = [min(start + size, length) for start in range(0, length, size)]
    return [(slice(i * size, stop), slice(0, stop)) for i, stop in enumerate(stops)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _heads_first(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None, causal: bool
) -> jax.Array:
    """[B, H, L, d]. Its own backward pass, two passes over the scores fewer than the derived one,
    is a tenth of a small model's step on a CPU."""
    return _heads_first_forward(q, k, v, segments, causal)[0]


def _heads_first_forward(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None, causal: bool
) -> tuple[jax.Array, Any]:
    mixed, shares = [], []
    for queries, keys in _blocks(q.shape[2], causal):
        score = _product("bhld,bhmd->bhlm", q[:, :, queries], k[:, :, keys]) * q.shape[-1] ** -0.5
        if causal:
            position = jnp.arange(q.shape[2])
            score = jnp.where(position[queries, None] >= position[keys], score, -1e30)
        if segments is not None:
            score = jnp.where(_same(segments[:, queries], segments[:, keys]), score, -1e30)
        shares.append(jax.nn.softmax(score).astype(v.dtype))
        mixed.append(jnp.einsum("bhlm,bhmd->bhld", shares[-1], v[:, :, keys]))
    mixed_BxHxLxd = jnp.concatenate(mixed, 2)
    return mixed_BxHxLxd, (q, k, v, shares, mixed_BxHxLxd)


def _heads_first_backward(causal: bool, kept: Any, g: jax.Array) -> tuple[jax.Array | None, ...]:
    q, k, v, shares, mixed = kept
    # sum over keys of share * d share, from the outcome instead of the scores
    mean_BxHxLx1 = jnp.sum((g * mixed).astype(jnp.float32), -1, keepdims=True)
    dq, dk, dv = [], jnp.zeros_like(k), jnp.zeros_like(v)
    for (queries, keys), share in zip(_blocks(q.shape[2], causal), shares, strict=True):
        own, seen = (slice(None), slice(None), queries), (slice(None), slice(None), keys)
        dshare = _product("bhld,bhmd->bhlm", g[own], v[seen]) - mean_BxHxLx1[own]
        dscore = (share * dshare * q.shape[-1] ** -0.5).astype(q.dtype)
        dq.append(jnp.einsum("bhlm,bhmd->bhld", dscore, k[seen]))
        dk = dk.at[seen].add(jnp.einsum("bhlm,bhld->bhmd", dscore, q[own]))
        dv = dv.at[seen].add(jnp.einsum("bhlm,bhld->bhmd", share, g[own]))
    return jnp.concatenate(dq, 2), dk, dv, None


_heads_first.defvjp(_heads_first_forward, _heads_first_backward)


def _product(axes: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """In float32, whatever the factors are."""
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)


def _splash_on_mesh(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None, causal: bool
) -> jax.Array:
    """Each device its own rows and heads: the compiler cannot split a kernel by itself."""
    spec = sharding.spec(sharding.ROWS, (), (sharding.TENSOR,))
    rows = sharding.spec(sharding.ROWS)

    @sharding.on_each(sharding.ALL, in_specs=(spec, spec, spec, rows), out_specs=spec)
    def own(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None) -> jax.Array:
        return splash(q, k, v, segments, causal)

    return own(q, k, v, segments)


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array | None,
    causal: bool,
    interpret: bool = False,
) -> jax.Array:
    """Pallas kernels for TPU on [B, L, H, d]; `interpret` runs them on any device, slowly."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    rows, length, heads, width = q.shape
    pad = -length % TILE
    padded = length + pad
    block = next(size for size in (512, 384, 256, TILE) if padded % size == 0)
    sizes = kernels.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    mask = (kernels.CausalMask if causal else kernels.FullMask)((padded, padded))
    kernel = kernels.make_splash_mha(
        kernels.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=SAVED,
        interpret=interpret,
    )
    if segments is None and pad and not causal:
        segments = jnp.zeros((rows, length), jnp.int32)
    if segments is not None:  # what pads is a text of its own; causal positions never see it
        segments = jnp.pad(segments, ((0, 0), (0, pad)), constant_values=-2)
    q, k, v = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, pad), (0, 0)))
        for x in (q * width**-0.5, k, v)
    )

    def one(q: jax.Array, k: jax.Array, v: jax.Array, segment_L: jax.Array | None) -> jax.Array:
        both = None if segment_L is None else kernels.SegmentIds(segment_L, segment_L)
        return kernel(q, k, v, segment_ids=both)

    mixed_BxHxLxd = jax.vmap(one)(q, k, v, segments)
    return mixed_BxHxLxd[:, :, :length].swapaxes(1, 2)
