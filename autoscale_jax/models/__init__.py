"""The language models that studies train: functions of a config and a parameter pytree.

Everything that trains or evaluates goes through these three, whatever the architecture.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from autoscale_jax.models.gpt2 import GPT2, GPT2Config, flops_per_token

__all__ = ["GPT2Config", "ModelConfig", "flops_per_token", "init", "token_losses"]

ModelConfig = GPT2Config


def init(config: ModelConfig, key: jax.Array) -> Any:
    """Fresh parameters, a pytree of float32 arrays."""
    return GPT2(config).init(key, jnp.zeros((1, config.seq_len), jnp.int32))


def token_losses(
    config: ModelConfig, params: Any, inputs_BxL: jax.Array, targets_BxL: jax.Array
) -> jax.Array:
    """Cross-entropy of each position's target, [B, L] nats, float32."""
    logits_BxLxV = GPT2(config).apply(params, inputs_BxL)
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, targets_BxL)
