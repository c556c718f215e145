"""The best mixture under a law: projected gradient on the capped simplex, then Newton.

The only file that imports jaxopt.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.inputs import finite, one_of
from autoscale_jax.fit.law import Predicts
from autoscale_jax.fit.objective import Objective, eval_weights_of, objective_value
from autoscale_jax.fit.power import PowerLaw
from autoscale_jax.fit.precision import float64, is_traced
from autoscale_jax.fit.separable import power_law_optimum
from autoscale_jax.specs import BadInput

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
    from jaxopt import ProjectedGradient

PROJECTED_GRADIENT_STEPS, NEWTON_STEPS = 60, 30


class Mixture(NamedTuple):
    """A solved mixture.

    `kkt` is ||w - P(w - grad/|grad|)||_inf, 0 at a stationary point; for a convex law `gap` bounds
    how far `value` is above the optimum (Frank-Wolfe's duality gap).
    """

    weights_K: Any
    value: Any
    kkt: Any
    gap: Any
    ok: Any


def project(v_K: Any, lower_K: Any, upper_K: Any) -> Any:
    """Nearest point with lower <= w <= upper and sum w = 1 (the bounds must allow one)."""

    def halve(_: int, bracket: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = bracket
        middle = (low + high) / 2
        too_much = jnp.clip(v_K - middle, lower_K, upper_K).sum() > 1
        return jnp.where(too_much, middle, low), jnp.where(too_much, high, middle)

    # A fixed number of halvings: a tolerance test in a vmapped while loop can hang.
    bracket = ((v_K - upper_K).min() - 1e-12, (v_K - lower_K).max() + 1e-12)
    low, high = jax.lax.fori_loop(0, 60, halve, bracket)
    shift = (low + high) / 2
    free_K = (v_K - shift > lower_K) & (v_K - shift < upper_K)
    fixed = jnp.where(free_K, 0.0, jnp.clip(v_K - shift, lower_K, upper_K)).sum()
    exact = (jnp.where(free_K, v_K, 0.0).sum() + fixed - 1) / jnp.maximum(free_K.sum(), 1)
    return jnp.clip(v_K - jnp.where(free_K.any(), exact, shift), lower_K, upper_K)


def minimise(f: Callable[[Any], Any], start_K: Any, lower_K: Any, upper_K: Any) -> Mixture:
    """Minimise f (smooth, pure jnp) over the capped simplex from `start_K`; jit and vmap it."""
    solver = ProjectedGradient(
        fun=f,
        projection=lambda w, bounds: project(w, *bounds),
        maxiter=PROJECTED_GRADIENT_STEPS,
        tol=1e-10,
        maxls=12,
        # Scans of fixed length: jaxopt's while loops can hang under vmap for ever.
        implicit_diff=False,
        unroll=True,
    )
    bounds = (lower_K, upper_K)
    start_K = project(start_K, *bounds)
    w_K = solver.run(start_K, hyperparams_proj=bounds).params
    w_K = jnp.where(jnp.isfinite(w_K).all() & (f(w_K) <= f(start_K)), w_K, start_K)
    return polish(f, w_K, lower_K, upper_K)


def polish(f: Callable[[Any], Any], start_K: Any, lower_K: Any, upper_K: Any) -> Mixture:
    """`minimise` by Newton alone: enough for a convex f, at half the time to compile."""
    w_K = _newton(f, project(start_K, lower_K, upper_K), lower_K, upper_K)
    return certify(f, w_K, lower_K, upper_K)


def _newton(f: Callable[[Any], Any], w_K: Any, lower_K: Any, upper_K: Any) -> Any:
    """Active-set Newton steps; each is the best of a fixed ladder, so the objective never rises."""
    sizes = jnp.array([1.0, 0.5, 0.25, 0.06, 0.01, 1e-3, 1e-5])
    k = w_K.shape[0]

    def step(w_K: Any, _: None) -> tuple[Any, None]:
        g_K, h = jax.grad(f)(w_K), jax.hessian(f)(w_K)
        inside_K = (w_K > lower_K + 1e-13) & (w_K < upper_K - 1e-13)
        mu = jnp.where(inside_K, g_K, 0.0).sum() / jnp.maximum(inside_K.sum(), 1)
        mu = jnp.where(inside_K.any(), mu, (g_K.min() + g_K.max()) / 2)
        pushed_out_K = jnp.where(w_K <= lower_K + 1e-13, g_K > mu, g_K < mu) & ~inside_K
        on_K = jnp.where(pushed_out_K, 0.0, 1.0)
        scale = jnp.abs(jnp.diag(h)).max() + 1e-300
        system = jnp.zeros((k + 1, k + 1))
        block = h / scale * on_K[:, None] * on_K + jnp.diag(1 - on_K) + 1e-12 * jnp.eye(k)
        system = system.at[:k, :k].set(block).at[:k, k].set(on_K).at[k, :k].set(on_K)
        d_K = jnp.linalg.solve(system, jnp.concatenate([-g_K / scale * on_K, jnp.zeros(1)]))[:k]
        d_K = jnp.where(jnp.isfinite(d_K), d_K, 0.0)
        downhill_K = -g_K / (jnp.abs(g_K).max() + 1e-300)
        tries = jnp.concatenate([sizes[:, None] * d_K, sizes[:, None] * downhill_K]) + w_K
        tries = jax.vmap(project, in_axes=(0, None, None))(tries, lower_K, upper_K)
        values = jax.vmap(f)(tries)
        values = jnp.where(jnp.isfinite(values), values, jnp.inf)
        best, value = values.argmin(), f(w_K)
        w_K = jnp.where(values[best] < value, tries[best], w_K)
        # Below rounding of the value only the gradient can tell: trust Newton's full step there.
        flat = jnp.abs(values[0] - value) <= 1e-14 * (jnp.abs(value) + jnp.abs(g_K).max())
        return jnp.where(flat, tries[0], w_K), None

    return jax.lax.scan(step, w_K, None, length=NEWTON_STEPS)[0]


def certify(f: Callable[[Any], Any], w_K: Any, lower_K: Any, upper_K: Any) -> Mixture:
    """The mixture with its KKT residual and duality gap."""
    value, g_K = jax.value_and_grad(f)(w_K)
    # Near a minimum inside the simplex every gradient may vanish: measure against the value too.
    size = jnp.abs(g_K).max() + 1e-6 * jnp.abs(value) + 1e-300
    spread_K = (g_K - g_K.min()) / size
    kkt = jnp.abs(w_K - project(w_K - spread_K, lower_K, upper_K)).max()
    # The linear programme's optimum: floors, and the rest to the steepest domains up to their caps.
    order = jnp.argsort(g_K)
    room_K = (upper_K - lower_K)[order]
    before_K = jnp.cumsum(room_K) - room_K
    given_K = jnp.clip(1 - lower_K.sum() - before_K, 0.0, room_K)
    corner_K = lower_K.at[order].add(given_K)
    gap = jnp.maximum(g_K @ (w_K - corner_K), 0.0)
    ok = jnp.isfinite(value) & jnp.isfinite(w_K).all() & (jnp.abs(w_K.sum() - 1) < 1e-9)
    return Mixture(w_K, value, kkt, gap, ok & (kkt < 1e-4))


@functools.partial(jax.jit, static_argnames=("objective",))
def _solve(
    law: Any, tokens: Any, lower_K: Any, upper_K: Any, v_E: Any, starts_TxK: Any, objective: str
) -> Mixture:
    def f(w_K: Any) -> Any:
        loss_E = law.predict(w_K * tokens)
        return loss_E[0] if isinstance(law, PowerLaw) else objective_value(loss_E, objective, v_E)  # type: ignore[arg-type]

    if isinstance(law, PowerLaw):
        return certify(f, power_law_optimum(law, tokens, lower_K, upper_K), lower_K, upper_K)
    found = jax.vmap(lambda start: minimise(f, start, lower_K, upper_K))(starts_TxK)
    best = jnp.argmin(jnp.where(found.ok, found.value, jnp.inf))
    return Mixture(*(x[best] for x in found))


@float64
def optimal_mixture(
    law: Predicts,
    tokens: Any,
    *,
    lower: Any = 0.0,
    upper: Any = 1.0,
    target_weights: Any = None,
    objective: Objective = "mean_perplexity",
    starts_TxK: Any = None,
) -> Mixture:
    """The mixture of `tokens` tokens that minimises the objective under a law (Eq. 1 of the paper).

    Args:
      law: a fitted law. A `PowerLaw` predicts the objective itself and is solved by bisection on
        the multiplier; any other goes through projected gradient and Newton.
      tokens: total training tokens.
      lower, upper: floors and caps on the K weights (scalars or (K,)).
      target_weights: (E,) weights of the evaluation domains, in proportion; equal by default.
      objective: what the predicted losses are judged by (a `PowerLaw` predicts it itself).
      starts_TxK: starting mixtures, for laws that are not convex; uniform by default.

    Raises:
      BadInput: bounds that no mixture meets, tokens not above 0.
    """
    k = _domains_of(law)
    lower_K, upper_K = bounds_of(lower, upper, k)
    one_of("objective", objective, get_args(Objective))
    if not is_traced(tokens):
        finite("tokens", tokens, "give a number above 0", above=0)
    if not is_traced(law):
        for leaf in jax.tree.leaves(law):
            finite(type(law).__name__, leaf, "the law's parameters must be finite")
    if starts_TxK is None:
        starts_TxK = jnp.full((1, k), 1 / k)
    elif not is_traced(starts_TxK):
        starts_TxK = finite("starts_TxK", starts_TxK, "give mixtures, 0 or more", least=0)
        if starts_TxK.ndim != 2 or starts_TxK.shape[1] != k or not len(starts_TxK):
            raise BadInput(f"starts_TxK has shape {starts_TxK.shape}: give T mixtures of {k}")
    if target_weights is not None:
        target_weights = _eval_weights(law, target_weights, k)
    return _solve(
        law,
        jnp.asarray(tokens, dtype=float),
        jnp.asarray(lower_K),
        jnp.asarray(upper_K),
        target_weights,
        jnp.asarray(starts_TxK),
        objective,
    )


def _eval_weights(law: Any, weights: Any, k: int) -> Any:
    """Checked weights of the law's evaluation domains."""
    if isinstance(law, PowerLaw):
        raise BadInput("target_weights: a PowerLaw predicts the objective itself: leave them out")
    if is_traced(weights):
        return jnp.asarray(weights)
    uniform_K = jax.ShapeDtypeStruct((k,), float)
    evals = jax.eval_shape(law.predict, uniform_K).shape[-1]
    return jnp.asarray(eval_weights_of(weights, tuple(map(str, range(evals)))))


def _domains_of(law: Any) -> int:
    for size in ("base_tokens_K", "scale_K"):
        if hasattr(law, size):
            return int(np.shape(getattr(law, size))[-1])
    raise BadInput(f"{type(law).__name__}: not a fitted law (it has no scale_K)")


def bounds_of(lower: Any, upper: Any, k: int, names: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """Floors and caps as (K,) arrays, checked to allow a mixture.

    Raises:
      BadInput: a floor above its cap, floors that sum above 1 or caps below 1.
    """
    if is_traced(lower, upper):
        return jnp.broadcast_to(lower, (k,)), jnp.broadcast_to(upper, (k,))
    try:
        lower_K = np.broadcast_to(np.asarray(lower, dtype=np.float64), (k,))
        upper_K = np.broadcast_to(np.asarray(upper, dtype=np.float64), (k,))
    except (TypeError, ValueError) as error:
        raise BadInput(f"lower, upper: give one number or {k}, one for each domain") from error
    upper_K = np.minimum(upper_K, 1.0)
    for i in range(k):
        if not 0 <= lower_K[i] <= upper_K[i]:
            name = names[i] if names else str(i)
            raise BadInput(
                f"domain {name}: floor {lower_K[i]} and cap {upper_K[i]}: need 0 <= floor <= cap"
            )
    if lower_K.sum() > 1 + 1e-12:
        raise BadInput(f"lower: the floors sum to {lower_K.sum():.6g}: they must sum to 1 at most")
    if upper_K.sum() < 1 - 1e-12:
        raise BadInput(f"upper: the caps sum to {upper_K.sum():.6g}: they must sum to 1 at least")
    return lower_K, upper_K
