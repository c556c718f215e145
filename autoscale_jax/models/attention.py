"""Softmax attention, by the implementation that suits the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def attention(
    q_BxLxHxd: jax.Array, k_BxLxHxd: jax.Array, v_BxLxHxd: jax.Array, *, causal: bool, backend: str
) -> jax.Array:
    """Each position's softmax-weighted sum of values, [B, L, H, d]; softmax in float32.

    causal: a position sees itself and what came before it; otherwise the whole sequence.
    """
    return _xla(q_BxLxHxd, k_BxLxHxd, v_BxLxHxd, causal)


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
