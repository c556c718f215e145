"""The language models that studies train: functions of a config and a parameter pytree.

Everything that trains, evaluates or shards goes through these, whatever the architecture. On more
than one device, call what uses them inside `with jax.set_mesh(mesh)`: see `sharding`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from autoscale_jax.models import layers, loss, sharding
from autoscale_jax.models.bert import Bert, BertConfig
from autoscale_jax.models.gpt2 import GPT2, GPT2Config
from autoscale_jax.specs import BadInput

__all__ = [
    "BertConfig",
    "GPT2Config",
    "ModelConfig",
    "flops_per_token",
    "init",
    "logical_axes",
    "logits",
    "make_config",
    "matrices",
    "num_parameters",
    "token_losses",
]

ModelConfig = GPT2Config | BertConfig
CONFIGS: dict[str, type[ModelConfig]] = {"gpt2": GPT2Config, "bert": BertConfig}


def make_config(name: str, tokens: int, vocab_size: int | None = None, **fields: Any) -> Any:
    """The config of an architecture, "gpt2" or "bert", for texts of `tokens` different tokens.

    vocab_size: rows of the model's vocabulary, by default as many; fewer are refused.
    """
    if name not in CONFIGS:
        raise BadInput(f"config.model.name = {name!r}: use one of {', '.join(CONFIGS)}")
    if vocab_size is not None and vocab_size < tokens:
        raise BadInput(
            f"config.model.vocab_size = {vocab_size}: smaller than the tokeniser's {tokens}; "
            "raise it, or leave it out"
        )
    return CONFIGS[name](vocab_size=vocab_size or tokens, **fields)


def _module(config: ModelConfig) -> nn.Module:
    return Bert(config) if isinstance(config, BertConfig) else GPT2(config)


def init(config: ModelConfig, key: jax.Array) -> Any:
    """Fresh parameters, a pytree of float32 arrays."""
    plain = dataclasses.replace(config, attention="xla", remat="none")  # the same parameters
    inputs_BxL = jnp.zeros((sharding.ways(*sharding.ROWS), config.seq_len), jnp.int32)
    return _module(plain).init(key, inputs_BxL)["params"]


def _apply(
    config: ModelConfig, params: Any, inputs_BxL: jax.Array, segments_BxL: jax.Array | None
) -> Any:
    """States [B, L, D], matrix [V, D] and bias [V] or None of the output layer, V padded."""
    if config.document_attention and segments_BxL is None:
        raise BadInput(
            "config.model.document_attention = True: give the documents' segments with the tokens"
        )
    return _module(config).apply({"params": params}, inputs_BxL, segments_BxL)


def logits(
    config: ModelConfig,
    params: Any,
    inputs_BxL: jax.Array,
    segments_BxL: jax.Array | None = None,
) -> jax.Array:
    """Scores of every token of the vocabulary at every position, [B, L, V] float32.

    segments: numbers (documents', say), 0 or more, or -1 for filler: attention leads from a
    position to those of its own number alone. None: to its whole row.
    """
    x_BxLxD, head_VxD, bias_V = _apply(config, params, inputs_BxL, segments_BxL)
    return loss.logits(x_BxLxD, head_VxD, bias_V, config.vocab_size)[..., : config.vocab_size]


def token_losses(
    config: ModelConfig,
    params: Any,
    inputs_BxL: jax.Array,
    targets_BxL: jax.Array,
    segments_BxL: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of each position's target, [B, L] nats, float32; segments as in `logits`."""
    x_BxLxD, head_VxD, bias_V = _apply(config, params, inputs_BxL, segments_BxL)
    return loss.cross_entropy(x_BxLxD, head_VxD, bias_V, targets_BxL, config.vocab_size)


def _shapes(config: ModelConfig) -> Any:
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))


def logical_axes(config: ModelConfig) -> Any:
    """A tuple of axis names for each parameter, in a pytree like the parameters'.

    "layers", always first, of what is stacked; "vocab", "embed" (the model's width in matrices),
    "norm" (the same in vectors), "mlp", "heads", "kv" (within a head), "qkv" (query, key, value),
    "position", "segment".
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: layers.axes(path), _shapes(config))


def matrices(config: ModelConfig) -> Any:
    """Which parameters are matrices, embeddings included: False for biases and norms' scales."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not path[-1].key.endswith(("bias", "scale")), _shapes(config)
    )


def num_parameters(config: ModelConfig, embeddings: bool = True) -> int:
    """Trained numbers, without the rows that pad the vocabulary.

    embeddings: whether those of tokens, positions and segments count. A tied output matrix is an
    embedding, one of its own is not.
    """
    total = 0
    padding = config.padded_vocab_size - config.vocab_size
    for path, leaf in jax.tree_util.tree_leaves_with_path(_shapes(config)):
        if embeddings or path[-1].key not in ("wte", "wpe", "segment"):
            padded = layers.axes(path)[0] == "vocab"
            total += leaf.size - padded * padding * (leaf.size // leaf.shape[0])
    return total


def flops_per_token(config: ModelConfig, embeddings: bool = True) -> float:
    """Training FLOPs a token: three times those of the forward pass, whatever is recomputed.

    Forward: 2 for each parameter of a matrix that multiplies the token (looking embeddings up
    costs nothing), and 4 L D a layer for attention's scores and sums over the full L x L square.
    embeddings: whether the product with an output matrix counts that is the embedding of tokens,
    as in `num_parameters`; one of its own always does.
    """
    flat = jax.tree_util.tree_leaves_with_path(_shapes(config))
    kernels = sum(leaf.size for path, leaf in flat if path[-1].key == "kernel")
    counts = embeddings or not config.tie_embeddings
    head = config.vocab_size * config.d_model if counts else 0
    attention = 4 * config.num_layers * config.seq_len * config.d_model
    return 3.0 * (2 * (kernels + head) + attention)
