"""BoTorch's multi-fidelity knowledge gradient over mixtures, model sizes and steps.

As in its tutorial "Continuous Multi-Fidelity BO in BoTorch with Knowledge Gradient": a
`SingleTaskMultiFidelityGP` with two data fidelities, maximised objective, one-shot acquisition
over the unit cube. What differs: the cube stands for mixtures by `Cube`, the cost is the space's
own, restarts and raw samples are those of the tutorial's twin on discrete fidelities, and the
kernel is the library's other one (`linear_truncated=False`): fitted to 40 random runs, it follows
the four tuning metrics at the target with correlations of .83, .80, .53 and .96; the tutorial's
with .60, .29, .14 and .85.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from botorch import fit_gpytorch_mll
from botorch.acquisition import LogExpectedImprovement, PosteriorMean
from botorch.acquisition.cost_aware import InverseCostWeightedUtility
from botorch.acquisition.fixed_feature import FixedFeatureAcquisitionFunction
from botorch.acquisition.knowledge_gradient import qMultiFidelityKnowledgeGradient
from botorch.acquisition.utils import project_to_target_fidelity
from botorch.exceptions.warnings import InputDataWarning
from botorch.models import SingleTaskGP
from botorch.models.deterministic import GenericDeterministicModel
from botorch.models.gp_regression_fidelity import SingleTaskMultiFidelityGP
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import Standardize
from botorch.optim.initializers import gen_one_shot_kg_initial_conditions
from botorch.optim.optimize import optimize_acqf
from botorch.utils.sampling import manual_seed
from gpytorch.mlls.exact_marginal_log_likelihood import ExactMarginalLogLikelihood

from autoscale_jax.methods.space import Observations, Space, Trial

RESTARTS, RAW_SAMPLES, ITERATIONS = 5, 128, 200
EMPTY = 1e-12


class Cube(InputTransform):
    """The unit cube [..., K+1] as weights, log size and log steps, [..., K+2], all in [0, 1].

    Weight after weight lies between the least and the most that floors, caps and the weights
    before it allow, so that the whole cube is feasible and every mixture has a place in it. The
    surrogate sees the weights themselves.
    """

    transform_on_train = transform_on_eval = transform_on_fantasize = True

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.lower_K, self.upper_K = space.lower_K, space.upper_K

    def bounds(self, k: int, rest: Any) -> tuple[Any, Any]:
        """Least and most that weight k may be when `rest` is left for it and those to come."""
        low = torch.clamp(rest - sum(self.upper_K[k + 1 :]), min=self.lower_K[k])
        return low, torch.clamp(rest - sum(self.lower_K[k + 1 :]), max=self.upper_K[k])

    def transform(self, X: Any) -> Any:
        rest, weights = torch.ones_like(X[..., 0]), []
        for k in range(len(self.lower_K) - 1):
            low, high = self.bounds(k, rest)
            weights.append(low + X[..., k] * (high - low))
            rest = rest - weights[-1]
        return torch.stack([*weights, rest, X[..., -2], X[..., -1]], -1)

    def untransform(self, X: Any) -> Any:
        rest, places = torch.ones_like(X[..., 0]), []
        for k in range(len(self.lower_K) - 1):
            low, high = self.bounds(k, rest)
            place = (X[..., k] - low) / torch.clamp(high - low, min=EMPTY)
            places.append(torch.clamp(place, 0, 1))
            rest = rest - X[..., k]
        return torch.stack([*places, X[..., -2], X[..., -1]], -1)


class Fidelities(NamedTuple):
    """Logarithms of parameters, step costs and steps; the first and the last are 0 and 1."""

    log_parameters_S: np.ndarray
    log_flops_S: np.ndarray
    log_steps_T: np.ndarray

    @classmethod
    def of(cls, space: Space) -> Fidelities:
        return cls(
            np.log([size.parameters for size in space.sizes]),
            np.log([size.step_flops for size in space.sizes]),
            np.log([*[s for s in space.steps if s < space.target_steps], space.target_steps]),
        )

    @property
    def size_S(self) -> np.ndarray:
        return scaled(self.log_parameters_S, self.log_parameters_S)

    def cost(self, x: Any) -> Any:
        """FLOPs over those of the target, [..., 1]; log-linear between two sizes."""
        place = torch.as_tensor(self.size_S)
        i = torch.clamp(torch.searchsorted(place, x[..., -2].contiguous()), 1, len(place) - 1)
        share = (x[..., -2] - place[i - 1]) / (place[i] - place[i - 1])
        log_flops = torch.as_tensor(self.log_flops_S)
        size = log_flops[i - 1] + share * (log_flops[i] - log_flops[i - 1]) - log_flops[-1]
        steps = (x[..., -1] - 1) * float(np.ptp(self.log_steps_T))
        return torch.exp(size + steps).unsqueeze(-1)


def scaled(value: Any, known: np.ndarray) -> np.ndarray:
    return (value - known[0]) / (known[-1] - known[0])


class Fitted(NamedTuple):
    """A surrogate, and the mixture with its greatest posterior mean at the target."""

    model: SingleTaskMultiFidelityGP
    best: Any  # in the cube
    value: Any


def inputs(space: Space, observed: Observations) -> Any:
    """Observations in the cube, [R, K+1]."""
    known = Fidelities.of(space)
    size_R = scaled(known.log_parameters_S[observed.size_R], known.log_parameters_S)
    steps_R = scaled(np.log(observed.steps_R), known.log_steps_T)
    full_RxD = np.column_stack([observed.weights_RxK, size_R, steps_R])
    return Cube(space).untransform(torch.as_tensor(full_RxD))


def fit(space: Space, observed: Observations) -> Any:
    """The surrogate with refitted hyperparameters; it models minus the objective."""
    k = len(space.domains)
    y_Rx1 = -torch.as_tensor(observed.objective_R)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputDataWarning)
        model = SingleTaskMultiFidelityGP(
            inputs(space, observed),
            y_Rx1,
            data_fidelities=[k, k + 1],
            linear_truncated=False,
            outcome_transform=Standardize(m=1),
            input_transform=Cube(space),
        )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    return model


def box(d: int) -> Any:
    return torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.double)


def fitted(space: Space, observed: Observations, seed: int) -> Fitted:
    """Fits, and finds the greatest posterior mean at the target."""
    k = len(space.domains)
    with manual_seed(seed):
        model = fit(space, observed)
        mean = FixedFeatureAcquisitionFunction(
            PosteriorMean(model), d=k + 1, columns=[k - 1, k], values=[1, 1]
        )
        best, value = optimize_acqf(
            mean,
            box(k - 1),
            q=1,
            num_restarts=10,
            raw_samples=1024,
            options={"batch_limit": 10, "maxiter": ITERATIONS},
        )
    return Fitted(model, best, value)


def recommended(space: Space, found: Fitted) -> np.ndarray:
    """weights_K of the greatest posterior mean at the target."""
    full = torch.cat([found.best, torch.ones(1, 2, dtype=torch.double)], -1)
    return Cube(space).transform(full)[0, :-2].numpy()


def decide(
    space: Space, found: Fitted, seed: int, fixed_cost: float, count: int, fantasies: int
) -> list[Trial]:
    """What to train next: the most knowledge gradient over cost, at the nearest sizes and steps.

    fixed_cost is added to every run's cost, over the target's, as in the library's affine cost.
    """
    k, known = len(space.domains), Fidelities.of(space)
    cost = GenericDeterministicModel(lambda x: fixed_cost + known.cost(x))
    with manual_seed(seed):
        gradient = qMultiFidelityKnowledgeGradient(
            found.model,
            num_fantasies=fantasies,
            current_value=found.value,
            cost_aware_utility=InverseCostWeightedUtility(cost),
            project=lambda x: project_to_target_fidelity(x, {k - 1: 1.0, k: 1.0}, d=k + 1),
        )
        common = {"bounds": box(k + 1), "q": count, "num_restarts": RESTARTS}
        common["raw_samples"] = RAW_SAMPLES
        start = gen_one_shot_kg_initial_conditions(gradient, **common)
        candidates, _ = optimize_acqf(
            gradient,
            **common,
            batch_initial_conditions=start,
            options={"batch_limit": 5, "maxiter": ITERATIONS},
        )
    full_QxD = Cube(space).transform(candidates).detach().numpy()
    return [trial(known, full_D) for full_D in full_QxD]


def expected_improvement(space: Space, observed: Observations, seed: int) -> Trial:
    """The quickest decision of the library: a plain GP over the cube, log EI at any fidelity."""
    y_Rx1 = -torch.as_tensor(observed.objective_R)[:, None]
    with manual_seed(seed):
        model = SingleTaskGP(inputs(space, observed), y_Rx1, input_transform=Cube(space))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        candidates, _ = optimize_acqf(
            LogExpectedImprovement(model, y_Rx1.max()),
            box(len(space.domains) + 1),
            q=1,
            num_restarts=10,
            raw_samples=512,
            options={"batch_limit": 5, "maxiter": ITERATIONS},
        )
    full_QxD = Cube(space).transform(candidates).detach().numpy()
    return trial(Fidelities.of(space), full_QxD[0])


def trial(known: Fidelities, full_D: np.ndarray) -> Trial:
    """At the nearest size and steps, in logarithms."""
    size = int(np.abs(known.size_S - full_D[-2]).argmin())
    place_T = scaled(known.log_steps_T, known.log_steps_T)
    log_steps = known.log_steps_T[np.abs(place_T - full_D[-1]).argmin()]
    return Trial(full_D[:-2], size, round(float(np.exp(log_steps))))
