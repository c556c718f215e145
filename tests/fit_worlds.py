"""Known worlds for the tests of the fits: true laws, their DDO runs with noise, true optima."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from autoscale_jax.specs import RunArrays

NAMES = ("arxiv", "books", "code", "docs", "wiki", "web", "law", "news")


@dataclasses.dataclass(frozen=True)
class World:
    """A true law of K domains: (..., K) tokens -> (..., K) losses in nats."""

    k: int
    loss: Callable[[np.ndarray], np.ndarray]

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES[: self.k]

    def objective(self, weights_K: np.ndarray, tokens: float) -> float:
        """Mean perplexity of a mixture."""
        return float(np.exp(self.loss(np.asarray(weights_K) * tokens)).mean())

    def optimum(self, tokens: float, lower: float = 0.0) -> np.ndarray:
        """True best mixture, by SLSQP from two starts."""
        found = []
        uniform = np.full(self.k, 1 / self.k)
        for start in (uniform, np.random.default_rng(0).dirichlet(np.ones(self.k))):
            result = minimize(
                lambda w: np.log(self.objective(np.maximum(w, 0), tokens)),
                start,
                bounds=[(lower, 1)] * self.k,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                options={"ftol": 1e-12, "maxiter": 500},
            )
            found.append((result.fun, np.clip(result.x, lower, 1)))
        best = min(found, key=lambda f: f[0])[1]
        return best / best.sum()


def effective_world(rng: np.random.Generator, k: int, transfer: float = 0.1) -> World:
    """Effective data with transfer between domains: the joint law's own form."""
    a = np.eye(k) + (1 - np.eye(k)) * rng.exponential(transfer, (k, k))
    floor, beta = rng.uniform(1.0, 2.5, k), rng.uniform(1.0, 2.5, k)
    gamma, k0 = np.exp(rng.normal(np.log(0.3), 0.25, k)), np.exp(rng.normal(0, 0.5, k))
    return World(k, lambda n: floor + beta * (k0 + np.asarray(n) / 20_000 @ a.T) ** -gamma)


def additive_world(rng: np.random.Generator, k: int, transfer: float = 0.1) -> World:
    """A term of its own for every pair of domains, each training domain with its own exponent."""
    c = np.diag(rng.uniform(1.0, 2.5, k)) + rng.exponential(transfer, (k, k))
    gamma, offset = np.exp(rng.normal(np.log(0.35), 0.3, k)), rng.uniform(0.2, 1.0, k)
    floor = rng.uniform(1.0, 2.5, k)
    return World(k, lambda n: floor + (np.asarray(n) / 20_000 + offset) ** -gamma @ c.T)


def saturated_world(rng: np.random.Generator, k: int) -> World:
    """An effective-data world in which two domains are nearly learnt: the optimum is far from
    uniform."""
    base = effective_world(rng, k, 0.05)
    share = np.where(np.arange(k) < 2, 0.15, 1.0)
    floor = base.loss(np.full(k, 1e12))
    return World(k, lambda n: floor + share * (base.loss(n) - floor))


def undertrained_world(rng: np.random.Generator, k: int) -> World:
    """An effective-data world where short runs lose something in every domain: in no law's form."""
    base = effective_world(rng, k, 0.05)
    lost = rng.uniform(0.1, 0.4, k)
    return World(
        k,
        lambda n: base.loss(n) + lost * (np.asarray(n).sum(-1, keepdims=True) / 1e5) ** -0.6,
    )


KINDS = {
    "effective": effective_world,
    "additive": additive_world,
    "saturated": saturated_world,
    "undertrained": undertrained_world,
}


def ddo_tokens(k: int, budgets: tuple[float, ...], replicates: int = 3) -> np.ndarray:
    """(R, K) DDO runs of each budget: the uniform base some times, x3 and x1/3 of each domain."""
    rows = []
    for total in budgets:
        base = np.full(k, total / k)
        rows += [base] * replicates
        for i in range(k):
            for factor in (3, 1 / 3):
                rows.append(np.where(np.arange(k) == i, base * factor, base))
    return np.array(rows)


def noisy_runs(
    world: World, tokens_RxK: np.ndarray, sd: float, rng: np.random.Generator, common: float = 0.5
) -> RunArrays:
    """Runs with noise of `sd` nats, a share `common` of its variance shared by a run's domains."""
    loss = world.loss(tokens_RxK)
    noise = np.sqrt(common) * rng.standard_normal((len(loss), 1))
    noise = noise + np.sqrt(1 - common) * rng.standard_normal(loss.shape)
    names = tuple(f"run{i}" for i in range(len(loss)))
    seeds = np.arange(len(loss))
    return RunArrays(world.names, world.names, names, tokens_RxK, loss + sd * noise, seeds)
