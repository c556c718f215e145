"""MFMS-BO: Bayesian optimisation over mixture, model size and training steps (2503.21023)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from autoscale_jax.fit.gp_transfer import Surrogate, kernel
from autoscale_jax.fit.precision import scope
from autoscale_jax.methods.candidates import corners, projected, random_mixtures
from autoscale_jax.methods.decision import Acquisition, at_target, posterior_at_target
from autoscale_jax.methods.mfms_design import Settings
from autoscale_jax.methods.mfms_walk import Z90, Walk
from autoscale_jax.methods.mixtures import within
from autoscale_jax.methods.space import Space, check_budget
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Proposal, RunSpec

DRAWS, RIVALS = 400, 300  # functions drawn for the intervals, and random mixtures they may prefer
SLICE = 101  # points of a slice through the surrogate


@dataclasses.dataclass(frozen=True)
class MFMSBO:
    """Asks for the runs that teach most about the target per FLOP, and proposes the best mixture.

    budget: FLOPs that all runs may cost together.
    batch: runs asked for at once, each as if those before it had ended as predicted.
    acquisition: "value" is the knowledge gradient of the target over cost, with a share of the
        FLOPs kept for precise runs, among which it recommends, and every second of which is of the
        best mixture of a scaling law while laws are right (`law_mixture`); "paper" is the paper's
        expected improvement over cost.
    curve_at: shares of a run at which its curve counts as an observation too.
    log: the surrogate is of the objective's log, as perplexities need.
    tolerance: no mixture being expected to gain more than this share of the objectives' spread
        ends the search.
    references: mixtures to compare the proposal with, by name; where floors and caps allow them,
        the design has them too, and they may be recommended.

    Raises `BadInput` for a budget below the cheapest run's cost.
    """

    space: Space
    objective: Callable[[Mapping[str, float]], float]
    budget: float
    seed: int = 0
    batch: int = 1
    acquisition: Acquisition = "value"
    curve_at: tuple[float, ...] = (0.25,)
    log: bool = False
    tolerance: float = 1e-5
    references: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    _walks: dict[str, Walk] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        check_budget(self.space, self.budget)
        if self.batch < 1:
            raise BadInput(f"batch = {self.batch}: ask for one run or more at once")
        if self.acquisition not in ("value", "paper"):
            raise BadInput(f"acquisition = {self.acquisition!r}: use 'value' or 'paper'")

    def ask(self, table: RunTable) -> list[RunSpec]:
        """What the table lacks of the next batch; [] at the end."""
        return [spec for spec in self._at(table).jobs if table.find(spec) is None]

    def recommend(self, table: RunTable) -> np.ndarray:
        """weights_K of the least mean and half an sd at the target, of the mixtures that count."""
        best_K = self._at(table).best_K
        if best_K is None:
            raise BadInput("table of MFMS-BO: no mixture ended with a finite objective yet")
        return best_K

    def propose(self, table: RunTable, tokens: int) -> Proposal:
        """The recommended mixture, with the surrogate's 90% intervals. `tokens` are the target's.

        A weight's interval holds 90% of the mixtures that functions drawn from the posterior have
        for their best.
        """
        best_K, walk = self.recommend(table), self._at(table)
        assert walk.surrogate is not None
        names = self.space.domains
        known = {name: np.array([w[n] for n in names]) for name, w in self.references.items()}
        drawn = _Drawn(self, walk.surrogate, best_K, walk.tried(), list(known.values()))
        low_K, high_K = drawn.interval()
        mean, sd, raw = drawn.mean[0], drawn.sd[0], self._raw
        return Proposal(
            method=f"MFMS-BO, acquisition {self.acquisition}",
            tokens=tokens,
            weights=dict(zip(names, best_K.tolist(), strict=True)),
            low=dict(zip(names, low_K.tolist(), strict=True)),
            high=dict(zip(names, high_K.tolist(), strict=True)),
            predicted_objective=raw(mean),
            predicted_low=raw(mean - Z90 * sd),
            predicted_high=raw(mean + Z90 * sd),
            p_beats={name: drawn.p_beats(1 + i) for i, name in enumerate(known)},
            details={
                "candidates": {
                    name: {"weights": dict(w), "predicted_objective": raw(drawn.mean[1 + i])}
                    for i, (name, w) in enumerate(self.references.items())
                },
                "slices": self._slices(walk.surrogate, best_K),
                "path": [
                    {"flops": point.flops} | self._band(point.mean, point.sd, "objective")
                    for point in walk.path
                ],
            },
        )

    def _known(self) -> tuple[np.ndarray, ...]:
        """The references that may be trained: those within floors and caps."""
        names = self.space.domains
        known = [np.array([w[name] for name in names]) for w in self.references.values()]
        return tuple(w_K for w_K in known if within(self.space, w_K[None])[0])

    def _at(self, table: RunTable) -> Walk:
        """The search after the runs of the table: told on from the last table, if it grew."""
        walk = self._walks.get("last")
        if walk is None or any(table.find(run.spec) is not run for run in walk.runs):
            walk = self._walks["last"] = Walk(
                Settings(
                    self.space, self._value, self.budget, self.seed, self.batch,
                    self.acquisition, self.curve_at, self.tolerance, self._known(),
                )
            )  # fmt: skip
        while walk.jobs:
            runs = [run for spec in walk.jobs if (run := table.find(spec)) is not None]
            if len(runs) < len(walk.jobs):
                break
            walk.tell(runs)
        return walk

    def _value(self, loss: Mapping[str, float]) -> float:
        """What the surrogate is of; NaN where a log has none."""
        value = self.objective(loss)
        if not self.log:
            return value
        return math.log(value) if value > 0 else math.nan

    def _raw(self, value: Any) -> Any:
        """An objective from a value of the surrogate."""
        return np.exp(value).tolist() if self.log else np.asarray(value).tolist()

    def _band(self, mean: Any, sd: Any, name: str) -> dict[str, Any]:
        """Median, called `name`, and 90% interval of the objective."""
        low, high = mean - Z90 * sd, mean + Z90 * sd
        return {name: self._raw(mean), "low": self._raw(low), "high": self._raw(high)}

    def _slices(self, surrogate: Surrogate, best_K: np.ndarray) -> list[dict[str, Any]]:
        """The surrogate at the target, from all that is allowed of one domain to all of another:
        from the largest of the recommended weights to the two next."""
        order = np.argsort(-best_K, kind="stable")
        ends = projected(self.space, np.eye(len(best_K)))
        share_S = np.linspace(0, 1, SLICE)
        found = []
        for other in order[1:3]:
            line_SxK = (1 - share_S)[:, None] * ends[order[0]] + share_S[:, None] * ends[other]
            mean_S, sd_S = posterior_at_target(surrogate, line_SxK)
            found.append(
                {
                    "from": self.space.domains[order[0]],
                    "to": self.space.domains[other],
                    "share": share_S.tolist(),
                }
                | self._band(mean_S, sd_S, "mean")
            )
        return found


class _Drawn:
    """Objectives at the target drawn from the posterior: of the recommended mixture, references,
    and rivals."""

    def __init__(
        self,
        method: MFMSBO,
        surrogate: Surrogate,
        best_K: np.ndarray,
        tried_RxK: np.ndarray,
        references: Sequence[np.ndarray],
    ) -> None:
        rng = np.random.default_rng(method.seed)
        self._first = 1 + len(references)  # rivals begin here: allowed mixtures, unlike references
        rivals = [best_K[None], corners(method.space, rng), tried_RxK]
        rivals.append(random_mixtures(method.space, rng, RIVALS))
        self._weights_QxK = np.concatenate(
            [best_K[None], *(w_K[None] for w_K in references), *rivals]
        )
        self.mean, self.sd = posterior_at_target(surrogate, self._weights_QxK)
        with scope():
            cov_QxQ = np.asarray(_covariance(surrogate, at_target(self._weights_QxK)))
        value, vector_QxQ = np.linalg.eigh(cov_QxQ)
        root_QxQ = vector_QxQ * np.sqrt(np.maximum(value, 0))
        noise_DxQ = rng.standard_normal((DRAWS, len(value))) @ root_QxQ.T
        self._drawn_DxQ = self.mean + float(surrogate.scale) * noise_DxQ

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """5% and 95% quantiles of the weights that are best in each drawn function."""
        best_D = self._first + self._drawn_DxQ[:, self._first :].argmin(1)
        low_K, high_K = np.quantile(self._weights_QxK[best_D], [0.05, 0.95], axis=0)
        return np.minimum(low_K, self._weights_QxK[0]), np.maximum(high_K, self._weights_QxK[0])

    def p_beats(self, reference: int) -> float:
        """Share of drawn functions in which the recommended mixture is better."""
        return float((self._drawn_DxQ[:, 0] < self._drawn_DxQ[:, reference]).mean())


@jax.jit
def _covariance(surrogate: Surrogate, x_QxD: Any) -> Any:
    half_RxQ = surrogate.halves(x_QxD)
    return kernel(surrogate.theta_P, x_QxD, x_QxD) - half_RxQ.T @ half_RxQ
