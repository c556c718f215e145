"""Laws that are a curve with parameters: starts, bounds, priors, and one fit for all of them.

Such a law is a frozen object with `name`, `curve(theta_P, x_K, size)` (pure jnp: one evaluation
domain's loss at scaled tokens x) and `init(points, own_E)` (a `Problem`): one small file.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.law import FEWEST, LawFit, Points, check_points
from autoscale_jax.fit.lm import levenberg_marquardt
from autoscale_jax.fit.precision import scope

LANES = 32  # fits per compiled call: starts, evaluation domains and samples share one program
ROWS = 8  # runs are padded to a multiple of it: one more run compiles nothing anew
STEPS = 60
HUBER = 2.0  # residuals beyond this many sd count less than quadratically


class Problem(NamedTuple):
    """T starts, bounds and independent Gaussian priors (sd inf: none) of E domains' P parameters.

    `pooled_P` marks parameters whose prior means the evaluation domains share and decide together.
    """

    starts_ExTxP: np.ndarray
    low_ExP: np.ndarray
    high_ExP: np.ndarray
    mean_ExP: np.ndarray
    sd_ExP: np.ndarray
    pooled_P: np.ndarray


class ParametricLaw:
    """One functional form. `gauges` counts the directions in which its parameters move together
    without moving the curve."""

    name: str
    gauges = 0

    def curve(self, theta_P: Any, x_K: Any, size: Any) -> Any:
        """One evaluation domain's loss at tokens x (in units of `Points.scale`)."""
        raise NotImplementedError

    def init(self, points: Points, own_E: np.ndarray) -> Problem:
        """Starts, bounds and priors. own_E: index of the training domain of that name, or -1."""
        raise NotImplementedError

    def fit(
        self, points: Points, own_E: np.ndarray, *, samples: int = 0, correlation: float = 0.0,
        seed: int = 0,
    ) -> LawFit:  # fmt: skip
        """`fit_law`."""
        return fit_law(self, points, own_E, samples=samples, correlation=correlation, seed=seed)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["theta_ExP", "scale_K", "size"],
    meta_fields=["law"],
)
@dataclasses.dataclass(frozen=True)
class FittedLaw:
    """A law with parameters. With a leading axis on `theta_ExP` it is several: `sample` picks."""

    theta_ExP: Any
    scale_K: Any
    size: Any
    law: ParametricLaw

    def __len__(self) -> int:
        return len(self.theta_ExP)

    def sample(self, i: Any) -> FittedLaw:
        """The i-th of several samples."""
        return dataclasses.replace(self, theta_ExP=self.theta_ExP[i])

    def predict(self, tokens: Any) -> Any:
        """Losses (..., E), nats per token, at tokens (..., K) of a model of size `self.size`."""
        x = tokens / self.scale_K
        one = jax.vmap(self.law.curve, in_axes=(0, None, None))
        flat = jax.vmap(one, in_axes=(None, 0, None))(
            self.theta_ExP, x.reshape(-1, x.shape[-1]), self.size
        )
        return flat.reshape(*x.shape[:-1], -1)


@functools.partial(jax.jit, static_argnames=("law", "steps"))
def _fit_lanes(
    law: ParametricLaw, steps: int, x_RxK: Any, size_R: Any, loss_NxR: Any, weight_NxR: Any,
    start_NxP: Any, low_NxP: Any, high_NxP: Any, mean_NxP: Any, precision_NxP: Any,
) -> Any:  # fmt: skip
    def one(loss_R, weight_R, start_P, low_P, high_P, mean_P, precision_P):  # type: ignore[no-untyped-def]
        def residual(theta_P: Any) -> Any:
            predicted_R = jax.vmap(law.curve, in_axes=(None, 0, 0))(theta_P, x_RxK, size_R)
            r_R = (predicted_R - loss_R) * weight_R
            r_R = r_R * jnp.sqrt(2 / (jnp.sqrt(1 + (r_R / HUBER) ** 2) + 1))
            return jnp.concatenate([r_R, (theta_P - mean_P) * precision_P])

        return levenberg_marquardt(residual, start_P, low_P, high_P, steps)

    lanes = (loss_NxR, weight_NxR, start_NxP, low_NxP, high_NxP, mean_NxP, precision_NxP)
    return jax.vmap(one)(*lanes)


def fit_many(
    law: ParametricLaw, points: Points, problem: Problem, start_NxP: Any, loss_NxR: Any,
    mean_NxP: Any, domain_N: np.ndarray, steps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """N independent fits, lane n of evaluation domain `domain_N[n]`; theta, cost and gradient."""
    weight_NxR = _pad_rows(1 / points.sd_RxE, 0.0).T[domain_N]
    lanes = [
        _pad_rows(loss_NxR.T).T, weight_NxR, start_NxP, problem.low_ExP[domain_N],
        problem.high_ExP[domain_N], mean_NxP, 1 / problem.sd_ExP[domain_N],
    ]  # fmt: skip
    n = len(domain_N)
    pad = -n % LANES
    lanes = [np.concatenate([v, np.repeat(v[-1:], pad, 0)]) for v in lanes]
    found = []
    with scope():
        x_RxK = jnp.asarray(_pad_rows(points.tokens_RxK / points.scale))
        size_R = jnp.asarray(_pad_rows(points.size_R), dtype=float)
        for i in range(0, n + pad, LANES):
            chunk = [jnp.asarray(v[i : i + LANES], dtype=float) for v in lanes]
            found.append([np.asarray(v) for v in _fit_lanes(law, steps, x_RxK, size_R, *chunk)])
    theta, cost, slope = (np.concatenate(v)[:n] for v in zip(*found, strict=True))
    return theta, cost, slope


def _pad_rows(v_R: Any, value: float | None = None) -> np.ndarray:
    """Rows up to a multiple of ROWS: `value`, or the last row again."""
    v_R = np.asarray(v_R)
    extra = np.repeat(v_R[-1:], -len(v_R) % ROWS, axis=0)
    return np.concatenate([v_R, extra if value is None else np.full_like(extra, value)])


def fit_law(
    law: ParametricLaw,
    points: Points,
    own_E: np.ndarray,
    *,
    samples: int = 0,
    correlation: float = 0.0,
    seed: int = 0,
    fewest: int = FEWEST,
) -> LawFit:
    """Fit a law to runs of any budgets: multi-start, bounded, ridged, pooled; with S samples.

    A sample refits to losses with fresh noise and to prior means with fresh prior draws
    (randomised MAP: exact posterior draws for a law that is linear in its parameters), so what
    the data do not decide varies as far as the prior lets it. `correlation` is that of one run's
    noise between evaluation domains. Noise sds are inflated where the law misfits beyond them.

    Raises:
      BadInput: a loss or token count that is not finite, or fewer than `fewest` runs.
    """
    check_points(points, law.name, fewest)
    problem = law.init(points, own_E)
    e, t, p = problem.starts_ExTxP.shape
    loss_ExR = points.loss_RxE.T
    domain_N = np.repeat(np.arange(e), t)
    mean_ExP = problem.mean_ExP
    start_NxP = problem.starts_ExTxP.reshape(-1, p)
    for _ in range(3 if problem.pooled_P.any() else 1):
        theta, cost, slope = fit_many(
            law, points, problem, start_NxP, loss_ExR[domain_N], mean_ExP[domain_N], domain_N, STEPS
        )
        best_E = np.where(np.isfinite(cost), cost, np.inf).reshape(e, t).argmin(1)
        theta_ExP = theta.reshape(e, t, p)[np.arange(e), best_E]
        mean_ExP = _pool(problem, theta_ExP)[0]
        # Later rounds only follow the pooled mean: one start each.
        start_NxP, domain_N, t = theta_ExP, np.arange(e), 1
        slope_E = slope.reshape(e, -1)[np.arange(e), best_E]
    fitted = FittedLaw(theta_ExP, np.full(points.tokens_RxK.shape[1], points.scale), 1.0, law)
    residual_RxE = predict(fitted, points.tokens_RxK, points.size_R) - points.loss_RxE
    z_RxE = residual_RxE / points.sd_RxE
    used = np.isfinite(points.sd_RxE)
    free_E = ((problem.low_ExP < problem.high_ExP) & ~np.isfinite(problem.sd_ExP)).sum(1)
    degrees = max(used.sum() - min(free_E.sum(), used.sum() / 2), 1)
    misfit = float(np.sqrt((np.where(used, z_RxE, 0) ** 2).sum() / degrees))
    theta_SxExP = np.zeros((0, e, p))
    if samples:
        wider = points._replace(sd_RxE=points.sd_RxE * max(misfit, 1.0))
        theta_SxExP = _resample(
            law, wider, problem, theta_ExP, mean_ExP, samples, correlation, seed
        )
    laws_S = dataclasses.replace(fitted, theta_ExP=theta_SxExP)
    ok_E = np.isfinite(theta_ExP).all(1) & (slope_E < 1e-3)
    return LawFit(fitted, laws_S, residual_RxE, ok_E, _decided(fitted, points, problem), misfit)


def predict(fitted: FittedLaw, tokens_RxK: Any, size_R: Any = None) -> np.ndarray:
    """(R, E) losses outside of a trace, in float64; sizes by run."""
    x_RxK = np.asarray(tokens_RxK, dtype=float) / fitted.scale_K
    sizes_R = np.ones(len(x_RxK)) if size_R is None else np.asarray(size_R, dtype=float)
    with scope():
        args = [jnp.asarray(v) for v in (fitted.theta_ExP, _pad_rows(x_RxK), _pad_rows(sizes_R))]
        return np.asarray(_curves(fitted.law, *args))[: len(x_RxK)]


@functools.partial(jax.jit, static_argnames=("law",))
def _curves(law: ParametricLaw, theta_ExP: Any, x_RxK: Any, size_R: Any) -> Any:
    one = jax.vmap(law.curve, in_axes=(0, None, None))
    return jax.vmap(one, in_axes=(None, 0, 0))(theta_ExP, x_RxK, size_R)


def _pool(problem: Problem, theta_ExP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prior means with the pooled ones at their posterior, and the pooled means' sd (P,)."""
    sd_P, prior_P = np.where(problem.pooled_P, problem.sd_ExP[0], 1.0), problem.mean_ExP[0]
    # The common mean has a prior of its own, as wide as 1.7 of the spread between domains.
    precision_P = len(theta_ExP) / sd_P**2 + 1 / (1.7 * sd_P) ** 2
    pooled_P = (theta_ExP.sum(0) / sd_P**2 + prior_P / (1.7 * sd_P) ** 2) / precision_P
    mean_ExP = np.where(problem.pooled_P, pooled_P, problem.mean_ExP)
    return mean_ExP, np.where(problem.pooled_P, 1 / np.sqrt(precision_P), 0.0)


def _resample(
    law: ParametricLaw, points: Points, problem: Problem, theta_ExP: np.ndarray,
    mean_ExP: np.ndarray, samples: int, correlation: float, seed: int,
) -> np.ndarray:  # fmt: skip
    """(S, E, P) parameters refitted to fresh noise and fresh prior draws."""
    rng = np.random.default_rng(seed)
    (r, e), p = points.loss_RxE.shape, theta_ExP.shape[1]
    sd_RxE = np.where(np.isfinite(points.sd_RxE), points.sd_RxE, 0.0)
    common = rng.standard_normal((samples, r, 1)) * np.sqrt(correlation)
    own = rng.standard_normal((samples, r, e)) * np.sqrt(1 - correlation)
    loss_SxExR = (points.loss_RxE + sd_RxE * (common + own)).transpose(0, 2, 1)
    sd_ExP = np.where(np.isfinite(problem.sd_ExP), problem.sd_ExP, 0.0)
    pooled_sd_P = _pool(problem, theta_ExP)[1]
    mean_SxExP = mean_ExP + sd_ExP * rng.standard_normal((samples, e, p))
    mean_SxExP += pooled_sd_P * rng.standard_normal((samples, 1, p))
    theta, _, _ = fit_many(
        law, points, problem, np.tile(theta_ExP, (samples, 1)), loss_SxExR.reshape(-1, r),
        mean_SxExP.reshape(-1, p), np.tile(np.arange(e), samples), STEPS,
    )  # fmt: skip
    return theta.reshape(samples, e, p)


def _decided(fitted: FittedLaw, points: Points, problem: Problem) -> np.ndarray:
    """Whether the data alone fix each domain's free parameters (condition of the Jacobian)."""
    with scope():
        x_RxK, size_R = _pad_rows(points.tokens_RxK / points.scale), _pad_rows(points.size_R)
        args = [jnp.asarray(v) for v in (fitted.theta_ExP, x_RxK, size_R)]
        jac = np.asarray(_jacobians(fitted.law, *args))[:, : len(points.size_R)]
    decided, gauges = [], fitted.law.gauges
    for e, jac_RxP in enumerate(jac):
        rows, free = np.isfinite(points.sd_RxE[:, e]), problem.low_ExP[e] < problem.high_ExP[e]
        j = jac_RxP[rows][:, free]
        j = j / np.maximum(np.linalg.norm(j, axis=0), 1e-300)
        s = np.linalg.svd(j, compute_uv=False)
        decided.append(
            rows.sum() > free.sum() - gauges and s[free.sum() - gauges - 1] > 1e-3 * s[0]
        )
    return np.array(decided)


@functools.partial(jax.jit, static_argnames=("law",))
def _jacobians(law: ParametricLaw, theta_ExP: Any, x_RxK: Any, size_R: Any) -> Any:
    one = jax.vmap(jax.grad(law.curve), in_axes=(None, 0, 0))
    return jax.vmap(one, in_axes=(0, None, None))(theta_ExP, x_RxK, size_R)
