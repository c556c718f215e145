"""DDO (Algorithm 1): one budget's optimum from a base run and one-domain changes of it."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.inputs import finite, not_traced, whole
from autoscale_jax.fit.power import Branch, Offset, PowerLaw, PowerLawFit, fit_power_law
from autoscale_jax.fit.precision import scope
from autoscale_jax.fit.separable import power_law_optimum
from autoscale_jax.fit.simplex import bounds_of, certify
from autoscale_jax.specs import BadInput

SAME = 1e-3  # relative: amounts this close are the same amount (integer splits, realised tokens)


class Design(NamedTuple):
    """DDO runs by domain: points (K, P), weight 0 where a domain has fewer. Point 0 is the base."""

    base_tokens_K: np.ndarray
    base_rows: np.ndarray
    x_KxP: np.ndarray
    rows_KxP: np.ndarray
    used_KxP: np.ndarray


@dataclasses.dataclass(frozen=True)
class DDOResult:
    """One budget's optimum. `weights_SxK` are optima under resampled noise (S = 0 without any).

    `noise` is the sd of one run's log objective, `noise_source` where it comes from.
    """

    weights_K: np.ndarray
    tokens_K: np.ndarray
    total: float
    value: float
    law: PowerLaw
    fit: PowerLawFit
    weights_SxK: np.ndarray
    laws_S: PowerLaw
    noise: float
    noise_source: str
    kkt: float
    warnings: tuple[str, ...]


def find_design(
    tokens_RxK: np.ndarray, names: tuple[str, ...] = (), *, whole: bool = True
) -> Design:
    """Recognise the base runs and each domain's changed runs (the other domains' tokens unchanged).

    The base is the mixture from which most other rows differ in one domain. Rows that differ in
    more are not DDO's and are left out. Where a design need not be `whole`, domains may lack
    changed runs (they diverged, say).

    Raises:
      BadInput: no base, or a domain without a changed run.
    """
    rows, k = tokens_RxK.shape
    names = names or tuple(str(i) for i in range(k))
    same_RxRxK = np.abs(tokens_RxK[:, None] - tokens_RxK) <= SAME * np.maximum(
        tokens_RxK[:, None], tokens_RxK
    )
    changed_RxR = (~same_RxRxK).sum(-1)
    score = (changed_RxR == 1).sum(1) * (rows + 1) + (changed_RxR == 0).sum(1)
    base = int(score.argmax())
    if (changed_RxR[base] == 1).sum() == 0:
        raise BadInput("no run differs from another in one domain only: not a DDO design")
    base_rows = np.flatnonzero(changed_RxR[base] == 0)
    base_tokens_K = tokens_RxK[base_rows].mean(0)
    members: list[list[int]] = []
    for i in range(k):
        mine = [r for r in range(rows) if changed_RxR[base, r] == 1 and not same_RxRxK[base, r, i]]
        mine = [r for r in mine if tokens_RxK[r, i] > 0 and base_tokens_K[i] > 0]
        if whole and not mine:
            raise BadInput(f"domain {names[i]}: no run changes it alone; add a run with 3x of it")
        members.append(mine)
    points = 1 + max(len(m) for m in members)
    x, where = np.ones((k, points)), np.full((k, points), base)
    used = np.zeros((k, points))
    used[:, 0] = 1
    for i, mine in enumerate(members):
        x[i, 1 : 1 + len(mine)] = tokens_RxK[mine, i] / base_tokens_K[i]
        where[i, 1 : 1 + len(mine)] = mine
        used[i, 1 : 1 + len(mine)] = 1
    return Design(base_tokens_K, base_rows, x, where, used)


def ddo_optimum(
    tokens_RxK: Any,
    value_R: Any,
    *,
    total: float | None = None,
    lower: Any = 0.0,
    upper: Any = 1.0,
    offset: Offset = "free",
    branch: Branch = "steep",
    noise: float | None = None,
    samples: int = 0,
    seed: int = 0,
    names: tuple[str, ...] = (),
) -> DDOResult:
    """The mixture that minimises Eq. 2's sum of one-domain power laws, with resampled optima.

    Args:
      tokens_RxK: tokens of each domain in each run of one budget; base runs may be replicated.
      value_R: each run's objective, e.g. `objective_value(loss_RxE)` (mean perplexity).
      total: tokens of the mixture, by default the base run's.
      lower, upper: floors and caps on the weights.
      offset, branch: see `fit_power_law`; "zero" is far less sensitive to noise than "free".
      noise: sd of one run's objective relative to the base's; by default from the base replicates,
        else from the fits' residuals.
      samples: S resampled optima, in which the base run's noise is shared by all K fits.

    Raises:
      BadInput: not a DDO design, values that are not finite and positive, bounds without a mixture.
    """
    not_traced("ddo_optimum", tokens_RxK, value_R)
    tokens_RxK = np.asarray(tokens_RxK, dtype=np.float64)
    value_R = np.asarray(value_R, dtype=np.float64)
    _check(tokens_RxK, value_R, names)
    _check_options(total, noise, samples)
    design = find_design(tokens_RxK, names)
    k = tokens_RxK.shape[1]
    base_value = float(value_R[design.base_rows].mean())
    y_KxP = value_R[design.rows_KxP] / base_value
    y_KxP[:, 0] = 1.0
    n_base = len(design.base_rows)
    weight_KxP = design.used_KxP * np.where(np.arange(y_KxP.shape[1]) == 0, n_base, 1)
    fit = fit_power_law(design.x_KxP, y_KxP, weights=weight_KxP, offset=offset, branch=branch)
    total = float(design.base_tokens_K.sum()) if total is None else float(total)
    lower_K, upper_K = bounds_of(lower, upper, k, names)
    law = PowerLaw(fit.offset, fit.exponent, design.base_tokens_K, np.float64(base_value))
    sd, source, degrees = _noise(design, value_R, fit, noise, offset)
    laws_S, bad = PowerLaw(*(np.asarray(v)[None][:0] for v in law)), 0
    if samples and sd > 0:
        points = _resample(design, value_R, sd, degrees, samples, seed)
        laws_S, bad = _refit(design, fit, weight_KxP, points, offset, branch)
    # The law and its resamples in one call: one program to compile.
    all_laws = PowerLaw(
        *(np.concatenate([np.asarray(v)[None], s]) for v, s in zip(law, laws_S, strict=True))
    )
    w_NxK, value_N, kkt_N = _optima(all_laws, total, lower_K, upper_K)
    names = names or tuple(str(i) for i in range(k))
    return DDOResult(
        w_NxK[0], w_NxK[0] * total, total, float(value_N[0]), law, fit, w_NxK[1:], laws_S,
        sd, source, float(kkt_N[0]), _warn(fit, names, samples, sd, bad),
    )  # fmt: skip


def _refit(
    design: Design, fit: PowerLawFit, weight_KxP: np.ndarray,
    points: tuple[np.ndarray, np.ndarray], offset: Offset, branch: Branch,
) -> tuple[PowerLaw, int]:  # fmt: skip
    """Laws of resampled points, and how many resamples had a fit that did not converge."""
    y_SxKxP, base_S = points
    starts = np.stack([fit.offset, fit.exponent], -1)[:, None]
    twin = np.nan_to_num(fit.solutions[:, :2, :2], nan=1.0)
    fits = fit_power_law(
        design.x_KxP, y_SxKxP, weights=weight_KxP, offset=offset, branch=branch,
        starts=np.concatenate([starts, twin], 1),
    )  # fmt: skip
    base_SxK = np.tile(design.base_tokens_K, (len(base_S), 1))
    return PowerLaw(fits.offset, fits.exponent, base_SxK, base_S), int((~fits.ok.all(1)).sum())


@jax.jit
def _optima_jit(laws_S: PowerLaw, total: Any, lower_K: Any, upper_K: Any) -> Any:
    def one(law: PowerLaw) -> Any:
        w_K = power_law_optimum(law, total, lower_K, upper_K)
        return certify(lambda w: law.predict(w * total)[0], w_K, lower_K, upper_K)

    return jax.vmap(one)(laws_S)


def _optima(laws_S: PowerLaw, total: float, lower_K: Any, upper_K: Any) -> tuple[Any, Any, Any]:
    with scope():
        laws_S = PowerLaw(*(jnp.asarray(v) for v in laws_S))
        bounds = jnp.asarray(lower_K), jnp.asarray(upper_K)
        found = _optima_jit(laws_S, jnp.asarray(total), *bounds)
        return np.asarray(found.weights_K), np.asarray(found.value), np.asarray(found.kkt)


def _noise(
    design: Design, value_R: np.ndarray, fit: PowerLawFit, given: float | None, offset: str
) -> tuple[float, str, float]:
    """Relative sd of one run, where it comes from, and its degrees of freedom."""
    if given is not None:
        return float(given), "given", np.inf
    replicates = [value_R[design.base_rows]]
    for i in range(len(design.x_KxP)):
        rows = design.rows_KxP[i][design.used_KxP[i] > 0][1:]
        x = design.x_KxP[i][design.used_KxP[i] > 0][1:]
        group = np.unique(np.round(np.log(x), 2), return_inverse=True)[1]
        replicates += [value_R[rows[group == g]] for g in range(group.max() + 1)]
    degrees = sum(len(v) - 1 for v in replicates)
    if degrees > 0:
        squares = sum(((np.log(v) - np.log(v).mean()) ** 2).sum() for v in replicates)
        return float(np.sqrt(squares / degrees)), "replicates", degrees
    left = int(design.used_KxP.sum() - len(design.x_KxP) * (3 if offset == "free" else 2))
    if left > 0:
        squares = (fit.residual**2).sum()
        return float(np.sqrt(squares / left)), "residuals", left
    return 0.0, "none", 0


def _resample(
    design: Design, value_R: np.ndarray, sd: float, degrees: float, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Points with fresh noise, (S, K, P), and base values, (S,): fits share the base's noise."""
    rng = np.random.default_rng(seed)
    # An sd estimated from few replicates is itself uncertain: draw it too.
    scale_S = np.ones(samples) * sd
    if np.isfinite(degrees):
        scale_S = sd * np.sqrt(degrees / np.maximum(rng.chisquare(degrees, samples), 0.1 * degrees))
    log_SxR = np.log(value_R) + scale_S[:, None] * rng.standard_normal((samples, len(value_R)))
    base_S = np.exp(log_SxR[:, design.base_rows]).mean(1)
    y_SxKxP = np.exp(log_SxR)[:, design.rows_KxP] / base_S[:, None, None]
    y_SxKxP[:, :, 0] = 1.0
    return y_SxKxP, base_S


def _warn(
    fit: PowerLawFit, names: tuple[str, ...], samples: int, sd: float, bad: int
) -> tuple[str, ...]:
    lines = []
    twice = [n for n, s in zip(names, fit.solutions, strict=True) if np.isfinite(s[:, 0]).sum() > 1]
    if twice:
        lines.append(f"{', '.join(twice)}: two laws fit equally well; the data cannot decide")
    flat = [n for n, b in zip(names, fit.exponent, strict=True) if b <= 1e-5]
    if flat:
        lines.append(f"{', '.join(flat)}: more tokens did not help; weight at its floor")
    failed = [n for n, ok in zip(names, fit.ok, strict=True) if not ok]
    if failed:
        lines.append(f"{', '.join(failed)}: the fit did not converge")
    if samples and sd == 0:
        lines.append("no noise estimate, so no intervals: replicate the base run or give noise=")
    if bad:
        lines.append(f"{bad} of {samples} resampled fits did not converge")
    return tuple(lines)


def _check_options(total: float | None, noise: float | None, samples: int) -> None:
    if total is not None:
        finite("total", total, "give the mixture's tokens, above 0", above=0)
    if noise is not None:
        finite("noise", noise, "give the relative sd of one run's objective, 0 or more", least=0)
    whole("samples", samples, 0)


def _check(tokens_RxK: np.ndarray, value_R: np.ndarray, names: tuple[str, ...]) -> None:
    if tokens_RxK.ndim != 2 or value_R.shape != tokens_RxK.shape[:1]:
        raise BadInput(
            f"tokens_RxK {tokens_RxK.shape} and value_R {value_R.shape}: one value for each row"
        )
    if names and len(names) != tokens_RxK.shape[1]:
        raise BadInput(f"names = {names}: give one for each of {tokens_RxK.shape[1]} domains")
    finite(
        "tokens_RxK", tokens_RxK, "give 0 or more", least=0,
        place=lambda r, c: f"row {r}, column {c}: tokens",
    )  # fmt: skip
    finite(
        "value_R", value_R, "leave out runs that diverged or failed", above=0,
        place=lambda r: f"row {r}: objective",
    )  # fmt: skip
