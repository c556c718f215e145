"""Softmax attention, by the implementation that suits the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from autoscale_jax.models import sharding

BACKENDS = ("auto", "xla", "cudnn", "splash")
SAVED = "attention"  # the name under which rematerialisation can keep the outcome
TILE = 128  # splash works on whole tiles of positions


def attention(
    q_BxLxHxd: jax.Array, k_BxLxHxd: jax.Array, v_BxLxHxd: jax.Array, *, causal: bool, backend: str
) -> jax.Array:
    """Each position's softmax-weighted sum of values, [B, L, H, d]; softmax in float32.

    causal: a position sees itself and what came before it; otherwise the whole sequence.
    backend: "xla" (any device), "cudnn" (NVIDIA, 16-bit, heads of up to 128 in steps of 8),
        "splash" (TPU) or "auto". Only "xla" keeps the L x L scores in memory.
    """
    if backend == "auto":
        backend = choose(q_BxLxHxd.dtype, q_BxLxHxd.shape[-1])
    if backend == "splash":
        mixed = _splash_on_mesh(q_BxLxHxd, k_BxLxHxd, v_BxLxHxd, causal)
    elif backend == "cudnn":
        mixed = jax.nn.dot_product_attention(
            q_BxLxHxd, k_BxLxHxd, v_BxLxHxd, is_causal=causal, implementation="cudnn"
        )
    else:
        mixed = _xla(q_BxLxHxd, k_BxLxHxd, v_BxLxHxd, causal)
    return checkpoint_name(mixed, SAVED)


def choose(dtype: jnp.dtype, width: int) -> str:
    """What "auto" stands for on the devices in use."""
    platform = sharding.platform()
    if platform == "tpu":
        return "splash"
    flash = dtype.itemsize == 2 and width % 8 == 0 and width <= 128
    return "cudnn" if platform == "gpu" and flash else "xla"


def _xla(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    q_BxHxLxd, k_BxHxLxd, v_BxHxLxd = (x.swapaxes(1, 2) for x in (q, k, v))
    score_BxHxLxL = jnp.einsum(
        "bhld,bhmd->bhlm", q_BxHxLxd, k_BxHxLxd, preferred_element_type=jnp.float32
    )
    score_BxHxLxL *= q.shape[-1] ** -0.5
    if causal:
        length = q.shape[1]
        seen_LxL = jnp.tril(jnp.ones((length, length), bool))
        score_BxHxLxL = jnp.where(seen_LxL, score_BxHxLxL, -1e30)
    share_BxHxLxL = jax.nn.softmax(score_BxHxLxL).astype(v.dtype)
    return jnp.einsum("bhlm,bhmd->bhld", share_BxHxLxL, v_BxHxLxd).swapaxes(1, 2)


def _splash_on_mesh(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """Each device its own rows and heads: the compiler cannot split a kernel by itself."""
    spec = sharding.spec(sharding.ROWS, (), (sharding.TENSOR,))

    @sharding.on_each(sharding.ALL, in_specs=(spec,) * 3, out_specs=spec)
    def own(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return splash(q, k, v, causal)

    return own(q, k, v)


def splash(
    q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, interpret: bool = False
) -> jax.Array:
    """Pallas kernels for TPU on [B, L, H, d]; `interpret` runs them on any device, slowly."""
    from jax.experimental.pallas.ops.tpu import splash_attention as kernels

    _, length, heads, width = q.shape
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
    segments = None
    if pad and not causal:  # what pads is a text of its own; causal positions never see it
        segment_L = jnp.arange(padded) >= length
        segments = kernels.SegmentIds(*(segment_L.astype(jnp.int32),) * 2)
    heads_first = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, pad), (0, 0)))
        for x in (q * width**-0.5, k, v)
    )
    mixed_BxHxLxd = jax.vmap(lambda *qkv: kernel(*qkv, segment_ids=segments))(*heads_first)
    return mixed_BxHxLxd[:, :, :length].swapaxes(1, 2)
