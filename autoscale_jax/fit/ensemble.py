"""Several laws, each with resampled versions, as one predictor; optima under all of them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from autoscale_jax.fit.law import Samples
from autoscale_jax.fit.objective import Objective, objective_value
from autoscale_jax.fit.precision import scope
from autoscale_jax.fit.repetition import effective_tokens
from autoscale_jax.fit.simplex import Mixture, polish, project

LANES = 50  # optima per compiled call, however many samples there are


class Averaged(NamedTuple):
    """Mean of several laws' losses with shares that sum to 1; a law itself."""

    laws: tuple[Any, ...]
    shares_M: Any
    scale_K: Any

    def predict(self, tokens: Any) -> Any:
        """Losses (..., E) at tokens (..., K)."""
        each = [law.predict(tokens) * s for law, s in zip(self.laws, self.shares_M, strict=True)]
        return sum(each[1:], each[0])


def predict_samples(laws_S: Samples, tokens_K: Any, unique_K: Any) -> Any:
    """(S, E) losses at one mixture of finite data under every sample of a law."""
    tokens_K = effective_tokens(tokens_K, unique_K)
    return jax.vmap(lambda i: laws_S.sample(i).predict(tokens_K))(jnp.arange(len(laws_S)))


def utility(loss: Any, objective: Objective, v_E: Any) -> Any:
    """What is averaged over samples: the log of a perplexity (ratios count), a loss as it is."""
    value = objective_value(loss, objective, v_E)
    return jnp.log(value) if objective.endswith("perplexity") else value


@functools.partial(jax.jit, static_argnames=("objective",))
def _sample_optima(
    laws_S: Samples,
    tokens: Any,
    lower_K: Any,
    upper_K: Any,
    unique_K: Any,
    v_E: Any,
    objective: Objective,
) -> Mixture:
    def solve(i: Any) -> Mixture:
        law = laws_S.sample(i)
        start_K = jnp.full(lower_K.shape, 1 / lower_K.shape[0])

        def f(w_K: Any) -> Any:
            return utility(law.predict(effective_tokens(w_K * tokens, unique_K)), objective, v_E)

        return polish(f, start_K, lower_K, upper_K)

    return jax.vmap(solve)(jnp.arange(len(laws_S)))


@functools.partial(jax.jit, static_argnames=("objective",))
def _expected(
    laws_S: Samples, w_K: Any, tokens: Any, unique_K: Any, v_E: Any, objective: Objective
) -> tuple[Any, Any]:
    """Mean utility over a law's samples, and its gradient in the weights."""

    def f(w_K: Any) -> Any:
        return utility(predict_samples(laws_S, w_K * tokens, unique_K), objective, v_E).mean()

    return jax.value_and_grad(f)(w_K)


@functools.partial(jax.jit, static_argnames=("objective",))
def _values(laws_S: Samples, tokens_MxK: Any, unique_K: Any, v_E: Any, objective: Objective) -> Any:
    loss = jax.vmap(lambda tokens_K: predict_samples(laws_S, tokens_K, unique_K))(tokens_MxK)
    return objective_value(loss, objective, v_E)


_predictions = jax.jit(predict_samples)
_project = jax.jit(project)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Laws with S samples each and shares that sum to 1, in which samples are drawn."""

    members: tuple[Samples, ...]
    shares_M: np.ndarray
    objective: Objective
    v_E: np.ndarray
    unique_K: np.ndarray

    def rows(self) -> list[np.ndarray]:
        """Which samples of each member stand for it, so that all drawn samples count the same."""
        sizes = [len(m) for m in self.members]
        total = min(int(n / s) for n, s in zip(sizes, self.shares_M, strict=True) if s > 0)
        return [np.arange(round(total * s)) for s in self.shares_M]

    def expected_optimum(self, tokens: float, lower_K: Any, upper_K: Any) -> np.ndarray:
        """(K,) the mixture that minimises the expected (log) objective over laws and samples."""
        k = len(lower_K)
        with scope():
            members = self._arrays()
            args = self._floats(tokens, self.unique_K, self.v_E)

            def f(w_K: np.ndarray) -> tuple[float, np.ndarray]:
                value, slope_K = 0.0, np.zeros(k)
                for member, share in zip(members, self.shares_M, strict=True):
                    found = _expected(member, jnp.asarray(w_K), *args, self.objective)
                    value += share * float(found[0])
                    slope_K += share * np.asarray(found[1])
                return value, slope_K

            # Law by law, so that no mixture of laws needs a program of its own.
            start_K = self.nearest(np.full(k, 1 / k), lower_K, upper_K)
            result = minimize(
                f, start_K, jac=True, method="SLSQP", bounds=np.stack([lower_K, upper_K], 1),
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
                options={"ftol": 1e-12, "maxiter": 300},
            )  # fmt: skip
            best_K = result.x if result.fun <= f(start_K)[0] else start_K
            return self.nearest(best_K, lower_K, upper_K)

    def nearest(self, w_K: Any, lower_K: Any, upper_K: Any) -> np.ndarray:
        """The mixture within the bounds next to w."""
        with scope():
            return np.asarray(_project(*self._floats(w_K, lower_K, upper_K)))

    def sample_optima(self, tokens: float, lower_K: Any, upper_K: Any) -> np.ndarray:
        """(D, K) each drawn sample's own optimum."""
        with scope():
            args = self._floats(tokens, lower_K, upper_K, self.unique_K, self.v_E)
            found = []
            for member, rows in zip(self._arrays(), self.rows(), strict=True):
                for i in range(0, len(rows), LANES):
                    lanes = member.sample(np.resize(rows[i : i + LANES], LANES))
                    weights = _sample_optima(lanes, *args, self.objective).weights_K
                    found.append(np.asarray(weights)[: len(rows) - i])
            return np.concatenate(found)

    def values(self, tokens_MxK: np.ndarray) -> np.ndarray:
        """(M, D) objective of each mixture under each drawn sample."""
        with scope():
            args = self._floats(tokens_MxK, self.unique_K, self.v_E)
            found = [_values(m, *args, self.objective) for m in self._arrays()]
            return np.concatenate(
                [np.asarray(v)[:, rows] for v, rows in zip(found, self.rows(), strict=True)], 1
            )

    def predictions(self, tokens_K: np.ndarray, unique_K: np.ndarray) -> np.ndarray:
        """(D, E) losses under each drawn sample of one run that draws on so many unique tokens."""
        with scope():
            args = self._floats(tokens_K, unique_K)
            found = [np.asarray(_predictions(m, *args)) for m in self._arrays()]
            return np.concatenate([v[rows] for v, rows in zip(found, self.rows(), strict=True)])

    @staticmethod
    def _floats(*values: Any) -> list[jax.Array]:
        return [jnp.asarray(v, dtype=float) for v in values]

    def _arrays(self) -> tuple[Samples, ...]:
        return jax.tree.map(lambda v: jnp.asarray(v, dtype=float), self.members)
