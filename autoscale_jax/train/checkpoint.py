"""Checkpoints of an unfinished run: Orbax, written beside the training, whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import jax
import orbax.checkpoint as ocp

Position = TypeVar("Position")
DONE = ".done"  # suffix of the checkpoints of a finished run, which are about to be deleted


def sweep(folder: Path) -> None:
    """Delete what a process that was killed had not finished deleting."""
    for old in folder.glob(f"*{DONE}"):
        shutil.rmtree(old)


@contextlib.contextmanager
def _machine_errors() -> Iterator[None]:
    """A save that fails is the machine's failure, whatever its writer calls it (a full disk is a
    ValueError of many lines)."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"saving a checkpoint failed: {str(error)[:300]}") from error


class _OneSaveAtATime:
    """Lets a process have one save under way.

    Orbax tells the parts of a save that their folder is there through one counter of the process.
    Two managers that save at once take each other's numbers, and a save fails for want of a folder.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: ocp.CheckpointManager | None = None

    def start(self, manager: ocp.CheckpointManager, step: int, args: ocp.args.StandardSave) -> None:
        """Start a save once the one before it, anyone's, has ended."""
        with self._lock:
            self._wait()
            with _machine_errors():
                manager.save(step, args=args)
            self._under_way = manager

    def end(self, manager: ocp.CheckpointManager) -> None:
        """Wait for the save of a manager that is about to close."""
        with self._lock:
            if self._under_way is manager:
                self._wait()

    def _wait(self) -> None:
        manager, self._under_way = self._under_way, None
        if manager is not None:
            with _machine_errors():
                manager.wait_until_finished()


_SAVES = _OneSaveAtATime()


class RunCheckpoint(Generic[Position]):
    """The newest checkpoint of one run: one pytree of device and numpy arrays."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def restore(self, like: Position) -> Position | None:
        """What was saved last, laid out as `like` is, or None where nothing was."""
        step = self._manager.latest_step()
        if step is None:
            return None
        leaves, layout = jax.tree.flatten(like)
        # numpy leaves stay numpy: as device arrays they would lose their 64 bits
        abstract = [
            ocp.utils.to_shape_dtype_struct(leaf) if isinstance(leaf, jax.Array) else leaf
            for leaf in leaves
        ]
        saved = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return jax.tree.unflatten(layout, saved)

    def save(self, step: int, position: Position) -> None:
        """Start saving; raises what the save before failed with (a full disk, say)."""
        args = ocp.args.StandardSave(jax.tree.leaves(position))
        _SAVES.start(self._manager, step, args)

    def close(self, *, delete: bool) -> None:
        """Wait for the save under way; `delete` removes the checkpoints of a finished run."""
        try:
            _SAVES.end(self._manager)
        finally:
            with _machine_errors():
                self._manager.close()
        if delete:
            # renamed first: a process killed while files go must not leave half a checkpoint
            shutil.rmtree(self._folder.rename(self._folder.with_suffix(DONE)))
