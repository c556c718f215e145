"""Finite data: repeated tokens count less and less, caps on epochs, proxies that repeat alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.inputs import finite
from autoscale_jax.specs import BadInput, RunArrays

# Muennighoff et al. (2023), "Scaling Data-Constrained Language Models": fitted to 400 runs.
DECAY = 15.387756


def effective_tokens(tokens: Any, unique: Any, decay: float = DECAY) -> Any:
    """Fresh tokens that `tokens` tokens drawn from `unique` are worth: U + U R* (1 - e^(-R/R*)).

    R = tokens/unique - 1 is the number of repetitions, R* = `decay`. Tokens up to `unique` count in
    full; infinite `unique` is no limit. Any shapes that broadcast; numpy or pure jnp.
    """
    xp = jnp if isinstance(tokens, jax.Array) or isinstance(unique, jax.Array) else np
    limited = xp.isfinite(unique)
    u = xp.where(limited, unique, 1.0)
    repeats = xp.maximum(tokens / xp.maximum(u, 1e-300) - 1, 0.0)
    worth = xp.minimum(tokens, u) + u * decay * -xp.expm1(-repeats / decay)
    return xp.where(limited, worth, tokens)


def effective_runs(arrays: RunArrays) -> np.ndarray:
    """(R, K) fresh tokens that each run's tokens are worth, given what it had to draw from."""
    tokens_RxK = np.asarray(arrays.tokens_RxK, dtype=np.float64)
    if arrays.unique_RxK is None:
        return tokens_RxK
    return np.asarray(effective_tokens(tokens_RxK, arrays.unique_RxK))


def epoch_caps(unique: Any, tokens: float, max_epochs: float) -> np.ndarray:
    """(K,) caps on the weights of `tokens` tokens: unique tokens times epochs, at most 1.

    Raises:
      BadInput: unique tokens that are negative, or not enough data in all domains together.
    """
    unique_K = np.asarray(unique, dtype=np.float64)
    if np.isnan(unique_K).any() or (unique_K < 0).any():
        raise BadInput(f"unique = {unique_K.tolist()}: give tokens, 0 or more")
    finite("max_epochs", max_epochs, "give a number above 0", above=0)
    finite("tokens", tokens, "give the target's training tokens, above 0", above=0)
    caps_K = np.minimum(unique_K * max_epochs / tokens, 1.0)
    if caps_K.sum() < 1:
        raise BadInput(
            f"unique: {unique_K.sum():.4g} tokens for {max_epochs:g} epochs are fewer than the "
            f"target's {tokens:.4g}: allow more epochs or ask for fewer tokens"
        )
    return caps_K


def matched_pools(
    unique: Mapping[str, float], target: Mapping[str, float], proxy: Mapping[str, float]
) -> dict[str, int]:
    """How many unique tokens of each domain a proxy may draw from, to repeat as the target will.

    A domain's proxy pool is proxy tokens x unique / target tokens, at most all there is. Domains
    that the target does not repeat are not limited.

    Args:
      unique: unique tokens there are; target, proxy: tokens the run takes; all by domain.
    """
    pools = {}
    for name, tokens in proxy.items():
        if name not in unique or name not in target:
            raise BadInput(f"proxy[{name!r}]: no such domain in unique and target")
        repeats = target[name] > unique[name]
        pool = tokens * unique[name] / target[name] if repeats else unique[name]
        pools[name] = round(min(pool, unique[name]))
    return pools
