"""The language models that studies train: functions of a config and a parameter pytree.

Everything that trains, evaluates or shards goes through these, whatever the architecture.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from autoscale_jax.models import layers
from autoscale_jax.models.gpt2 import GPT2, GPT2Config

__all__ = [
    "GPT2Config",
    "ModelConfig",
    "flops_per_token",
    "init",
    "logical_axes",
    "logits",
    "matrices",
    "num_parameters",
    "token_losses",
]

ModelConfig = GPT2Config


def init(config: ModelConfig, key: jax.Array) -> Any:
    """Fresh parameters, a pytree of float32 arrays."""
    plain = dataclasses.replace(config, attention="xla", remat="none")  # shapes do not depend on it
    return GPT2(plain).init(key, jnp.zeros((1, config.seq_len), jnp.int32))["params"]


def logits(config: ModelConfig, params: Any, inputs_BxL: jax.Array) -> jax.Array:
    """Scores of every token of the vocabulary at every position, [B, L, V] float32."""
    x_BxLxD, head_VxD, bias_V = GPT2(config).apply({"params": params}, inputs_BxL)
    scores = jnp.einsum("bld,vd->blv", x_BxLxD, head_VxD.astype(x_BxLxD.dtype))
    scores = scores.astype(jnp.float32)[..., : config.vocab_size]
    return scores if bias_V is None else scores + bias_V[: config.vocab_size]


def token_losses(
    config: ModelConfig, params: Any, inputs_BxL: jax.Array, targets_BxL: jax.Array
) -> jax.Array:
    """Cross-entropy of each position's target, [B, L] nats, float32."""
    return optax.softmax_cross_entropy_with_integer_labels(
        logits(config, params, inputs_BxL), targets_BxL
    )


def _abstract(config: ModelConfig) -> Any:
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def logical_axes(config: ModelConfig) -> Any:
    """A tuple of axis names for each parameter, in a pytree like the parameters'.

    "vocab", "embed", "mlp", "heads", "qkv" (query, key, value), "kv" (within a head), "position",
    "norm" (vectors as wide as the model), and "layers", always first, for what is stacked.
    """
    return layers.axes_of(_abstract(config))


def matrices(config: ModelConfig) -> Any:
    """Which parameters are matrices, embeddings included: False for biases and norms' scales."""

    def is_matrix(path: Any, _: Any) -> bool:
        return path[-1].key not in ("bias", "scale")

    return jax.tree_util.tree_map_with_path(is_matrix, _abstract(config))


def num_parameters(config: ModelConfig, embeddings: bool = True) -> int:
    """Trained numbers, rows that pad the vocabulary left out; `embeddings`: of tokens, positions.

    A tied output matrix counts as an embedding, one of its own does not.
    """
    flat = jax.tree_util.tree_leaves_with_path(_abstract(config))
    named = {path[-1].key: leaf for path, leaf in flat}
    total = sum(leaf.size for _, leaf in flat)
    pad = (config.padded_vocab_size - config.vocab_size) * config.d_model
    total -= pad * (1 + ("head" in named))
    if not embeddings:
        total -= config.vocab_size * config.d_model + named["wpe"].size
    return total


def flops_per_token(config: ModelConfig) -> float:
    """Training FLOPs a token: three times those of the forward pass, whatever is recomputed.

    Forward: 2 a parameter of each matrix that multiplies the token (so not of embeddings), and
    4 L D a layer for attention's scores and sums over the full L x L square.
    """
    flat = jax.tree_util.tree_leaves_with_path(_abstract(config))
    kernels = sum(leaf.size for path, leaf in flat if path[-1].key == "kernel")
    head = config.vocab_size * config.d_model
    attention = 4 * config.num_layers * config.seq_len * config.d_model
    return 3.0 * (2 * (kernels + head) + attention)
