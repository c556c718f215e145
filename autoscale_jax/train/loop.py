"""One run from its first step, or its last checkpoint, to its final held-out losses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.data import Corpus, batches, eval_batches, realised
from autoscale_jax.models import flops_per_token
from autoscale_jax.specs import CurvePoint, Run, RunSpec, run_key
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.checkpoint import RunCheckpoint
from autoscale_jax.train.evaluate import Evaluate
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import TrainState, make_init, make_train_chunk

CHUNK_STEPS = 128  # most steps of one compiled call, and so how finely progress is seen
EVAL_ROWS = 32


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run under way stands. `loss` is held-out loss by domain, when just measured."""

    tokens: int
    train_loss: float
    tokens_per_second: float
    seconds: float  # since the last report
    loss: dict[str, float] | None = None


OnProgress = Callable[[Progress], None]


class Position(NamedTuple):
    """Where a run stands, all that a checkpoint holds: C curve points of E domains, NaN to come."""

    state: TrainState
    curve_CxE: np.ndarray
    seconds: np.ndarray

    @property
    def step(self) -> int:
        return int(self.state.step)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Steps of a run, and after which of them it is evaluated: a grid of tokens, and the end."""

    steps: int
    eval_steps: int
    step_tokens: int
    all_tokens: int

    @classmethod
    def of(cls, recipe: Recipe, all_tokens: int) -> Grid:
        step_tokens = recipe.batch_size * recipe.model.seq_len
        eval_steps = max(1, round(recipe.eval_every_tokens / step_tokens))
        return cls(-(-all_tokens // step_tokens), eval_steps, step_tokens, all_tokens)

    @property
    def points(self) -> int:
        return -(-self.steps // self.eval_steps)

    def next_eval(self, step: int) -> int:
        """The first step after `step` that is followed by an evaluation."""
        return min((step // self.eval_steps + 1) * self.eval_steps, self.steps)

    def point(self, step: int) -> int:
        """Which point of the curve the evaluation after `step` steps is."""
        return -(-step // self.eval_steps) - 1

    def tokens(self, point: int) -> int:
        """Tokens trained on at a point of the curve."""
        return min((point + 1) * self.eval_steps * self.step_tokens, self.all_tokens)


class Trainer:
    """Trains runs of one recipe on one mesh, compiling once. Not for use by several threads."""

    def __init__(
        self, recipe: Recipe, corpus: Corpus, mesh: Mesh, folder: Path, checkpoint_seconds: float
    ) -> None:
        self.recipe, self.corpus, self.mesh = recipe, corpus, mesh
        self._folder, self._checkpoint_seconds = folder, checkpoint_seconds
        self._init = make_init(recipe, mesh)
        self._chunk = make_train_chunk(recipe, mesh)
        rows = EVAL_ROWS * mesh.size
        self._evaluate = Evaluate(
            recipe.model, mesh, eval_batches(corpus, recipe.model.seq_len, rows)
        )

    def train(self, spec: RunSpec, on_progress: OnProgress) -> Run:
        """Train `spec`, continuing from its checkpoint if there is one.

        A loss that is not finite ends the run with status "diverged"; errors of the machine
        (disk full, out of memory) are raised and leave the checkpoint for the next try.
        """
        key = run_key(spec, self.recipe.identity(), self.corpus.fingerprint)
        tokens, epochs = realised(self.corpus, spec.tokens, self.recipe.model.seq_len)
        grid = Grid.of(self.recipe, sum(tokens.values()))
        checkpoint: RunCheckpoint[Position] = RunCheckpoint(self._folder / key)
        try:
            position, problem = self._advance_to_end(spec, grid, checkpoint, on_progress)
        except BaseException:
            checkpoint.close(delete=False)
            raise
        checkpoint.close(delete=True)
        names = self._evaluate.names
        curve = tuple(
            CurvePoint(grid.tokens(i), dict(zip(names, loss_E.tolist(), strict=True)))
            for i, loss_E in enumerate(position.curve_CxE)
            if np.isfinite(loss_E).all()
        )
        return Run(
            spec=spec,
            key=key,
            status="diverged" if problem else "ok",
            loss={} if problem else curve[-1].loss,
            realised=tokens,
            epochs=epochs,
            curve=curve,
            flops=flops_per_token(self.recipe.model) * sum(tokens.values()),
            seconds=float(position.seconds),
            message=problem,
        )

    def _seed(self, spec: RunSpec) -> int:
        """One number from the study's seed and the run's: studies share no run's randomness."""
        return self.recipe.seed * 1_000_003 + spec.seed

    def _start(self, spec: RunSpec, grid: Grid, checkpoint: RunCheckpoint[Position]) -> Position:
        curve_CxE = np.full((grid.points, len(self._evaluate.names)), np.nan)
        fresh = Position(self._init(self._seed(spec)), curve_CxE, np.zeros(()))
        return checkpoint.restore(fresh) or fresh

    def _advance_to_end(
        self,
        spec: RunSpec,
        grid: Grid,
        checkpoint: RunCheckpoint[Position],
        on_progress: OnProgress,
    ) -> tuple[Position, str]:
        """The final position, and what stopped the run early ("" if nothing did)."""
        recipe = self.recipe
        data = batches(
            self.corpus, spec.tokens, recipe.model.seq_len, recipe.batch_size, self._seed(spec)
        )
        position, last_save = self._start(spec, grid, checkpoint), time.monotonic()
        while (step := position.step) < grid.steps:
            began = time.monotonic()
            stop = min(step + CHUNK_STEPS, grid.next_eval(step))
            state, loss_n = self._take_steps(position.state, data, step, stop - step, grid.steps)
            at = f"by step {stop} of {grid.steps}"
            if not np.isfinite(loss_n).all():
                return position._replace(state=state), f"training loss was not finite {at}"
            loss = None
            if stop == grid.next_eval(step):
                loss = self._evaluate(state.params)
                if not np.isfinite(list(loss.values())).all():
                    return position._replace(state=state), f"held-out loss was not finite {at}"
                position.curve_CxE[grid.point(stop)] = list(loss.values())
            took = time.monotonic() - began
            position = position._replace(state=state, seconds=position.seconds + took)
            tokens = min(stop * grid.step_tokens, grid.all_tokens)
            rate = (stop - step) * grid.step_tokens / took
            on_progress(Progress(tokens, float(loss_n.mean()), rate, took, loss))
            if stop < grid.steps and time.monotonic() - last_save >= self._checkpoint_seconds:
                checkpoint.save(stop, position)
                last_save = time.monotonic()
        return position, ""

    def _take_steps(
        self, state: TrainState, data: Any, step: int, n: int, total_steps: int
    ) -> tuple[TrainState, np.ndarray]:
        """Steps `step` to `step + n`: the state after them and their n training losses."""
        picked = [data[i] for i in range(step, step + n)]
        batch_SxBxL = {}
        for name, one in picked[0].items():
            batch_SxBxL[name] = np.zeros((CHUNK_STEPS, *one.shape), one.dtype)
            batch_SxBxL[name][:n] = [batch[name] for batch in picked]
        same, rows = meshes.replicated(self.mesh), meshes.batch_rows(self.mesh)
        state, loss_S = self._chunk(
            state,
            jax.device_put(np.float32(total_steps), same),
            jax.device_put(batch_SxBxL, rows),
            jax.device_put(np.int32(n), same),
        )
        return state, np.asarray(loss_S)[:n]
