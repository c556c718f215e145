"""The exact optimum of a sum of one-domain power laws: bisection on the KKT multiplier."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from autoscale_jax.fit.power import PowerLaw

BISECTIONS = 90  # the multiplier's logarithm to 1e-14 over the widest bracket


def power_law_optimum(law: PowerLaw, tokens: Any, lower_K: Any, upper_K: Any) -> Any:
    """argmin over w of sum_i (a_i + w_i N/base_i)^-b_i, lower <= w <= upper, sum w = 1; (..., K).

    Where a domain is inside its bounds, b/base (a + wN/base)^(-b-1) = mu (KKT), so w follows from
    mu in closed form and sum_i w_i(mu) falls in mu: one bisection finds it. Domains with b = 0 have
    no say and get what the others leave. Pure jnp: vmap over laws, budgets and bounds.
    """
    a_K, b_K = law.offset_K, law.exponent_K
    x_K = tokens / law.base_tokens_K  # tokens of the domain at w = 1, in base amounts
    useful_K = b_K > 1e-12
    safe_b_K = jnp.where(useful_K, b_K, 1.0)
    log_gain_K = jnp.log(safe_b_K * x_K)

    def log_slope(w_K: Any) -> Any:
        return log_gain_K - (safe_b_K + 1) * jnp.log(jnp.maximum(a_K + w_K * x_K, 1e-300))

    def weights(log_mu: Any) -> Any:
        inner = (jnp.exp((log_gain_K - log_mu) / (safe_b_K + 1)) - a_K) / x_K
        return jnp.where(useful_K, jnp.clip(inner, lower_K, upper_K), lower_K)

    def halve(_: int, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bracket
        middle = (low + high) / 2
        too_much = weights(middle).sum() > 1
        return jnp.where(too_much, middle, low), jnp.where(too_much, high, middle)

    # All weights at their caps at the low end of the bracket, all at their floors at the high end.
    low = jnp.where(useful_K, log_slope(upper_K), jnp.inf).min() - 1e-9
    high = jnp.where(useful_K, log_slope(jnp.maximum(lower_K, 1e-12)), -jnp.inf).max() + 1e-9
    any_useful = useful_K.any()
    bracket = (jnp.where(any_useful, low, 0.0), jnp.where(any_useful, high, 1.0))
    bracket = jax.lax.fori_loop(0, BISECTIONS, halve, bracket)
    w_K = weights((bracket[0] + bracket[1]) / 2)
    return _fill(w_K, useful_K, lower_K, upper_K)


def _fill(w_K: Any, useful_K: Any, lower_K: Any, upper_K: Any) -> Any:
    """Give what is missing to domains without a say, in proportion to room, then to the rest."""
    for may_K in (~useful_K, jnp.ones_like(useful_K)):
        missing = 1 - w_K.sum()
        inside_K = may_K & (w_K > lower_K) & (w_K < upper_K)
        up_K = jnp.where(may_K, upper_K - w_K, 0.0)
        down_K = jnp.where(may_K, w_K - lower_K, 0.0)
        room_K = jnp.where(missing > 0, up_K, down_K)
        # Rounding of the bisection goes to the domains inside their bounds, where it costs least.
        tiny = jnp.abs(missing) < 1e-9
        room_K = jnp.where(tiny & inside_K.any(), inside_K * room_K, room_K)
        share = jnp.minimum(jnp.abs(missing) / jnp.maximum(room_K.sum(), 1e-300), 1.0)
        w_K = w_K + jnp.sign(missing) * share * room_K
    return w_K
