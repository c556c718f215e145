"""Transformer blocks shared by the models. Shape letters: B batch, L length, D model, H heads."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

INIT_STD = 0.02  # GPT-2's and BERT's


def dense(features: int, name: str, dtype: jnp.dtype, std: float = INIT_STD) -> nn.Dense:
    return nn.Dense(features, name=name, dtype=dtype, kernel_init=nn.initializers.normal(std))


def causal_attention(q_BxLxHxd: jax.Array, k_BxLxHxd: jax.Array, v_BxLxHxd: jax.Array) -> jax.Array:
    """Softmax attention in which a position sees itself and what came before it. [B, L, H, d]."""
    length, width = q_BxLxHxd.shape[1], q_BxLxHxd.shape[-1]
    score_BxHxLxL = jnp.einsum("blhd,bmhd->bhlm", q_BxLxHxd, k_BxLxHxd) * width**-0.5
    seen_LxL = jnp.tril(jnp.ones((length, length), bool))
    score_BxHxLxL = jnp.where(seen_LxL, score_BxHxLxL.astype(jnp.float32), -1e30)
    share_BxHxLxL = jax.nn.softmax(score_BxHxLxL).astype(v_BxLxHxd.dtype)
    return jnp.einsum("bhlm,bmhd->blhd", share_BxHxLxL, v_BxLxHxd)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a four times wider MLP."""

    num_heads: int
    num_layers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        batch, length, width = x_BxLxD.shape
        residual_std = INIT_STD * (2 * self.num_layers) ** -0.5  # GPT-2 scales residual outputs
        h = nn.LayerNorm(name="norm_attention", dtype=self.dtype, epsilon=1e-5)(x_BxLxD)
        qkv = dense(3 * width, "qkv", self.dtype)(h)
        heads = qkv.reshape(batch, length, 3, self.num_heads, width // self.num_heads)
        mixed = causal_attention(heads[:, :, 0], heads[:, :, 1], heads[:, :, 2])
        mixed = mixed.reshape(batch, length, width)
        x_BxLxD = x_BxLxD + dense(width, "attention_out", self.dtype, residual_std)(mixed)
        h = nn.LayerNorm(name="norm_mlp", dtype=self.dtype, epsilon=1e-5)(x_BxLxD)
        h = nn.gelu(dense(4 * width, "mlp_in", self.dtype)(h), approximate=True)
        return x_BxLxD + dense(width, "mlp_out", self.dtype, residual_std)(h)
