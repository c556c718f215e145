"""GPT-2: a causal language model (Radford et al. 2019), as the AutoScale paper trains it."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from autoscale_jax.models import layers


@dataclasses.dataclass(frozen=True)
class GPT2Config:
    """Shape of a GPT-2. Untied outputs with a wider embedding train quieter at laptop size."""

    vocab_size: int
    seq_len: int
    num_layers: int
    d_model: int
    num_heads: int
    tie_embeddings: bool = True
    embedding_std: float = layers.INIT_STD
    dtype: str = "float32"


class GPT2(nn.Module):
    """tokens [B, L] int -> logits [B, L, V] float32."""

    config: GPT2Config

    @nn.compact
    def __call__(self, tokens_BxL: jax.Array) -> jax.Array:
        c = self.config
        dtype = jnp.dtype(c.dtype)
        embed_init = nn.initializers.normal(c.embedding_std)
        embed = nn.Embed(c.vocab_size, c.d_model, embedding_init=embed_init, name="wte")
        positions = self.param("wpe", nn.initializers.normal(0.01), (c.seq_len, c.d_model))
        x_BxLxD = (embed(tokens_BxL) + positions[: tokens_BxL.shape[1]]).astype(dtype)
        for i in range(c.num_layers):
            x_BxLxD = layers.Block(c.num_heads, c.num_layers, dtype, name=f"block_{i}")(x_BxLxD)
        x_BxLxD = nn.LayerNorm(name="norm_out", dtype=dtype, epsilon=1e-5)(x_BxLxD)
        if c.tie_embeddings:
            logits = x_BxLxD @ embed.embedding.T.astype(dtype)
        else:
            kernel_init = nn.initializers.normal(layers.INIT_STD)
            logits = nn.Dense(
                c.vocab_size, use_bias=False, kernel_init=kernel_init, dtype=dtype, name="head"
            )(x_BxLxD)
        return logits.astype(jnp.float32)


def matrix_parameters(config: GPT2Config) -> int:
    """Parameters that multiply each token: all but input embeddings, biases and norms."""
    blocks = config.num_layers * 12 * config.d_model**2
    return blocks + config.vocab_size * config.d_model


def flops_per_token(config: GPT2Config) -> float:
    """Training FLOPs a token, forward and backward: 6 a matrix parameter plus attention's own.

    Attention scores and sums cost 2 * 2 * L * D a layer forward over the full L x L square.
    """
    attention = 12 * config.num_layers * config.seq_len * config.d_model
    return 6.0 * matrix_parameters(config) + attention
