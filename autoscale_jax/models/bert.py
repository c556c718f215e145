"""BERT: a masked language model (Devlin et al. 2018), trained on that task alone."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from autoscale_jax.models import layers

SIZES: dict[str, dict[str, int]] = {
    "base": {"num_layers": 12, "d_model": 768, "num_heads": 12},
    "large": {"num_layers": 24, "d_model": 1024, "num_heads": 16},
}


@dataclasses.dataclass(frozen=True)
class BertConfig(layers.TransformerConfig):
    """Shape of a BERT."""


class Block(nn.Module):
    """Post-norm transformer block: attention to the whole sequence, then MLP."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, x_BxLxD: jax.Array, segments_BxL: jax.Array | None
    ) -> tuple[jax.Array, None]:
        c = self.config
        mix = layers.SelfAttention(c, causal=False, out_std=layers.INIT_STD, name="attention")
        h = mix(x_BxLxD, segments_BxL)
        x_BxLxD = nn.LayerNorm(1e-12, dtype=c.dtype, name="norm_attention")(x_BxLxD + h)
        h = layers.MLP(c, approximate_gelu=False, out_std=layers.INIT_STD, name="mlp")(x_BxLxD)
        return nn.LayerNorm(1e-12, dtype=c.dtype, name="norm_mlp")(x_BxLxD + h), None


class Bert(nn.Module):
    """tokens, segments [B, L] -> states [B, L, D] and the output layer: matrix [V, D], bias [V].

    Segments limit attention. The embeddings of a first and a second sentence, which BERT calls
    segments too, are for its other task: here all is the first.
    """

    config: BertConfig

    @nn.compact
    def __call__(
        self, tokens_BxL: jax.Array, segments_BxL: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        c = self.config
        normal = nn.initializers.normal(layers.INIT_STD)
        shape = (c.padded_vocab_size, c.d_model)
        wte = self.param("wte", layers.embedding_init(c.embedding_std, c.vocab_size), shape)
        wpe = self.param("wpe", normal, (c.seq_len, c.d_model))
        segment = self.param("segment", normal, (2, c.d_model))
        x_BxLxD = layers.embed(wte, tokens_BxL) + wpe[: tokens_BxL.shape[1]] + segment[0]
        x_BxLxD = nn.LayerNorm(1e-12, dtype=c.dtype, name="norm_in")(x_BxLxD)
        x_BxLxD = layers.stack(Block, c)(x_BxLxD, segments_BxL)
        x_BxLxD = layers.dense(c.d_model, "transform", c.dtype)(x_BxLxD)
        x_BxLxD = nn.gelu(x_BxLxD, approximate=False)
        x_BxLxD = nn.LayerNorm(1e-12, dtype=c.dtype, name="norm_out")(x_BxLxD)
        head_VxD = wte
        if not c.tie_embeddings:
            init = layers.embedding_init(layers.INIT_STD, c.vocab_size)
            head_VxD = self.param("head", init, shape)
        bias_V = self.param("head_bias", nn.initializers.zeros, (c.padded_vocab_size,))
        return x_BxLxD, head_VxD, bias_V
