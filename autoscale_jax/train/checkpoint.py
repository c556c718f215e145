"""Checkpoints of unfinished runs: Orbax, written beside the training, whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import jax
import orbax.checkpoint as ocp

from autoscale_jax.specs import BadInput
from autoscale_jax.train import processes

Position = TypeVar("Position")
MEMBERS = "members.json"  # beside a group's checkpoints: whose they are
DONE = ".done"  # suffix of the checkpoints of a finished run, which are about to be deleted
TRUNKS = "trunks"  # beside them: ends of runs that longer ones may continue, by trunk


def _name(keys: Sequence[str]) -> str:
    """The folder of a group of runs; a run alone goes by its key."""
    if len(keys) == 1:
        return keys[0]
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:16]


def unfinished(folder: Path) -> list[list[str]]:
    """The keys of the runs that trained in one program when they were saved last, by group."""
    files = sorted(folder.glob(f"*/{MEMBERS}"))
    return [json.loads(file.read_text()) for file in files if file.parent.suffix != DONE]


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
    """The newest checkpoint of the runs that train in one program: one pytree of arrays.

    All processes write it together, each what its devices hold, into a folder that they share.
    Devices, mesh and number of processes may be others when it is read.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self._folder = folder / _name(keys)
        self._keys = list(keys)
        options = ocp.CheckpointManagerOptions(max_to_keep=1, cleanup_tmp_directories=True)
        handler = ocp.StandardCheckpointHandler()  # named, so that metadata can be read as well
        self._manager = ocp.CheckpointManager(
            self._folder.absolute(), options=options, item_handlers=handler
        )

    @property
    def step(self) -> int | None:
        """The step of what was saved last, or None where nothing was."""
        return self._manager.latest_step()

    def restore(self, like: Position) -> Position | None:
        """What was saved last, laid out as `like` is, or None where nothing was.

        Raises `BadInput` when what was saved has another shape.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        self._refuse_other_shape(step, like)
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
        if processes.leads():
            self._name_members()
        args = ocp.args.StandardSave(jax.tree.leaves(position))
        _SAVES.start(self._manager, step, args)

    def close(self, *, delete: bool) -> None:
        """Wait for the save under way; `delete` removes the checkpoints of finished runs."""
        try:
            _SAVES.end(self._manager)
        finally:
            with _machine_errors():
                self._manager.close()
        processes.meet()
        if delete and processes.leads():
            # renamed first: a process killed while files go must not leave half a checkpoint
            shutil.rmtree(self._folder.rename(self._folder.with_suffix(DONE)))

    def _name_members(self) -> None:
        members = self._folder / MEMBERS
        if not members.exists():
            temporary = members.with_suffix(".tmp")
            temporary.write_text(json.dumps(self._keys))
            os.replace(temporary, members)

    def _refuse_other_shape(self, step: int, like: Position) -> None:
        saved = self._manager.item_metadata(step)
        wanted = jax.tree_util.tree_leaves_with_path(like)
        where = f"{self._folder / str(step)}: checkpoint of another shape"
        remedy = "delete it, and its runs start afresh, or give another --workdir"
        if len(saved) != len(wanted):
            raise BadInput(f"{where}: {len(saved)} arrays, not {len(wanted)}; {remedy}")
        for have, (path, leaf) in zip(saved, wanted, strict=True):
            if tuple(have.shape) != leaf.shape:
                name = jax.tree_util.keystr(path)
                raise BadInput(
                    f"{where}: {name} is {tuple(have.shape)}, not {leaf.shape}; {remedy}"
                )
