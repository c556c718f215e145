"""What every law of losses has in common: what it is fitted to, and what a fit gives.

A law has a `name` and `fit(points, own_E)`, which returns a `LawFit`: a fitted law that predicts,
resampled versions of it, and what the data say of it. `parametric.py` fits those that are a curve
with parameters; `gp_law.py` is a Gaussian process.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.fit.inputs import finite
from autoscale_jax.fit.precision import scope
from autoscale_jax.specs import BadInput

FEWEST = 4  # runs: a law with priors needs no more, though the priors then decide most


class Points(NamedTuple):
    """Runs to fit: tokens, losses (nats) and their noise sd (inf leaves a loss out), model size."""

    tokens_RxK: np.ndarray
    loss_RxE: np.ndarray
    sd_RxE: np.ndarray
    size_R: np.ndarray

    @property
    def scale(self) -> float:
        """Unit of tokens: one domain's even share of the smallest run."""
        return float(self.tokens_RxK.sum(1).min() / self.tokens_RxK.shape[1])


class Predicts(Protocol):
    """A fitted law: a pytree that predicts from token counts."""

    def predict(self, tokens: Any) -> Any:
        """(..., K) tokens -> (..., E) losses (a `PowerLaw`: (..., 1), the objective itself)."""
        ...


class Samples(Protocol):
    """S versions of a fitted law, a pytree."""

    def __len__(self) -> int: ...

    def sample(self, i: Any) -> Predicts:
        """The i-th version; those of several i, again with a leading axis."""
        ...


@dataclasses.dataclass(frozen=True)
class LawFit:
    """A fitted law with its resampled versions and what the data say of it.

    `fitted` is a `Predicts`, `laws_S` are its S `Samples`. `residual_RxE`: predicted less observed,
    nats. `ok_E`: the solver converged. `decided_E`: the data, not only the priors, fix the
    parameters. `misfit`: rms residual in noise sds (1 is what noise alone gives).
    """

    fitted: Any  # Predicts
    laws_S: Any  # Samples
    residual_RxE: np.ndarray
    ok_E: np.ndarray
    decided_E: np.ndarray
    misfit: float


class Law(Protocol):
    """One way to predict losses from tokens."""

    @property
    def name(self) -> str: ...

    def fit(
        self, points: Points, own_E: np.ndarray, *, samples: int = 0, correlation: float = 0.0,
        seed: int = 0,
    ) -> LawFit:  # fmt: skip
        """Fit to runs of any budgets, with S samples.

        own_E: index of the training domain of the evaluation domain's name, or -1. correlation:
        that of one run's noise between evaluation domains.
        """
        ...


def losses(law: Predicts, tokens_RxK: np.ndarray) -> np.ndarray:
    """(R, E) predicted losses at token counts, in float64, outside of a trace."""
    with scope():
        law = jax.tree.map(lambda v: jnp.asarray(v, dtype=float), law)
        return np.asarray(_predict(law, jnp.asarray(tokens_RxK, dtype=float)))


_predict = jax.jit(lambda law, tokens_RxK: law.predict(tokens_RxK))


def check_points(points: Points, name: str, fewest: int = FEWEST) -> None:
    """Refuse what no law can be fitted to. Raises `BadInput`."""
    used_RxE = ~np.isinf(points.sd_RxE)
    finite(
        "tokens", points.tokens_RxK, "give 0 or more", least=0,
        place=lambda r, c: f"row {r}, domain {c}: tokens",
    )  # fmt: skip
    finite(
        "loss", points.loss_RxE, "leave out runs that diverged or failed", used=used_RxE,
        place=lambda r, c: f"row {r}, loss {c}",
    )  # fmt: skip
    finite(
        "sd", points.sd_RxE, "give nats above 0 (inf leaves a loss out)", above=0, used=used_RxE,
        place=lambda r, c: f"row {r}, sd {c}",
    )  # fmt: skip
    finite("size", points.size_R, "give the model's size, above 0", above=0)
    if (rows := int(used_RxE.any(1).sum())) < fewest:
        raise BadInput(f"{rows} runs are too few for the {name} law: give {fewest} at least")
