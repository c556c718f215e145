"""Runs that train in one program, from their first step or last checkpoint to the final losses."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.data import Corpus, eval_batches
from autoscale_jax.models import flops_per_token
from autoscale_jax.specs import CurvePoint, Run, RunSpec
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train import processes
from autoscale_jax.train.checkpoint import TRUNKS, RunCheckpoint
from autoscale_jax.train.evaluate import Evaluate, eval_rows
from autoscale_jax.train.group import Member, longest, next_branch, note_divergence, record, stack
from autoscale_jax.train.keep import keep_models
from autoscale_jax.train.memory import told_what_to_do
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.sharding import check_batch, check_mesh
from autoscale_jax.train.step import (
    Batch,
    TrainState,
    chunk_steps,
    make_init,
    make_train_chunk,
)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run under way stands. `loss` is held-out loss by domain, when just measured."""

    tokens: int
    train_loss: float
    tokens_per_second: float
    seconds: float  # since the last report
    loss: dict[str, float] | None = None


OnProgress = Callable[[RunSpec, Progress], None]


class Position(NamedTuple):
    """Where K runs stand, all that a checkpoint holds: C curve points of E domains, NaN to come."""

    state: TrainState
    curve_KxCxE: np.ndarray
    seconds: np.ndarray  # of all K together
    first: np.ndarray  # steps that they did not take themselves: those of what they continue


class Trainer:
    """Trains groups of runs of one recipe on one mesh. Not for use by several threads.

    The K runs of a group go through one program, each with its own data, length and seed; what
    they give does not depend on the group but for rounding. One alone is the common case. `folder`
    is for checkpoints, `models` for what `keep_models` writes, None for nothing.
    """

    def __init__(
        self,
        recipe: Recipe,
        corpus: Corpus,
        mesh: Mesh,
        folder: Path,
        checkpoint_seconds: float,
        models: Path | None = None,
    ) -> None:
        check_mesh(recipe.model, mesh)
        check_batch(recipe, mesh)
        self.recipe, self.corpus, self.mesh = recipe, corpus, mesh
        self._folder, self._checkpoint_seconds, self._models = folder, checkpoint_seconds, models
        # several processes each read their rows alone; those of microbatches are no one block
        self._block = meshes.row_block(mesh) if recipe.accumulation == 1 else (0, 1)
        rows = eval_rows(recipe.model, mesh)
        self._eval_steps = max(1, round(recipe.eval_every_tokens / recipe.step_tokens))
        documents = recipe.model.document_attention
        held_out = eval_batches(
            corpus, recipe.model.seq_len, rows, recipe.objective, segments=documents
        )
        self._evaluate = Evaluate(recipe, mesh, held_out)

    def train(
        self, specs: Sequence[RunSpec], on_progress: OnProgress, then: Sequence[RunSpec] = ()
    ) -> list[Run]:
        """Train `specs` together, continuing from their checkpoint if there is one.

        `then` are longer runs of the same trunks (`branches`), one for each of `specs`: they get
        their first checkpoint where the decay of `specs` begins. Without, the ends of runs under
        "constant" are kept, and a run of such a trunk that is alone here starts there. A run that
        continues another has the losses and curve of one trained from its first step, and less
        `flops` and `seconds`.
        A loss that is not finite ends its run with status "diverged"; errors of the machine
        (disk full, out of memory) are raised as `OSError` and leave the checkpoint for the next
        try.
        """
        group, longer = self._members(specs), self._members(then)
        checkpoint: RunCheckpoint[Position] = RunCheckpoint(
            self._folder, [member.key for member in group]
        )
        try:
            with told_what_to_do():
                position = self._advance_to_end(group, longer, checkpoint, on_progress)
                if not then:
                    self._keep(group, position)
                if self._models is not None:
                    params = position.state.params
                    keep_models(self._models, group, self.recipe.model, params, self.corpus)
        except BaseException:
            checkpoint.close(delete=False)
            raise
        checkpoint.close(delete=True)
        first = int(position.first)
        own_K = [m.grid.all_tokens - m.grid.tokens(first) for m in group]
        seconds_per_token = float(position.seconds) / sum(own_K)
        return [
            self._run(member, curve_CxE, own, own * seconds_per_token)
            for member, curve_CxE, own in zip(group, position.curve_KxCxE, own_K, strict=True)
        ]

    def _members(self, specs: Sequence[RunSpec]) -> list[Member]:
        return [
            Member(spec, self.recipe, self.corpus, self._eval_steps, self._block) for spec in specs
        ]

    def _run(self, member: Member, curve_CxE: np.ndarray, own_tokens: int, seconds: float) -> Run:
        curve = tuple(
            CurvePoint(
                member.grid.point_tokens(i),
                dict(zip(self._evaluate.names, loss_E.tolist(), strict=True)),
            )
            for i, loss_E in enumerate(curve_CxE)
            if np.isfinite(loss_E).all()
        )
        return Run(
            spec=member.spec,
            key=member.key,
            status="diverged" if member.problem else "ok",
            loss={} if member.problem else curve[-1].loss,
            realised=member.tokens,
            epochs=member.epochs,
            curve=curve,
            flops=flops_per_token(self.recipe.model) * own_tokens,
            seconds=seconds,
            message=member.problem,
            data=self.corpus.data_of(member.spec.tokens),
        )

    def _start(self, group: Sequence[Member], checkpoint: RunCheckpoint[Position]) -> Position:
        state = make_init(self.recipe, self.mesh, len(group))([member.seed for member in group])
        curve_KxCxE = self._no_curve(len(group), max(member.grid.points for member in group))
        fresh = Position(state, curve_KxCxE, np.zeros(()), np.array(0))
        return checkpoint.restore(fresh) or self._kept(group, fresh) or fresh

    def _no_curve(self, count: int, points: int) -> np.ndarray:
        return np.full((count, points, len(self._evaluate.names)), np.nan)

    def _continued(self, longer: Sequence[Member], step: int, position: Position) -> Position:
        """Where runs start that continue others from `step` on."""
        curve_KxCxE = self._no_curve(len(longer), max(m.grid.points for m in longer))
        points = step // self._eval_steps
        curve_KxCxE[:, :points] = position.curve_KxCxE[:, :points]
        return Position(position.state, curve_KxCxE, np.zeros(()), np.array(step))

    def _kept(self, group: Sequence[Member], fresh: Position) -> Position | None:
        """Where a run that is alone continues one that was kept; its own end, if that was kept but
        did not get into the ledger."""
        member, folder = group[0], self._folder / TRUNKS
        known = len(group) == 1 and member.trunk and (folder / member.trunk).exists()
        if not processes.from_leader(bool(known)):
            return None
        kept: RunCheckpoint[Position] = RunCheckpoint(folder, [member.trunk])
        try:
            step = kept.step
            if step is None or step > member.grid.steps:
                return None
            curve_KxCxE = self._no_curve(1, -(-step // self._eval_steps))
            position = kept.restore(fresh._replace(curve_KxCxE=curve_KxCxE))
        finally:
            kept.close(delete=False)
        if position is None or step == member.grid.steps:
            return position
        return self._continued(group, step, position)

    def _keep(self, group: Sequence[Member], position: Position) -> None:
        """Keeps the end of each run that a longer one may continue, the longest of its trunk."""
        for k, member in enumerate(group):
            if member.problem or not member.trunk:
                continue
            kept: RunCheckpoint[Position] = RunCheckpoint(self._folder / TRUNKS, [member.trunk])
            try:
                if processes.from_leader((kept.step or 0) < member.grid.steps):
                    own = Position(
                        jax.tree.map(lambda x, k=k: x[k : k + 1], position.state),
                        position.curve_KxCxE[k : k + 1],
                        position.seconds / len(group),
                        position.first,
                    )
                    kept.save(member.grid.steps, own)
            finally:
                kept.close(delete=False)

    def _branch_off(self, longer: Sequence[Member], step: int, position: Position) -> None:
        """Makes a position the first checkpoint of longer runs, unless they have one."""
        checkpoint: RunCheckpoint[Position] = RunCheckpoint(self._folder, [m.key for m in longer])
        try:
            if processes.from_leader(checkpoint.step is None):
                checkpoint.save(step, self._continued(longer, step, position))
        finally:
            checkpoint.close(delete=False)

    def _advance_to_end(
        self,
        group: Sequence[Member],
        longer: Sequence[Member],
        checkpoint: RunCheckpoint[Position],
        on_progress: OnProgress,
    ) -> Position:
        """The final position; members that diverged have their `problem` set."""
        position, last_save = self._start(group, checkpoint), time.monotonic()
        train_chunk = make_train_chunk(self.recipe, self.mesh, len(group))
        total_steps_K = self._everywhere(
            np.array([member.grid.steps for member in group], np.float32)
        )
        step = int(position.state.step[0])
        stop, batch = self._load(group, step)
        while step < longest(group):
            began = time.monotonic()
            n = self._everywhere(np.int32(stop - step))
            state, loss_SxK = train_chunk(position.state, total_steps_K, batch, n)
            after, batch = self._load(group, stop)  # while the devices work
            loss_nxK = np.asarray(loss_SxK)[: stop - step]
            note_divergence(group, loss_nxK, "training", stop)
            loss_KxE = None
            if longest(group) and (stop % self._eval_steps == 0 or stop >= longest(group)):
                loss_KxE = self._evaluate(state.params)
                note_divergence(group, loss_KxE.T, "held-out", stop)
                record(group, position.curve_KxCxE, loss_KxE, stop)
            took = time.monotonic() - began
            position = position._replace(state=state, seconds=position.seconds + took)
            self._report(group, on_progress, step, stop, loss_nxK, loss_KxE, took)
            if longer and stop == group[0].branch and not any(m.problem for m in group):
                self._branch_off(longer, stop, position)
            if stop < longest(group) and self._save_is_due(time.monotonic() - last_save):
                checkpoint.save(stop, position)
                last_save = time.monotonic()
            step, stop = stop, after
        return position

    def _save_is_due(self, seconds: float) -> bool:
        return bool(processes.from_leader(seconds >= self._checkpoint_seconds))

    def _everywhere(self, x: Any) -> jax.Array:
        return meshes.put(x, meshes.replicated(self.mesh))

    @functools.partial(jax.profiler.annotate_function, name="load batches")
    def _load(self, group: Sequence[Member], step: int) -> tuple[int, Batch]:
        """Where the call after `step` steps stops, and its batches on the devices."""
        most = chunk_steps(self.recipe)
        on_grid = (step // self._eval_steps + 1) * self._eval_steps
        stop = min(step + most, on_grid, next_branch(group, step), longest(group))
        whole = stack(group, self.recipe, most, step, stop)
        return stop, meshes.put_rows(whole, self.mesh, 3, self._block[1])

    def _report(
        self,
        group: Sequence[Member],
        on_progress: OnProgress,
        start: int,
        stop: int,
        loss_nxK: np.ndarray,
        loss_KxE: np.ndarray | None,
        took: float,
    ) -> None:
        for k, member in enumerate(group):
            if member.problem or start >= member.grid.steps:
                continue
            tokens = member.grid.tokens(stop)
            n = min(stop, member.grid.steps) - start
            loss = None
            if loss_KxE is not None:
                loss = dict(zip(self._evaluate.names, loss_KxE[k].tolist(), strict=True))
            rate = (tokens - member.grid.tokens(start)) / took
            on_progress(
                member.spec, Progress(tokens, float(loss_nxK[:n, k].mean()), rate, took, loss)
            )
