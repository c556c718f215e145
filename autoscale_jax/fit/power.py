"""The paper's law (Eq. 2): objective = (N0 + x)^-b + c in the tokens x of one domain."""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.inputs import finite, one_of
from autoscale_jax.fit.precision import float64, is_traced
from autoscale_jax.specs import BadInput

Offset = Literal["free", "zero"]
Branch = Literal["steep", "flat"]
# Bounds: N0 in base amounts, b. Log coordinates start at log(SOFT) where N0 = 0.
MAX_OFFSET, MIN_EXPONENT, MAX_EXPONENT, SOFT = 100.0, 1e-6, 30.0, 0.05
# (N0, b): both exact solutions of three points lie in the basin of at least one of them.
STARTS = ((2.5, 1.5), (6.0, 1.5), (1.0, 1.0), (3.0, 3.0), (0.3, 0.05), (2.0, 0.03), (1.0, 0.2))
ITERATIONS = 60
KEPT = 3  # solutions reported; three points have at most two
TIE = 1e-7  # rms residuals this close to the best (relative to y of about 1) are equally good


class PowerLaw(NamedTuple):
    """Sum over K domains of (offset + N/base)^-exponent, in units of the base run's objective."""

    offset_K: Any
    exponent_K: Any
    base_tokens_K: Any
    base_value: Any

    def predict(self, tokens: Any) -> Any:
        """Objective at token counts (..., K) -> (..., 1); exact at the base run."""
        x = jnp.maximum(tokens / self.base_tokens_K, 1e-12)
        now = (self.offset_K + x) ** -self.exponent_K
        base = (self.offset_K + 1.0) ** -self.exponent_K
        return (self.base_value * (1 + (now - base).sum(-1)))[..., None]


class PowerLawFit(NamedTuple):
    """Fit of (x + offset)^-exponent + constant; `...` are the leading axes of the input.

    solutions: (..., KEPT, 3) of (offset, exponent, constant): every solution as good as the best,
    the steepest first, NaN where there are fewer. `ok`: the solver converged, whatever the
    residual. `decided`: one solution only, and a Jacobian (of log(N0 + .05) and log b, with c
    solved for) whose condition number is below 1e3, so that the data fix the parameters.
    """

    offset: Any
    exponent: Any
    constant: Any
    residual: Any
    ok: Any
    decided: Any
    solutions: Any
    condition: Any


def _variable_projection(theta_2: Any, x_P: Any, y_P: Any, w_P: Any, free: Any) -> Any:
    """Residuals and Jacobian in (log(N0 + SOFT), log b) with the constant c solved for exactly."""
    a = jnp.where(free, jnp.exp(theta_2[0]) - SOFT, 0.0)
    b = jnp.exp(theta_2[1])
    logs = jnp.log(a + x_P)
    f = jnp.exp(-b * logs)
    jac = jnp.stack([-b * f / (a + x_P) * (a + SOFT) * free, -b * logs * f], -1)
    share = w_P / w_P.sum()
    c = share @ (y_P - f)
    root = jnp.sqrt(share)
    return root * (f + c - y_P), root[:, None] * (jac - share @ jac), c


def _levenberg_marquardt(theta_2: Any, x_P: Any, y_P: Any, w_P: Any, free: Any) -> Any:
    """A fixed number of damped Gauss-Newton steps inside the bounds: it cannot hang or diverge."""
    low = jnp.log(jnp.array([SOFT, MIN_EXPONENT]))
    high = jnp.log(jnp.array([MAX_OFFSET, MAX_EXPONENT]))

    def step(carry: Any, _: None) -> tuple[Any, None]:
        theta, r_P, jac, damp = carry
        h = jac.T @ jac
        g = jac.T @ r_P
        # A coordinate held at its bound leaves the system: the other one moves freely.
        held = ((theta <= low) & (g > 0)) | ((theta >= high) & (g < 0))
        g = jnp.where(held, 0.0, g)
        off = jnp.where(held.any(), 0.0, h[0, 1])
        d0, d1 = h[0, 0] * (1 + damp) + 1e-30, h[1, 1] * (1 + damp) + 1e-30
        det = d0 * d1 - off * off
        move = jnp.stack([d1 * g[0] - off * g[1], d0 * g[1] - off * g[0]]) / det
        new = jnp.clip(theta - jnp.clip(move, -2.0, 2.0), low, high)
        r_new, jac_new, _ = _variable_projection(new, x_P, y_P, w_P, free)
        better = (r_new @ r_new) < (r_P @ r_P)
        pick = functools.partial(jnp.where, better)
        damp = jnp.clip(jnp.where(better, damp * 0.2, damp * 4.0), 1e-14, 1e10)
        return (pick(new, theta), pick(r_new, r_P), pick(jac_new, jac), damp), None

    theta_2 = jnp.where(free | jnp.array([False, True]), jnp.clip(theta_2, low, high), low)
    r_P, jac, _ = _variable_projection(theta_2, x_P, y_P, w_P, free)
    (theta_2, r_P, jac, _), _ = jax.lax.scan(
        step, (theta_2, r_P, jac, jnp.asarray(1e-3)), None, length=ITERATIONS
    )
    c = _variable_projection(theta_2, x_P, y_P, w_P, free)[2]
    return theta_2, c, r_P, jac


@functools.partial(jax.jit, static_argnames=("branch",))
def _fit_lanes(x_NxP: Any, y_NxP: Any, w_NxP: Any, start_NxTx2: Any, free: Any, branch: str) -> Any:
    """Best and tied solutions of N independent fits from T starts each."""
    solve = jax.vmap(_levenberg_marquardt, in_axes=(0, None, None, None, None))
    theta, c_NxT, r_NxTxP, jac = jax.vmap(solve, in_axes=(0, 0, 0, 0, None))(
        start_NxTx2, x_NxP, y_NxP, w_NxP, free
    )
    rms_NxT = jnp.sqrt((r_NxTxP**2).sum(-1))
    tied_NxT = rms_NxT <= rms_NxT.min(-1, keepdims=True) + TIE
    # Order the tied solutions by steepness; drop those that repeat a neighbour.
    order = jnp.argsort(jnp.where(tied_NxT, -theta[..., 1], jnp.inf), -1)
    theta = jnp.take_along_axis(theta, order[..., None], 1)
    c_NxT = jnp.take_along_axis(c_NxT, order, 1)
    r_NxTxP = jnp.take_along_axis(r_NxTxP, order[..., None], 1)
    jac = jnp.take_along_axis(jac, order[..., None, None], 1)
    tied_NxT = jnp.take_along_axis(tied_NxT, order, 1)
    repeat = jnp.abs(jnp.diff(theta, axis=1)).max(-1) < 1e-3
    distinct_NxT = tied_NxT & jnp.concatenate([jnp.ones_like(tied_NxT[:, :1]), ~repeat], 1)
    count_N = distinct_NxT.sum(-1)
    last_N = jnp.where(distinct_NxT, jnp.arange(theta.shape[1]), -1).max(-1)
    pick_N = jnp.zeros_like(last_N) if branch == "steep" else last_N
    lane = jnp.arange(theta.shape[0])
    compact = jnp.argsort(~distinct_NxT, axis=-1)[:, :KEPT]
    offset_NxT = jnp.where(free, jnp.exp(theta[..., 0]) - SOFT, 0.0)
    table = jnp.stack([offset_NxT, jnp.exp(theta[..., 1]), c_NxT], -1)
    solutions = jnp.where(distinct_NxT[..., None], table, jnp.nan)
    solutions = jnp.take_along_axis(solutions, compact[..., None], 1)
    jac_N, r_NxP = jac[lane, pick_N], r_NxTxP[lane, pick_N]
    # Condition number of a matrix of two columns, in closed form from its normal equations.
    normal = jnp.einsum("npi,npj->nij", jac_N, jac_N)
    half, det = (normal[:, 0, 0] + normal[:, 1, 1]) / 2, jnp.linalg.det(normal)
    top = half + jnp.sqrt(jnp.maximum(half**2 - det, 0.0))
    condition_N = jnp.where(free, top / jnp.sqrt(jnp.maximum(det, 1e-300)), 1.0)
    slope = jnp.abs(jnp.einsum("npk,np->nk", jac_N, r_NxP))
    inside = (theta[lane, pick_N] > jnp.log(jnp.array([SOFT, MIN_EXPONENT])) + 1e-9) & (
        theta[lane, pick_N] < jnp.log(jnp.array([MAX_OFFSET, MAX_EXPONENT])) - 1e-9
    )
    ok_N = jnp.where(inside, slope < 1e-7, True).all(-1) & jnp.isfinite(r_NxP).all(-1)
    best = table[lane, pick_N]
    fitted_NxP = (best[:, :1] + x_NxP) ** -best[:, 1:2] + best[:, 2:]
    residual = jnp.where(w_NxP > 0, fitted_NxP - y_NxP, 0.0)
    return best, residual, ok_N, (count_N == 1) & (condition_N < 1e3), solutions, condition_N


@float64
def fit_power_law(
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    offset: Offset = "free",
    branch: Branch = "steep",
    starts: Any = None,
) -> PowerLawFit:
    """Least-squares fit of Eq. 2, y = (x + N0)^-b + c, to P points; leading axes are separate fits.

    Args:
      x: (..., P) tokens of the domain in units of its base amount (the base run is 1).
      y: (..., P) objective in units of the base run's.
      weights: (..., P) 1/variance of each point; 0 leaves a point out (padding).
      offset: "free" fits N0 (Eq. 2 and the published code); "zero" is Algorithm 1 as printed.
      branch: three points have two exact solutions; "steep" is the published code's.
      starts: (..., T, 2) starts (N0, b), by default a grid that reaches every branch.

    Raises:
      BadInput: fewer points than parameters, or a point that is not finite or not positive in x.
    """
    one_of("offset", offset, get_args(Offset))
    one_of("branch", branch, get_args(Branch))
    shapes = [np.shape(v) for v in (x, y, 1.0 if weights is None else weights)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise BadInput(f"x, y, weights have shapes {shapes}: give (..., P) each") from error
    if not shape or not shape[-1]:
        raise BadInput(f"y has shape {shape}: give points, (..., P)")
    x, y, w = (
        jnp.broadcast_to(jnp.asarray(v, dtype=float), shape)
        for v in (x, y, 1.0 if weights is None else weights)
    )
    if not is_traced(x, y, w):
        _check_points(np.asarray(x), np.asarray(y), np.asarray(w), offset)
    lead, points = y.shape[:-1], y.shape[-1]
    start_Tx2 = jnp.asarray(STARTS if starts is None else starts, dtype=y.dtype)
    start_Tx2 = jnp.log(start_Tx2 + jnp.array([SOFT, 0.0]))
    tail = start_Tx2.shape[-2:]
    start = jnp.broadcast_to(start_Tx2, (*lead, *tail)).reshape(-1, *tail)
    flat = [jnp.where(w > 0, v, 1.0).reshape(-1, points) for v in (x, y)]
    best, residual, ok, decided, solutions, condition = _fit_lanes(
        *flat, w.reshape(-1, points), start, jnp.asarray(offset == "free"), branch
    )
    found = (*best.T, residual, ok, decided, solutions, condition)
    return PowerLawFit(*(v.reshape(*lead, *v.shape[1:]) for v in found))


def _check_points(x: np.ndarray, y: np.ndarray, w: np.ndarray, offset: str) -> None:
    finite("weights", w, "give 1/variance, 0 or more (0 leaves a point out)", least=0)
    used = w > 0
    finite("x", x, "give tokens in units of the base run's, above 0", above=0, used=used)
    finite("y", y, "give the objective in units of the base run's", used=used)
    need = 3 if offset == "free" else 2
    x_NxP = np.sort(np.where(used, x, np.nan).reshape(-1, x.shape[-1]))  # NaN comes last
    distinct_N = (np.diff(x_NxP) > 0).sum(1) + np.isfinite(x_NxP[:, 0])
    for row in np.flatnonzero(distinct_N < need)[:1]:
        n = distinct_N[row]
        raise BadInput(
            f"row {row}: {n} distinct amounts for {need} parameters: add a run"
            + (" or fit with offset='zero'" if n == 2 else "")
        )
