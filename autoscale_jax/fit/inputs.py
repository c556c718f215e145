"""Checks of the numbers that the fits are given: one line that names place, value and remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autoscale_jax.fit.precision import is_traced
from autoscale_jax.specs import BadInput, RunArrays

CHANCE = 20.0  # nats: a uniform guess among 485 million tokens; only diverged runs lose more


def finite(
    field: str,
    values: Any,
    remedy: str,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
    used: Any = True,
    place: Callable[..., str] | None = None,
) -> np.ndarray:
    """`values` as float64, all finite, at least `least` and more than `above`.

    used: where values count; the others may be anything. place: what an entry is called, from its
    indices (`field[i, j]` by default).
    Raises `BadInput` for the first entry that is not so, and for what is no array of numbers.
    """
    try:
        v = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{field} = {values!r}: {remedy}") from error
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(v) | (v < least) | (v <= above)
    for where in np.argwhere(bad & used)[:1]:
        index = tuple(int(i) for i in where)
        named = place(*index) if place else f"{field}{list(index) if index else ''}"
        raise BadInput(f"{named} = {v[index]:.12g}: {remedy}")
    return v


def whole(field: str, value: Any, least: int) -> int:
    """A whole number from `least` on. Raises `BadInput`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise BadInput(f"{field} = {value!r}: give a whole number, {least} or more")
    return int(value)


def one_of(field: str, value: Any, known: tuple[str, ...]) -> None:
    """Raises `BadInput` for a value that is not among the known ones."""
    if value not in known:
        raise BadInput(f"{field} = {value!r}: give one of {', '.join(known)}")


def not_traced(function: str, *values: Any) -> None:
    """Raises `BadInput` inside jit, vmap or grad, for functions that choose by their data."""
    if is_traced(*values):
        raise BadInput(f"{function} chooses by its data: call it outside of jit, vmap and grad")


def check_arrays(arrays: RunArrays) -> None:
    """Refuse runs that no law can be fitted to, naming run, column and remedy."""
    tokens_RxK, loss_RxE = np.asarray(arrays.tokens_RxK), np.asarray(arrays.loss_RxE)
    if not len(tokens_RxK) or not loss_RxE.size:
        raise BadInput("no runs with losses: give a table with runs whose status is ok")
    for name, values, columns in (
        ("tokens_RxK", tokens_RxK, arrays.domains),
        ("loss_RxE", loss_RxE, arrays.eval_domains),
    ):
        if values.shape != (len(arrays.names_R), len(columns)):
            raise BadInput(
                f"{name} has shape {values.shape}: give {len(arrays.names_R)} runs x "
                f"{len(columns)} ({', '.join(columns)})"
            )
    for name in arrays.eval_domains:
        if arrays.eval_domains.count(name) > 1:
            raise BadInput(f"evaluation domain {name!r} is there twice: name each once")
    finite(
        "tokens", tokens_RxK, "give 0 or more", least=0,
        place=lambda r, c: f"run {arrays.names_R[r]!r}, domain {arrays.domains[c]!r}: tokens",
    )  # fmt: skip
    for r in np.flatnonzero(tokens_RxK.sum(1) <= 0):
        raise BadInput(f"run {arrays.names_R[r]!r}: no tokens of any domain: leave the run out")

    def loss(r: int, c: int) -> str:
        return f"run {arrays.names_R[r]!r}, loss of {arrays.eval_domains[c]!r}"

    finite("loss", loss_RxE, "leave out runs that diverged or failed", place=loss)
    finite("loss", loss_RxE, "a loss in nats per token is 0 or more", least=0, place=loss)
    for r, c in np.argwhere(loss_RxE > CHANCE)[:1]:
        raise BadInput(
            f"{loss(r, c)} = {loss_RxE[r, c]:.12g}: more nats per token than a guess loses with "
            "any vocabulary: mark the run diverged, or give losses per token"
        )


def check_scales(n1: Any, n2: Any, total: Any, n0: Any) -> None:
    """Refuse token counts that no extrapolation starts from."""
    if np.shape(n1) != np.shape(n2) or np.ndim(n1) != 1:
        raise BadInput(f"n1, n2 have shapes {np.shape(n1)}, {np.shape(n2)}: give K tokens each")
    n0_K = finite("n0", n0, "give the law's offsets in tokens, 0 or more", least=0)
    if n0_K.shape not in ((), np.shape(n1)):
        raise BadInput(f"n0 has shape {n0_K.shape}: give one number or {len(n1)}")
    for name, n in (("n1", n1), ("n2", n2)):
        remedy = "give tokens above 0 (0 only with n0 above 0)"
        n_K = finite(name, n, remedy, least=0)
        finite(name, n_K, remedy, above=0, used=n0_K <= 0)
        if n_K.sum() <= 0:
            raise BadInput(f"{name}: give tokens of at least one domain")
    if np.sum(n2) < np.sum(n1):
        raise BadInput(
            f"n1, n2 sum to {np.sum(n1):.6g} and {np.sum(n2):.6g}: give the smaller scale first"
        )
    finite("total", total, "give a number of tokens above 0", above=0)


def check_sds(log_sd: Any, k: int) -> None:
    """Refuse noise of log tokens that is not of two scales of k domains."""
    if np.ndim(log_sd) == 0 or len(log_sd) != 2:
        raise BadInput(f"log_sd = {log_sd!r}: give two, of log n1 and of log n2")
    for i, sd in enumerate(log_sd):
        sd = finite(f"log_sd[{i}]", sd, "give the sd of log tokens, 0 or more", least=0)
        if sd.shape not in ((), (k,)):
            raise BadInput(f"log_sd[{i}] has shape {sd.shape}: give one number or {k}")
