"""Gaussian process over mixture, model size and training steps: the surrogate of MFMS-BO.

What runs of small models say of large ones may have either sign and is never exact. The kernel,
over mixtures u, and m, t: log size and log steps, 1 at the target and 0 at far below it:

    k = trend (b.b' + rough E(m) E(t))                    what all mixtures have in common
      + own S(u) E(m) E(t)                                a mixture's effect, fading with distance
      + flip m t m' t' S(u) E(m) E(t)                     its change as models grow: either sign
      + linear (u.u') (b.b')                              effects linear in u, of any trend
      + discrepancy (own + flip) R(u) [m = m'] R(t)       what one size alone shows

with b = (1, m, t, m t), S Matern-3/2 with a length for each weight, E and R exponential. The last
term keeps cheap runs, however many, from being taken for the target.

u_i = log(1 + w_i / bend) / log(1 + 1 / bend) is between the weight (bend far above 1) and its log:
where every domain is needed, its first per cent matters most; where one domain is best alone, all
per cents count alike. `bend` is learnt like the rest, from a start at either.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.marginal import maximum_a_posteriori, negative_log_marginal
from autoscale_jax.fit.precision import scope
from autoscale_jax.specs import BadInput

SIZES, STEPS = 50.0, 200.0  # the target over the size, and over the steps, whose m and t are 0
SHORT_W, SHORT_T = 0.3, 0.5  # lengths of what one size alone shows
JITTER = 1e-8
PADS = (64, 128, 256, 512, 1024)  # observations are padded to one of these
MOST, SOME = 256, 128  # of more than MOST, SOME are learnt from first, when starts are new
FIRST, LATER = 40, 12  # steps of a search from its starts, and of one that goes on from the last
BENT = 0.01  # the second start's bend: weights count by their logs
PRIORS = {  # log-normal: medians and sds of logs, objectives standardised
    "bend": (3.0, 1.4),
    "length_w": (1.0, 0.35),
    "length_m": (1.0, 0.7),
    "length_t": (1.0, 0.7),
    "own": (0.5, 1.0),
    "flip": (0.2, 1.0),
    "rough": (0.2, 1.0),
    "trend": (1.0, 1.0),
    "linear": (0.05, 1.0),
    "discrepancy": (0.03, 0.3),
    "noise": (0.0067, 1.5),
}
WIDTHS = 4  # parameters stay within so many sds of their prior


class Hyper(NamedTuple):
    """Logs of the kernel's parameters; `noise` is the sd of an observation's noise."""

    bend: Any
    length_w_K: Any
    length_m: Any
    length_t: Any
    own: Any
    flip: Any
    rough: Any
    trend: Any
    linear: Any
    discrepancy: Any
    noise: Any


def unpack(theta_P: Any, k: int) -> Hyper:
    """The vector of parameters by name."""
    return Hyper(theta_P[0], theta_P[1 : k + 1], *theta_P[k + 1 :])


def prior(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the parameters' normal priors."""
    bend, length_w, *others = PRIORS.values()
    mean_sd = [bend, *[length_w] * k, *others]
    return np.log([mean for mean, _ in mean_sd]), np.array([sd for _, sd in mean_sd])


def inputs(weights_RxK: Any, parameters_R: Any, steps_R: Any, target: tuple[float, float]) -> Any:
    """[R, K + 2]: weights, m and t. target: parameters and steps of the target."""
    m_R = 1 + np.log(np.asarray(parameters_R, float) / target[0]) / np.log(SIZES)
    t_R = 1 + np.log(np.asarray(steps_R, float) / target[1]) / np.log(STEPS)
    return np.concatenate([weights_RxK, m_R[:, None], t_R[:, None]], 1)


def _distance(a_QxK: Any, b_RxK: Any) -> Any:
    square = (a_QxK**2).sum(1)[:, None] + (b_RxK**2).sum(1) - 2 * a_QxK @ b_RxK.T
    return jnp.sqrt(jnp.maximum(square, 0) + 1e-12)


def kernel(theta_P: Any, a_QxD: Any, b_RxD: Any) -> Any:
    """(Q, R) covariances of the objective without its noise."""
    k = a_QxD.shape[1] - 2
    h = jax.tree.map(jnp.exp, unpack(theta_P, k))
    (a_w, a_m, a_t), (b_w, b_m, b_t) = ((x[:, :k], x[:, k], x[:, k + 1]) for x in (a_QxD, b_RxD))
    a_w, b_w = (jnp.log1p(w / h.bend) / jnp.log1p(1 / h.bend) for w in (a_w, b_w))
    apart = jnp.sqrt(3.0) * _distance(a_w / h.length_w_K, b_w / h.length_w_K)
    smooth_w = (1 + apart) * jnp.exp(-apart)
    apart_m, apart_t = jnp.abs(a_m[:, None] - b_m), jnp.abs(a_t[:, None] - b_t)
    near = jnp.exp(-apart_m / h.length_m - apart_t / h.length_t)
    grown = (a_m * a_t)[:, None] * (b_m * b_t)
    basis = (1 + a_m[:, None] * b_m) * (1 + a_t[:, None] * b_t)  # b.b' of (1, m, t, m t)
    alone = jnp.exp(-_distance(a_w, b_w) / SHORT_W - apart_t / SHORT_T) * (apart_m < 1e-9)
    return (
        h.trend * (basis + h.rough * near)
        + (h.own + h.flip * grown) * smooth_w * near
        + h.linear * (a_w @ b_w.T) * basis
        + h.discrepancy * (h.own + h.flip) * alone
    )


def _noisy(theta_P: Any, x_RxD: Any, used_R: Any) -> Any:
    """Covariance of observations; padded ones are on their own."""
    noise = jnp.exp(2 * theta_P[-1]) + JITTER
    k_RxR = kernel(theta_P, x_RxD, x_RxD) * used_R[:, None] * used_R
    return k_RxR + jnp.diag(jnp.where(used_R > 0, noise, 1.0))


def _negative_log_posterior(theta_P: Any, x_RxD: Any, y_R: Any, used_R: Any) -> Any:
    mean_P, sd_P = prior(x_RxD.shape[1] - 2)
    penalty = 0.5 * (((theta_P - mean_P) / sd_P) ** 2).sum()
    return negative_log_marginal(_noisy(theta_P, x_RxD, used_R), y_R) + penalty


_objective = jax.jit(jax.value_and_grad(_negative_log_posterior))


class Surrogate(NamedTuple):
    """A fitted process; R observations, padded. A pytree: `mean` and others run inside jit.

    Objectives are standardised: z = (objective - centre) / scale.
    """

    theta_P: Any
    x_RxD: Any
    y_R: Any
    used_R: Any
    chol_RxR: Any
    alpha_R: Any
    centre: Any
    scale: Any

    def mean(self, x_QxD: Any) -> Any:
        """(Q,) posterior means of z."""
        return (kernel(self.theta_P, x_QxD, self.x_RxD) * self.used_R) @ self.alpha_R

    def halves(self, x_QxD: Any) -> Any:
        """(R, Q): posterior covariances are prior ones less products of these."""
        cross_QxR = kernel(self.theta_P, x_QxD, self.x_RxD) * self.used_R
        return jax.scipy.linalg.solve_triangular(self.chol_RxR, cross_QxR.T, lower=True)

    def variance(self, x_QxD: Any, half_RxQ: Any) -> Any:
        """(Q,) posterior variances of z without noise."""
        own_Q = jax.vmap(lambda x_D: kernel(self.theta_P, x_D[None], x_D[None])[0, 0])(x_QxD)
        return jnp.maximum(own_Q - (half_RxQ**2).sum(0), 1e-14)

    def noise(self) -> Any:
        """Variance of an observation's noise, of z."""
        return jnp.exp(2 * self.theta_P[-1])


def _padded(x_RxD: np.ndarray, y_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, values and which of them count, with rows up to one of PADS: programs are few."""
    count = len(y_R)
    most = next((pad for pad in PADS if pad >= count), -(-count // PADS[-1]) * PADS[-1])
    x = np.concatenate([x_RxD, np.repeat(x_RxD[:1], most - count, 0)])
    return x, np.append(y_R, np.zeros(most - count)), (np.arange(most) < count).astype(float)


def fit_surrogate(
    x_RxD: np.ndarray, objective_R: np.ndarray, *, last_P: np.ndarray | None = None
) -> Surrogate:
    """MAP fit to R >= 2 observations; x as `inputs` gives it.

    last_P: parameters of an earlier fit, from which the search goes on; without, it starts from the
    prior's mean, and from the same but for a small bend. Constant objectives and repeated
    observations are fitted like any other: the noise and a jitter keep the covariance invertible.

    Raises:
      BadInput: fewer than 2 observations, or values that are not finite.
    """
    count, k = len(objective_R), x_RxD.shape[1] - 2
    if count < 2 or not (np.isfinite(objective_R).all() and np.isfinite(x_RxD).all()):
        raise BadInput(f"{count} observations: the surrogate needs 2 or more, all finite")
    centre, scale = float(objective_R.mean()), float(objective_R.std())
    scale = scale if scale > 1e-9 * max(1.0, abs(centre)) else 1.0
    if last_P is None and count > MOST:
        some = np.random.default_rng(count).permutation(count)[:SOME]
        last_P = fit_surrogate(x_RxD[some], objective_R[some]).theta_P
    padded = _padded(x_RxD, (objective_R - centre) / scale)
    mean_P, sd_P = prior(k)
    bent_P = np.concatenate([[np.log(BENT)], mean_P[1:]])
    with scope():
        x, y, used = (jnp.asarray(v) for v in padded)
        theta_P, _ = maximum_a_posteriori(
            lambda theta_P: _objective(theta_P, x, y, used),
            [mean_P, bent_P] if last_P is None else [last_P],
            mean_P - WIDTHS * sd_P,
            mean_P + WIDTHS * sd_P,
            FIRST if last_P is None else LATER,
        )
        chol_RxR, alpha_R = _solve(theta_P, x, y, used)
    return Surrogate(theta_P, *padded, np.asarray(chol_RxR), np.asarray(alpha_R), centre, scale)


@jax.jit
def _solve(theta_P: Any, x_RxD: Any, y_R: Any, used_R: Any) -> tuple[Any, Any]:
    chol_RxR = jnp.linalg.cholesky(_noisy(theta_P, x_RxD, used_R))
    return chol_RxR, jax.scipy.linalg.cho_solve((chol_RxR, True), y_R)


@jax.jit
def posterior(surrogate: Surrogate, x_QxD: Any) -> tuple[Any, Any]:
    """(Q,) means and sds of the objective without noise, in its own units."""
    half_RxQ = surrogate.halves(x_QxD)
    sd_Q = jnp.sqrt(surrogate.variance(x_QxD, half_RxQ))
    return surrogate.centre + surrogate.scale * surrogate.mean(x_QxD), surrogate.scale * sd_Q


def told(surrogate: Surrogate, x_D: np.ndarray) -> Surrogate:
    """The surrogate once a pending observation is believed to be as predicted."""
    count = int(surrogate.used_R.sum())
    x_RxD = np.concatenate([surrogate.x_RxD[:count], x_D[None]])
    with scope():
        guess = float(np.asarray(surrogate.mean(jnp.asarray(x_D)[None]))[0])
        y_R = np.append(surrogate.y_R[:count], guess)
        x, y, used = _padded(x_RxD, y_R)
        chol_RxR, alpha_R = _solve(surrogate.theta_P, x, y, used)
    return surrogate._replace(
        x_RxD=x, y_R=y, used_R=used, chol_RxR=np.asarray(chol_RxR), alpha_R=np.asarray(alpha_R)
    )
