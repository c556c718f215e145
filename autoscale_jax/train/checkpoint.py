"""Checkpoints of an unfinished run: Orbax, written beside the training, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from autoscale_jax.train.step import TrainState


class RunCheckpoint:
    """The newest checkpoint of one run: its state and a JSON note (curve, seconds)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, cleanup_tmp_directories=True, create=True
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The saved (state, note), laid out as `like` is, or None where nothing was saved."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like._asdict())
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), note=ocp.args.JsonRestore()
        )
        saved = self._manager.restore(step, args=args)
        return TrainState(**saved["state"]), saved["note"]

    def save(self, state: TrainState, note: dict[str, Any]) -> None:
        """Start saving; raises what an earlier save failed with (a full disk, say)."""
        self._manager.check_for_errors()
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()), note=ocp.args.JsonSave(note)
        )
        self._manager.save(int(state.step), args=args)

    def close(self, *, delete: bool) -> None:
        """Wait for the save under way; `delete` removes the checkpoints of a finished run."""
        self._manager.close()
        if delete:
            shutil.rmtree(self._folder)
