"""GPT-2: a causal language model (Radford et al. 2019), as the AutoScale paper trains it."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from autoscale_jax.models import layers

SIZES: dict[str, dict[str, int]] = {
    name: {"num_layers": num_layers, "d_model": d_model, "num_heads": num_heads}
    for name, num_layers, d_model, num_heads in (
        ("small", 12, 768, 12),
        ("medium", 24, 1024, 16),
        ("large", 36, 1280, 20),
        ("xl", 48, 1600, 25),
    )
}


@dataclasses.dataclass(frozen=True)
class GPT2Config(layers.TransformerConfig):
    """Shape of a GPT-2. Untied outputs with a wider embedding train quieter at laptop size."""


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP."""

    config: GPT2Config

    @nn.compact
    def __call__(
        self, x_BxLxD: jax.Array, segments_BxL: jax.Array | None
    ) -> tuple[jax.Array, None]:
        c = self.config
        out_std = layers.INIT_STD * (2 * c.num_layers) ** -0.5  # GPT-2 scales residual outputs
        h = nn.LayerNorm(1e-5, dtype=c.dtype, name="norm_attention")(x_BxLxD)
        mix = layers.SelfAttention(c, causal=True, out_std=out_std, name="attention")
        x_BxLxD += mix(h, segments_BxL)
        h = nn.LayerNorm(1e-5, dtype=c.dtype, name="norm_mlp")(x_BxLxD)
        x_BxLxD += layers.MLP(c, approximate_gelu=True, out_std=out_std, name="mlp")(h)
        return x_BxLxD, None


class GPT2(nn.Module):
    """tokens, segments [B, L] -> states [B, L, D] and the output layer: matrix [V, D], no bias."""

    config: GPT2Config

    @nn.compact
    def __call__(
        self, tokens_BxL: jax.Array, segments_BxL: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, None]:
        c = self.config
        shape = (c.padded_vocab_size, c.d_model)
        wte = self.param("wte", layers.embedding_init(c.embedding_std, c.vocab_size), shape)
        wpe = self.param("wpe", nn.initializers.normal(0.01), (c.seq_len, c.d_model))
        x_BxLxD = (layers.embed(wte, tokens_BxL) + wpe[: tokens_BxL.shape[1]]).astype(c.dtype)
        x_BxLxD = layers.stack(Block, c)(x_BxLxD, segments_BxL)
        x_BxLxD = nn.LayerNorm(1e-5, dtype=c.dtype, name="norm_out")(x_BxLxD)
        head_VxD = wte
        if not c.tie_embeddings:
            init = layers.embedding_init(layers.INIT_STD, c.vocab_size)
            head_VxD = self.param("head", init, shape)
        return x_BxLxD, head_VxD, None
