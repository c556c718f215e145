"""The marginal likelihood of a Gaussian process, its exact gradient, and the search for its MAP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

REFUSED = 1e10  # value of parameters at which the covariance is not positive definite


@jax.custom_vjp
def negative_log_marginal(k_RxR: Any, y_R: Any) -> Any:
    """-log p(y) of y ~ N(0, k), up to a constant.

    Its gradient, (k^-1 - alpha alpha^T) / 2 with alpha = k^-1 y, takes one inverse: differentiating
    through the factorisation takes several times as long.
    """
    return _forward(k_RxR, y_R)[0]


def _forward(k_RxR: Any, y_R: Any) -> tuple[Any, tuple[Any, Any]]:
    chol_RxR = jnp.linalg.cholesky(k_RxR)
    alpha_R = jax.scipy.linalg.cho_solve((chol_RxR, True), y_R)
    value = 0.5 * y_R @ alpha_R + jnp.log(jnp.diag(chol_RxR)).sum()
    return value, (chol_RxR, alpha_R)


def _backward(saved: tuple[Any, Any], slope: Any) -> tuple[Any, Any]:
    chol_RxR, alpha_R = saved
    inverse_RxR = jax.scipy.linalg.cho_solve((chol_RxR, True), jnp.eye(len(alpha_R)))
    return slope * 0.5 * (inverse_RxR - alpha_R[:, None] * alpha_R), slope * alpha_R


negative_log_marginal.defvjp(_forward, _backward)


def maximum_a_posteriori(
    value_and_grad: Callable[[np.ndarray], tuple[Any, Any]],
    starts: Iterable[np.ndarray],
    low_P: np.ndarray,
    high_P: np.ndarray,
    steps: int,
) -> tuple[np.ndarray, bool]:
    """The parameters of least value that L-BFGS-B finds from any of the starts, and whether it
    converged there.

    Where the value is not finite, parameters count as bad: the search turns back.
    """

    def both(theta_P: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient_P = value_and_grad(theta_P)
        if not (np.isfinite(value) and np.isfinite(gradient_P).all()):
            return REFUSED, np.zeros_like(theta_P)
        return float(value), np.asarray(gradient_P)

    options = {"maxiter": steps, "maxfun": 2 * steps}
    found = [
        minimize(
            both, np.clip(start_P, low_P, high_P), jac=True, method="L-BFGS-B",
            bounds=list(zip(low_P, high_P, strict=True)), options=options,
        )
        for start_P in starts
    ]  # fmt: skip
    best = min(found, key=lambda result: result.fun)
    return np.asarray(best.x), bool(best.success and best.fun < REFUSED)
