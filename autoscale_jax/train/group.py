"""The runs that train in one program: their data and lengths, and what becomes of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from autoscale_jax.data import Corpus, batches, realised
from autoscale_jax.specs import RunSpec, run_key
from autoscale_jax.train.branches import trunk_key
from autoscale_jax.train.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Grid:
    """The steps of one run; its curve has a point on every `eval_steps` of them, and at its end."""

    eval_steps: int
    step_tokens: int
    all_tokens: int

    @property
    def steps(self) -> int:
        return -(-self.all_tokens // self.step_tokens)

    @property
    def points(self) -> int:
        return -(-self.steps // self.eval_steps)

    def point(self, step: int) -> int:
        """Which point of the curve an evaluation after `step` steps is; the last one from the end
        on."""
        return -(-min(step, self.steps) // self.eval_steps) - 1

    def tokens(self, step: int) -> int:
        """Tokens trained on after `step` steps."""
        return min(step * self.step_tokens, self.all_tokens)

    def point_tokens(self, point: int) -> int:
        """Tokens trained on at a point of the curve."""
        return self.tokens((point + 1) * self.eval_steps)


class Member:
    """One run of a group: its data, its grid, and what ended it early ("" if nothing did).

    block: (i, n), the i-th of n equal blocks of each batch's rows is what `data` holds.
    """

    def __init__(
        self,
        spec: RunSpec,
        recipe: Recipe,
        corpus: Corpus,
        eval_steps: int,
        block: tuple[int, int] = (0, 1),
    ) -> None:
        self.spec = spec
        self.key = run_key(spec, recipe.identity(), corpus.fingerprint_of(spec.tokens))
        self.tokens, self.epochs = realised(corpus, spec.mixtures, recipe.model.seq_len, spec.pool)
        self.grid = Grid(eval_steps, recipe.step_tokens, sum(self.tokens.values()))
        # one number from the study's seed and the run's: studies share no run's randomness
        self.seed = recipe.seed * 1_000_003 + spec.seed
        length, rows = recipe.model.seq_len, recipe.batch_size
        self.branch = recipe.branch_step(self.grid.steps)  # where longer runs may branch off
        self.data = batches(
            corpus,
            spec.mixtures,
            length,
            rows,
            self.seed,
            recipe.objective,
            host=block[0],
            hosts=block[1],
            segments=recipe.model.document_attention,
            trunk=self.branch * rows,
            pool=spec.pool,
        )
        self.trunk = trunk_key(spec, recipe, corpus.fingerprint_of(spec.tokens))
        self.problem = ""


def longest(group: Sequence[Member]) -> int:
    """Steps until all that have not diverged have ended; 0 where all have diverged."""
    return max((member.grid.steps for member in group if not member.problem), default=0)


def next_branch(group: Sequence[Member], step: int) -> int:
    """The first step after `step` at which a decay begins; the last step where none does."""
    return min((m.branch for m in group if m.branch > step), default=longest(group))


def note_divergence(group: Sequence[Member], loss_xK: np.ndarray, what: str, stop: int) -> None:
    """Sets the problem of each member with a loss that is not finite."""
    for member, finite in zip(group, np.isfinite(loss_xK).all(0), strict=True):
        if not finite and not member.problem:
            member.problem = f"{what} loss was not finite by step {stop} of {member.grid.steps}"


def record(
    group: Sequence[Member], curve_KxCxE: np.ndarray, loss_KxE: np.ndarray, stop: int
) -> None:
    """Puts the losses after `stop` steps into the curves of the members that have not diverged."""
    for k, member in enumerate(group):
        if not member.problem:
            curve_KxCxE[k, member.grid.point(stop)] = loss_KxE[k]


def stack(
    group: Sequence[Member], recipe: Recipe, steps: int, start: int, stop: int
) -> dict[str, np.ndarray]:
    """The batches of steps `start` to `stop`, [steps, K, M, B, L]; of weight 0 where there is none.

    B rows of M microbatches, or the members' block of them.

    Runs shorter than others have none from some step on, nor has any from `stop` on.
    """
    whole: dict[str, np.ndarray] = {}
    for k, member in enumerate(group):
        for s, i in enumerate(range(start, min(stop, member.grid.steps))):
            for name, x_BxL in member.data[i].items():
                if name not in whole:
                    micro, (rows, length) = recipe.accumulation, x_BxL.shape
                    shape = (steps, len(group), micro, rows // micro, length)
                    whole[name] = np.zeros(shape, x_BxL.dtype)
                whole[name][s, k] = x_BxL.reshape(whole[name].shape[2:])
    return whole
