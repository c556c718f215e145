"""Finite data: repeated tokens count less and less, caps on epochs, proxies that repeat alike."""

from __future__ import annotations

import math
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


def matched_pools(unique: Mapping[str, int], budget: float, target_tokens: float) -> dict[str, int]:
    """How much of each domain all runs of a budget may draw on, to repeat it as the target would.

    A pool is unique x budget / target, whatever the mixture, so that equal weights are equal epochs
    at both scales. It is rounded up: at least one of what `unique` counts (tokens or sequences),
    and no run repeats more often than the target does. It is at most all there is.

    Raises:
      BadInput: a budget or target that is not above 0.
    """
    for field, tokens in (("budget", budget), ("target_tokens", target_tokens)):
        finite(field, tokens, "give training tokens, above 0", above=0)
    return {name: min(math.ceil(n * budget / target_tokens), n) for name, n in unique.items()}
