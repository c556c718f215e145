"""One run from its first step, or its last checkpoint, to its final held-out losses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.data import Corpus, batches, eval_batches, realised
from autoscale_jax.models.gpt2 import flops_per_token
from autoscale_jax.specs import CurvePoint, Run, RunSpec, Status, run_key
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.checkpoint import RunCheckpoint
from autoscale_jax.train.evaluate import make_evaluate
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


@dataclasses.dataclass
class _Position:
    """What a checkpoint restores: training state, curve so far, seconds spent."""

    state: TrainState
    curve: list[CurvePoint]
    seconds: float

    @property
    def step(self) -> int:
        return int(self.state.step)

    def note(self) -> dict[str, Any]:
        return {"curve": [[p.tokens, dict(p.loss)] for p in self.curve], "seconds": self.seconds}


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
        self._evaluate = make_evaluate(
            recipe.model, mesh, eval_batches(corpus, recipe.model.seq_len, rows)
        )

    def train(self, spec: RunSpec, on_progress: OnProgress) -> Run:
        """Train `spec`, continuing from its checkpoint if there is one.

        A loss that is not finite ends the run with status "diverged"; errors of the machine
        (disk full, out of memory) are raised and leave the checkpoint for the next try.
        """
        key = run_key(spec, self.recipe.identity(), self.corpus.fingerprint)
        checkpoint = RunCheckpoint(self._folder / key)
        try:
            position, problem = self._advance_to_end(spec, checkpoint, on_progress)
        except BaseException:
            checkpoint.close(delete=False)
            raise
        checkpoint.close(delete=True)
        status: Status = "diverged" if problem else "ok"
        tokens, epochs = realised(self.corpus, spec.tokens, self.recipe.model.seq_len)
        return Run(
            spec=spec,
            key=key,
            status=status,
            loss={} if problem else position.curve[-1].loss,
            realised=tokens,
            epochs=epochs,
            curve=tuple(position.curve),
            flops=flops_per_token(self.recipe.model) * sum(tokens.values()),
            seconds=position.seconds,
            message=problem,
        )

    def _seed(self, spec: RunSpec) -> int:
        """One number from the study's seed and the run's: studies share no run's randomness."""
        return self.recipe.seed * 1_000_003 + spec.seed

    def _start(self, spec: RunSpec, checkpoint: RunCheckpoint) -> _Position:
        fresh = self._init(self._seed(spec))
        saved = checkpoint.restore(fresh)
        if saved is None:
            return _Position(fresh, [], 0.0)
        state, note = saved
        return _Position(state, [CurvePoint(n, loss) for n, loss in note["curve"]], note["seconds"])

    def _advance_to_end(
        self, spec: RunSpec, checkpoint: RunCheckpoint, on_progress: OnProgress
    ) -> tuple[_Position, str]:
        """The final position, and what stopped the run early ("" if nothing did)."""
        recipe = self.recipe
        length, seed = recipe.model.seq_len, self._seed(spec)
        data = batches(self.corpus, spec.tokens, length, recipe.batch_size, seed)
        total_steps, step_tokens = len(data), recipe.batch_size * length
        eval_steps = max(1, round(recipe.eval_every_tokens / step_tokens))
        all_tokens = sum(realised(self.corpus, spec.tokens, length)[0].values())
        position = self._start(spec, checkpoint)
        last_save = time.monotonic()
        while (step := position.step) < total_steps:
            began = time.monotonic()
            to_eval = eval_steps - step % eval_steps
            n = min(CHUNK_STEPS, total_steps - step, to_eval)
            position.state, loss_n = self._take_steps(position.state, data, step, n, total_steps)
            at = f"by step {step + n} of {total_steps}"
            if not np.isfinite(loss_n).all():
                return position, f"training loss was not finite {at}"
            tokens, loss = min((step + n) * step_tokens, all_tokens), None
            if n == to_eval or step + n == total_steps:
                loss = self._evaluate(position.state.params)
                if not np.isfinite(list(loss.values())).all():
                    return position, f"held-out loss was not finite {at}"
                position.curve.append(CurvePoint(tokens, loss))
            took = time.monotonic() - began
            position.seconds += took
            rate = n * step_tokens / took
            on_progress(Progress(tokens, float(loss_n.mean()), rate, took, loss))
            if step + n < total_steps and time.monotonic() - last_save >= self._checkpoint_seconds:
                checkpoint.save(position.state, position.note())
                last_save = time.monotonic()
        return position, ""

    def _take_steps(
        self, state: TrainState, data: Any, step: int, n: int, total_steps: int
    ) -> tuple[TrainState, np.ndarray]:
        """Steps `step` to `step + n`: the state after them and their n training losses."""
        picked = [data[i] for i in range(step, step + n)]
        tokens_SxBxL1 = np.zeros((CHUNK_STEPS, *picked[0]["tokens"].shape), np.int32)
        weight_SxB = np.zeros((CHUNK_STEPS, *picked[0]["weight"].shape), np.float32)
        tokens_SxBxL1[:n] = [batch["tokens"] for batch in picked]
        weight_SxB[:n] = [batch["weight"] for batch in picked]
        same, rows = meshes.replicated(self.mesh), meshes.batch_rows(self.mesh)
        state, loss_S = self._chunk(
            state,
            jax.device_put(np.float32(total_steps), same),
            jax.device_put(tokens_SxBxL1, rows),
            jax.device_put(weight_SxB, rows),
            jax.device_put(np.int32(n), same),
        )
        return state, np.asarray(loss_S)[:n]
