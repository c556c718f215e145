"""Bounded Levenberg-Marquardt with a fixed number of steps: safe under vmap, never a hang."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def levenberg_marquardt(
    residual: Callable[[Any], Any], theta_P: Any, low_P: Any, high_P: Any, steps: int
) -> tuple[Any, Any, Any]:
    """Minimise |residual(theta)|^2 / 2 inside the bounds; a parameter with low = high stays there.

    Returns theta, the cost and the largest |gradient| among parameters that are free to move,
    relative to |residual| (0 at a minimum). A step that does not lower the cost is not taken, so
    NaN and overflow are never walked into.
    """
    jacobian = jax.jacfwd(residual)

    def system(theta: Any) -> tuple[Any, Any, Any, Any]:
        r, jac = residual(theta), jacobian(theta)
        g = jac.T @ r
        held = ((theta <= low_P) & (g > 0)) | ((theta >= high_P) & (g < 0)) | (low_P >= high_P)
        return r, jac, jnp.where(held, 0.0, g), ~held

    def step(carry: Any, _: None) -> tuple[Any, None]:
        theta, cost, damp = carry
        _, jac, g, free = system(theta)
        h = (jac.T @ jac) * free[:, None] * free
        diag = jnp.where(free, jnp.diag(h), 1.0)
        move = jax.scipy.linalg.solve(
            h + jnp.diag(damp * diag + jnp.where(free, 1e-12, 1.0)), g, assume_a="pos"
        )
        new = jnp.clip(theta - jnp.where(jnp.isfinite(move), move, 0.0), low_P, high_P)
        cost_new = 0.5 * (residual(new) ** 2).sum()
        better = cost_new < cost
        pick = functools.partial(jnp.where, better)
        damp = jnp.clip(jnp.where(better, damp * 0.2, damp * 4.0), 1e-12, 1e12)
        return (pick(new, theta), pick(cost_new, cost), damp), None

    theta_P = jnp.clip(theta_P, low_P, high_P)
    cost = 0.5 * (residual(theta_P) ** 2).sum()
    start = (theta_P, jnp.where(jnp.isfinite(cost), cost, jnp.inf), jnp.asarray(1e-2))
    (theta_P, cost, _), _ = jax.lax.scan(step, start, None, length=steps)
    r, jac, g, _ = system(theta_P)
    size = jnp.sqrt((r**2).sum()) * jnp.sqrt((jac**2).sum(0)) + 1e-12
    return theta_P, cost, (jnp.abs(g) / size).max()
