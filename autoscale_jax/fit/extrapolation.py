"""AutoScale's extrapolation of optimal mixtures, exact for any target, with floors and caps.

At an optimum of sum_i beta_i (N_i + n0_i)^-g_i every marginal gain is the same, so log(N_i + n0_i)
is linear in one scalar t for all domains: N_i(t) + n0_i = (N1_i + n0_i)^(1-t) (N2_i + n0_i)^t.
Theorem 1 (n0 = 0) is its integer t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.inputs import check_scales, check_sds
from autoscale_jax.fit.precision import float64, is_traced
from autoscale_jax.fit.simplex import bounds_of
from autoscale_jax.specs import BadInput

REASONS = (
    "",
    "no t reaches the total: the domains that grow are capped below it",
    "no t reaches the total: some domains shrink between the scales, so it does not occur",
    "both scales have the same optimum: there is no direction to extrapolate along",
    "a token count is not above 0, or the scales are not in ascending order",
)
ROOT_STEPS, BISECTIONS = 100, 70


class Extrapolation(NamedTuple):
    """Optimal tokens at a total.

    `keep_K` are the larger optimum's weights, `shrunk_K` a combination of answer and keep that
    trusts the answer as far as the noise allows. `shrinking_K`: r_i < 1, against the theorem.
    `censored_K`: at a bound at a measured scale, so that r_i is only a bound itself.
    """

    tokens_K: Any
    weights_K: Any
    t: Any
    ok: Any
    reason: Any
    keep_K: Any
    shrunk_K: Any
    trust: Any
    shrinking_K: Any
    censored_K: Any

    def explain(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """What speaks against the answer, in words (of one extrapolation, not of a batch)."""
        lines = [REASONS[int(self.reason)]] if int(self.reason) else []
        for flag_K, text in (
            (
                self.shrinking_K,
                "the optimum takes fewer tokens at the larger scale (r < 1), against"
                " the theorem: noise, or a law that does not hold",
            ),
            (self.censored_K, "at a floor or cap at a measured scale: its growth is only bounded"),
        ):
            which = [n for n, flag in zip(names, np.asarray(flag_K), strict=True) if flag]
            if which:
                lines.append(f"{', '.join(which)}: {text}")
        return tuple(lines)


def _root(
    total: Any, g1_K: Any, g2_K: Any, n0_K: Any, low_K: Any, high_K: Any
) -> tuple[Any, Any, Any]:
    """t with sum_i clip(N_i(t), low, high) = total, N(t), and a reason where there is none.

    g1, g2: N + n0 at the two scales.
    """
    log1_K = jnp.log(g1_K)
    slope_K = jnp.log(g2_K) - log1_K

    # A cap that the others' floors imply cannot bind at the root: without it the sum stays convex.
    room = total - low_K.sum()
    cap_K = jnp.where(high_K - low_K >= room * (1 - 1e-12), jnp.inf, high_K)

    def given(t: Any) -> tuple[Any, Any, Any]:
        grown_K = jnp.exp(log1_K + t * slope_K)
        n_K = grown_K - n0_K
        inside_K = (n_K > low_K) & (n_K < cap_K)
        first_K = jnp.where(inside_K, slope_K * grown_K, 0.0)
        return jnp.clip(n_K, low_K, cap_K).sum(), first_K.sum(), (first_K * slope_K).sum()

    # Targets from N2 up have their root at t >= 1, targets between the scales in (0, 1); the sum is
    # convex in t, so below N1 the root nearest to the measured scales is searched in t < 0.
    at1, at2 = (jnp.clip(g_K - n0_K, low_K, high_K).sum() for g_K in (g1_K, g2_K))
    # One free domain that alone fills the total bounds t; without one, all may be at their caps.
    grows_K = slope_K > 1e-12
    reach_K = (jnp.log(high_K + n0_K) - log1_K) / jnp.where(grows_K, slope_K, 1.0)
    first = jnp.where(grows_K & jnp.isinf(cap_K), reach_K, jnp.inf).min()
    last = jnp.where(grows_K, reach_K, -jnp.inf).max()
    far = jnp.maximum(jnp.where(jnp.isfinite(first), first, last), 1.0) + 1e-6
    low = jnp.where(total >= at2, 1.0, jnp.where(total >= at1, 0.0, -far - 60.0))
    high = jnp.where(total >= at2, far, jnp.where(total >= at1, 1.0, 0.0))
    # With a shrinking domain the sum rises again towards t = -inf: stay right of its minimum.
    below = total < at1
    low = _bisect(
        lambda t: (slope_K * jnp.exp(log1_K + t * slope_K)).sum() > 0,
        low,
        high,
        below & (slope_K.min() < 0),
    )
    # log(sum) is convex in t: the line through the two scales starts Halley on its monotone side.
    line = jnp.log(total / at1) / jnp.where(at2 > at1, jnp.log(at2 / at1), 1.0)
    start = jnp.where(below, (jnp.maximum(low, -1.0) + high) / 2, line)
    t = _halley(given, total, low, high, start, jnp.asarray(True))
    n_K = jnp.clip(jnp.exp(log1_K + t * slope_K) - n0_K, low_K, high_K)
    hit = jnp.abs(n_K.sum() - total) <= 1e-9 * total
    reason = jnp.where(hit, 0, jnp.where(total < at1, 2, 1))
    return t, n_K, jnp.where((jnp.abs(slope_K).max() < 1e-12) & ~hit, 3, reason)


@jax.jit
def _extrapolate(
    n1_K: Any, n2_K: Any, total: Any, n0_K: Any, lower_K: Any, upper_K: Any, sd1_K: Any, sd2_K: Any
) -> Extrapolation:
    floor = jnp.finfo(n1_K.dtype).tiny
    sane = (jnp.minimum(n1_K, n2_K) >= 0).all() & (jnp.minimum(n1_K, n2_K) + n0_K > 0).all()
    sane &= (n2_K.sum() >= n1_K.sum()) & (total > 0)
    g1_K, g2_K = jnp.maximum(n1_K + n0_K, floor), jnp.maximum(n2_K + n0_K, floor)
    w1_K, w2_K = n1_K / n1_K.sum(), n2_K / n2_K.sum()
    near = lambda w_K, bound_K: jnp.abs(w_K - bound_K) < 1e-6  # noqa: E731
    at_floor = (near(w1_K, lower_K), near(w2_K, lower_K))
    at_cap = (near(w1_K, upper_K), near(w2_K, upper_K))
    # At the same bound at both scales, nothing is known of its growth: it stays at the bound.
    low_K, high_K = lower_K * total, upper_K * total
    held_low_K, held_high_K = at_floor[0] & at_floor[1], at_cap[0] & at_cap[1]
    high_K = jnp.where(held_low_K, low_K, high_K)
    low_K = jnp.where(held_high_K, upper_K * total, low_K)
    t, tokens_K, reason = _root(total, g1_K, g2_K, n0_K, low_K, high_K)
    reason = jnp.where(sane, reason, 4)
    ok = (reason == 0) & jnp.isfinite(tokens_K).all()
    weights_K = jnp.where(ok, tokens_K / tokens_K.sum(), jnp.nan)
    keep_K = _bounded(w2_K, lower_K, upper_K)
    # Positive-part James-Stein: the share of the step in log weights that noise does not explain.
    step_K = jnp.log(jnp.maximum(weights_K, 1e-12) / jnp.maximum(keep_K, 1e-12))
    noise = (w2_K * ((t - 1) ** 2 * (sd1_K**2 + sd2_K**2))).sum()
    signal = (w2_K * step_K**2).sum()
    trust = jnp.clip(1 - noise / jnp.maximum(signal, 1e-300), 0.0, 1.0)
    trust = jnp.where(ok, jnp.where(noise == 0, 1.0, trust), 0.0)
    shrunk_K = jnp.where(ok, keep_K + trust * (weights_K - keep_K), keep_K)
    return Extrapolation(
        jnp.where(ok, tokens_K, jnp.nan),
        weights_K,
        t,
        ok,
        reason,
        keep_K,
        shrunk_K,
        trust,
        n2_K < n1_K * (1 - 1e-12),
        at_floor[0] | at_floor[1] | at_cap[0] | at_cap[1],
    )


def _halley(
    given: Callable[[Any], Any], total: Any, low: Any, high: Any, start: Any, needed: Any
) -> Any:
    """t in [low, high] with given(t)[0] = total; given = (increasing value, two derivatives)."""

    def refine(carry: Any) -> Any:
        low, high, t, steps, _ = carry
        value, slope, bend = given(t)
        above = value > total
        low, high = jnp.where(above, low, t), jnp.where(above, t, high)
        # Halley on log(value), which is nearly linear in t; halve where it leaves the bracket.
        miss, first = jnp.log(value / total), slope / value
        halley = t - 2 * miss * first / (2 * first**2 - miss * (bend / value - first**2))
        new = jnp.where((halley >= low) & (halley <= high), halley, (low + high) / 2)
        # Each step triples the digits (doubles them at a bound): the one from 1e-9 is the last.
        done = (jnp.abs(value - total) <= 1e-9 * total) | (new == t) | (steps >= ROOT_STEPS)
        return low, high, new, steps + 1, ~done

    # The predicate is a bool in the carry: re-evaluated floats can make a vmapped loop hang.
    carry = (low, high, jnp.clip(start, low, high), jnp.zeros((), jnp.int32), needed)
    return jax.lax.while_loop(lambda c: c[4], refine, carry)[2]


def _bounded(w_K: Any, lower_K: Any, upper_K: Any) -> Any:
    """Weights moved inside the bounds at the same sum: scaled by one factor where they are free."""

    def given(s: Any) -> tuple[Any, Any, Any]:
        v_K = w_K * jnp.exp(s)
        inside = jnp.where((v_K > lower_K) & (v_K < upper_K), v_K, 0.0).sum()
        return jnp.clip(v_K, lower_K, upper_K).sum(), inside, inside

    outside = ~((w_K >= lower_K) & (w_K <= upper_K)).all()
    zero = jnp.zeros(())
    s = _halley(given, jnp.ones(()), zero - 30, zero + 30, zero, outside)
    bounded_K = jnp.where(outside, jnp.clip(w_K * jnp.exp(s), lower_K, upper_K), w_K)
    return bounded_K / bounded_K.sum()


def _bisect(above: Callable[[Any], Any], low: Any, high: Any, needed: Any) -> Any:
    """Where `above` turns true between low and high; `low` at no cost where it is not `needed`."""

    def halve(carry: Any) -> Any:
        low, high, steps, _ = carry
        middle = (low + high) / 2
        over = above(middle)
        low, high = jnp.where(over, low, middle), jnp.where(over, middle, high)
        return low, high, steps + 1, steps + 1 < BISECTIONS

    # cond would run both branches under vmap; this bool stops the loop before it starts.
    start = (low, high, jnp.zeros((), jnp.int32), needed)
    return jax.lax.while_loop(lambda carry: carry[3], halve, start)[0]


@float64
def extrapolate(
    n1: Any,
    n2: Any,
    total: Any,
    *,
    n0: Any = 0.0,
    lower: Any = 0.0,
    upper: Any = 1.0,
    log_sd: Any = (0.0, 0.0),
) -> Extrapolation:
    """Optimal tokens at `total` from the optimal tokens at two scales (Theorem 1 for any target).

    Args:
      n1, n2: (K,) optimal tokens at the smaller and the larger scale, all above 0 unless n0 is.
      total: tokens to distribute; any target below, between or above the scales.
      n0: (K,) the law's offsets in tokens; 0 is the paper's Theorem 1.
      lower, upper: floors and caps on the weights, as in `optimal_mixture`.
      log_sd: sd of log n1 and of log n2 (scalars or (K,)), for the shrunken combination.

    Returns:
      an `Extrapolation`; where there is no root, ok is False, the weights are NaN and
      `explain` says why, while `keep_K` and `shrunk_K` (then equal) remain usable.

    Raises:
      BadInput: token counts that are negative, zero without n0, not finite, or of unequal length,
        or whose larger scale comes first. Inside a trace ok is False instead.
    """
    if not is_traced(n1, n2, total, n0, log_sd):
        check_scales(n1, n2, total, n0)
        check_sds(log_sd, len(n1))
    return solve(n1, n2, total, n0, lower, upper, log_sd)


def solve(
    n1: Any, n2: Any, total: Any, n0: Any, lower: Any, upper: Any, log_sd: Any
) -> Extrapolation:
    """`extrapolate` without its checks of n1, n2 and total."""
    n1_K, n2_K = jnp.asarray(n1, dtype=float), jnp.asarray(n2, dtype=float)
    k = n1_K.shape[0]
    lower_K, upper_K = map(jnp.asarray, bounds_of(lower, upper, k))
    spread = [jnp.broadcast_to(jnp.asarray(v, dtype=float), (k,)) for v in (n0, *log_sd)]
    return _extrapolate(
        n1_K, n2_K, jnp.asarray(total, dtype=float), spread[0], lower_K, upper_K, *spread[1:]
    )


def autoscale_ladder(n1: Any, n2: Any, total: float) -> np.ndarray:
    """Algorithm 2 as printed: N_x <- N_x N1^-1 N2 from N2 N1^-1 N2 until the sum reaches `total`.

    Returns (K,) tokens of the first step at or above the target (2x too many tokens at the median).

    Raises:
      BadInput: bad token counts, or a ladder that never reaches the target.
    """
    check_scales(n1, n2, total, 0.0)
    n1_K, n2_K = np.asarray(n1, dtype=np.float64), np.asarray(n2, dtype=np.float64)
    if not (n2_K > n1_K).any():
        raise BadInput(
            f"n2 = {n2_K.tolist()}: no domain grows from n1, so no step reaches the total"
        )
    n_K = n2_K / n1_K * n2_K
    while n_K.sum() < total:
        n_K = n_K / n1_K * n2_K
    return n_K
