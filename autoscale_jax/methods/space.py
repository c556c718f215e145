"""What a search over mixtures, model sizes and training steps may try, and what a try costs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autoscale_jax.specs import BadInput, Run, RunSpec, split_tokens


@dataclasses.dataclass(frozen=True)
class Size:
    """A model size: its parameters, and the FLOPs and tokens of one training step."""

    name: str
    parameters: float
    step_flops: float
    step_tokens: int


class Trial(NamedTuple):
    """A mixture, an index into `Space.sizes`, and a number of steps."""

    weights_K: np.ndarray
    size: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Space:
    """Mixtures of K domains with floors and caps, model sizes, and steps at which a run may end.

    The target is the last size at `target_steps`: what is trained in the end. With `continues`, a
    run of more steps begins as the one of fewer, so that only the difference costs. A `grid` makes
    the weights of trainings whole multiples of 1/grid (0 leaves them as they are), since a trainer
    continues runs of such weights alone; so floors and caps should be.
    """

    domains: tuple[str, ...]
    sizes: tuple[Size, ...]
    steps: tuple[int, ...]
    target_steps: int
    lower_K: tuple[float, ...]
    upper_K: tuple[float, ...]
    continues: bool = True
    grid: int = 0

    def __post_init__(self) -> None:
        if list(self.domains) != sorted(set(self.domains)) or len(self.domains) < 2:
            raise BadInput(f"domains = {self.domains}: name two or more, sorted")
        if not self.sizes or len({size.name for size in self.sizes}) < len(self.sizes):
            raise BadInput(f"sizes = {[size.name for size in self.sizes]}: name each once")
        for size in self.sizes:
            if not (size.parameters > 0 and size.step_flops > 0 and size.step_tokens > 0):
                raise BadInput(f"size {size.name!r}: parameters, FLOPs and tokens are above 0")
        if not self.steps or self.steps[0] < 1 or list(self.steps) != sorted(set(self.steps)):
            raise BadInput(f"steps = {self.steps}: give whole numbers of steps, rising from 1")
        if self.target_steps < 1:
            raise BadInput(f"target_steps = {self.target_steps}: train for a step or more")
        for name, low, high in zip(self.domains, self.lower_K, self.upper_K, strict=True):
            if not 0 <= low <= high <= 1:
                raise BadInput(f"weights of {name!r} in [{low}, {high}]: 0 <= floor <= cap <= 1")
        if not sum(self.lower_K) <= 1 <= sum(self.upper_K):
            raise BadInput(
                f"floors sum to {sum(self.lower_K):g}, caps to {sum(self.upper_K):g}: no mixture "
                "sums to 1; lower the floors or raise the caps"
            )

    @property
    def target(self) -> Size:
        """The size that the search is for."""
        return self.sizes[-1]

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """Index of each size, by name."""
        return {size.name: i for i, size in enumerate(self.sizes)}

    def spec(self, trial: Trial, label: str = "") -> RunSpec:
        """The training of a trial; its tokens are whole, which rounds the weights, after `grid`."""
        size = self.sizes[trial.size]
        weights_K = np.maximum(np.asarray(trial.weights_K, float), 0)
        weights = dict(zip(self.domains, (weights_K / weights_K.sum()).tolist(), strict=True))
        if self.grid:
            weights = {n: k / self.grid for n, k in split_tokens(weights, self.grid).items()}
        tokens = split_tokens(weights, trial.steps * size.step_tokens)
        return RunSpec(tokens, 0, label, size.name)

    def rounded(self, trial: Trial) -> Trial:
        """The trial that is trained when this one is asked for: its weights on the grid."""
        return self.trial(self.spec(trial)) if self.grid else trial

    def trial(self, spec: RunSpec) -> Trial:
        """What a training tries. Raises `BadInput` for a size or domain that the space lacks."""
        if spec.size not in self.index:
            known = ", ".join(self.index)
            raise BadInput(f"run {spec.label!r}: size {spec.size!r} has no cost: there are {known}")
        if unknown := sorted(set(spec.tokens) - set(self.domains)):
            raise BadInput(f"run {spec.label!r}: no domain {unknown[0]!r} in the search's space")
        size = self.index[spec.size]
        tokens_K = np.array([spec.tokens.get(name, 0) for name in self.domains], float)
        steps = round(tokens_K.sum() / self.sizes[size].step_tokens)
        return Trial(tokens_K / tokens_K.sum(), size, max(1, steps))

    def flops(self, size: int, steps: float) -> float:
        """FLOPs of a training from its first step."""
        return self.sizes[size].step_flops * steps

    def cost(self, spec: RunSpec, done: Iterable[RunSpec] = ()) -> float:
        """FLOPs of a training when those of `done` need not be repeated."""
        trial, begun = self.trial(spec), 0
        if self.continues:
            alike = (self.trial(s) for s in done if s.size == spec.size and s.seed == spec.seed)
            begun = max((t.steps for t in alike if self._alike(t, trial)), default=0)
        return self.flops(trial.size, max(0, trial.steps - begun))

    def spent(self, specs: Sequence[RunSpec]) -> float:
        """FLOPs of all of these, in this order."""
        return sum(self.cost(spec, specs[:i]) for i, spec in enumerate(specs))

    def _alike(self, a: Trial, b: Trial) -> bool:
        """Whether two mixtures differ by no more than whole tokens make them."""
        fewest = min(a.steps, b.steps) * self.sizes[a.size].step_tokens
        return bool(np.abs(a.weights_K - b.weights_K).max() * fewest <= len(self.domains))


def check_budget(space: Space, budget: float, cheapest: float | None = None) -> None:
    """Raises `BadInput` for a budget below `cheapest` FLOPs: by default the least of any run."""
    if cheapest is None:
        cheapest = min(size.step_flops for size in space.sizes) * space.steps[0]
    if not cheapest <= budget < math.inf:
        raise BadInput(
            f"budget = {budget:.6g} FLOPs: the cheapest run costs {cheapest:.6g}: give that or more"
        )


class Observed(NamedTuple):
    """A trial's losses by name after some of its steps."""

    trial: Trial
    steps: int
    loss: Mapping[str, float]


def observed(
    runs: Iterable[Run], space: Space, curve_at: Sequence[float] = ()
) -> Iterator[Observed]:
    """The losses of runs that ended well.

    curve_at: shares of a run's tokens at which the nearest point of its curve, if there is one
        within a tenth, is observed too.
    """
    for run in runs:
        if run.status != "ok":
            continue
        trial = space.trial(run.spec)
        yield Observed(trial, trial.steps, run.loss)
        for share in curve_at:
            wanted = share * run.spec.total
            point = min(run.curve, key=lambda p: abs(p.tokens - wanted), default=None)
            if point is not None and abs(point.tokens - wanted) <= wanted / 10:
                steps = max(1, round(point.tokens / space.sizes[trial.size].step_tokens))
                yield Observed(trial, steps, point.loss)


class Observations(NamedTuple):
    """Objectives of R observed trials, curve points among them; smaller is better."""

    weights_RxK: np.ndarray
    size_R: np.ndarray
    steps_R: np.ndarray
    objective_R: np.ndarray

    def __len__(self) -> int:
        return len(self.objective_R)


def observations(
    runs: Iterable[Run],
    space: Space,
    objective: Callable[[Mapping[str, float]], float],
    curve_at: Sequence[float] = (),
) -> Observations:
    """The finite objectives of what is `observed`."""
    rows = [(of.trial, of.steps, objective(of.loss)) for of in observed(runs, space, curve_at)]
    kept = [row for row in rows if np.isfinite(row[2])]
    return Observations(
        np.array([trial.weights_K for trial, _, _ in kept]).reshape(-1, len(space.domains)),
        np.array([trial.size for trial, _, _ in kept], int),
        np.array([steps for _, steps, _ in kept], int),
        np.array([y for _, _, y in kept], float),
    )
