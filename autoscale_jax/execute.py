"""From specs to runs: train them here, replay them from a table, or compute them from a law."""

from __future__ import annotations

import dataclasses
import queue
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import jax
import numpy as np

from autoscale_jax.data import Corpus
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec, run_key
from autoscale_jax.train.checkpoint import sweep
from autoscale_jax.train.loop import Progress, Trainer
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.recipe import Recipe

OnProgress = Callable[[RunSpec, Progress], None]


class Execute(Protocol):
    """Runs in the order in which they finish; one for every spec."""

    def __call__(self, specs: Sequence[RunSpec]) -> Iterable[Run]: ...


class _Stopped(Exception):
    """Ends a run in a slot because another slot failed or the caller has gone."""


@dataclasses.dataclass
class TrainHere:
    """Trains runs in this process: the devices are split into slots, each with a run at a time."""

    recipe: Recipe
    corpus: Corpus
    folder: Path
    slots: int
    checkpoint_seconds: float
    on_progress: OnProgress

    def __post_init__(self) -> None:
        sweep(self.folder)
        devices = jax.devices()
        if len(devices) % self.slots:
            raise BadInput(
                f"config.execute.slots = {self.slots}: must divide the {len(devices)} devices here"
            )
        per_slot = len(devices) // self.slots
        if self.recipe.batch_size % per_slot:
            raise BadInput(
                f"config.train.batch_size = {self.recipe.batch_size}: must be a multiple of the "
                f"{per_slot} devices of a slot"
            )
        self._trainers = [
            Trainer(
                self.recipe,
                self.corpus,
                make_mesh(devices[i * per_slot : (i + 1) * per_slot]),
                self.folder,
                self.checkpoint_seconds,
            )
            for i in range(self.slots)
        ]

    def __call__(self, specs: Sequence[RunSpec]) -> Iterator[Run]:
        todo: queue.SimpleQueue[RunSpec] = queue.SimpleQueue()
        for spec in specs:
            todo.put(spec)
        done: queue.SimpleQueue[Run | BaseException] = queue.SimpleQueue()
        stop = threading.Event()
        slots = [
            threading.Thread(target=self._work, args=(trainer, todo, done, stop), daemon=True)
            for trainer in self._trainers[: len(specs)]
        ]
        for slot in slots:
            slot.start()
        try:
            for _ in specs:
                result = done.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            stop.set()
            for slot in slots:
                slot.join()

    def _work(
        self,
        trainer: Trainer,
        todo: queue.SimpleQueue[RunSpec],
        done: queue.SimpleQueue[Run | BaseException],
        stop: threading.Event,
    ) -> None:
        while not stop.is_set():
            try:
                spec = todo.get_nowait()
            except queue.Empty:
                return

            def on_progress(progress: Progress, spec: RunSpec = spec) -> None:
                if stop.is_set():
                    raise _Stopped
                self.on_progress(spec, progress)

            try:
                done.put(trainer.train(spec, on_progress))
            except _Stopped:
                return
            except BaseException as error:  # handed to the caller's thread, which raises it
                done.put(error)
                return


@dataclasses.dataclass
class Replay:
    """Runs looked up in a stored table, by their tokens and seed."""

    table: RunTable

    def __call__(self, specs: Sequence[RunSpec]) -> Iterator[Run]:
        for spec in specs:
            run = self.table.find(spec)
            if run is None:
                raise BadInput(f"tokens {dict(spec.tokens)}, seed {spec.seed}: not in the table")
            yield run


@dataclasses.dataclass
class Synthetic:
    """Runs computed from a known law: loss_E of tokens_K, plus Gaussian noise on each loss.

    The noise follows from the spec, so that the same spec always gives the same run. `shared_sd`
    is the part that runs of one seed have in common, as common random numbers make it.
    """

    law: Callable[[np.ndarray], np.ndarray]
    eval_domains: tuple[str, ...]
    noise_sd: float = 0.0
    shared_sd: float = 0.0

    def __call__(self, specs: Sequence[RunSpec]) -> Iterator[Run]:
        for spec in specs:
            key = run_key(spec, {"noise_sd": self.noise_sd}, "synthetic")
            tokens_K = np.array(list(spec.tokens.values()), np.float64)
            loss_E = np.asarray(self.law(tokens_K), np.float64)
            own = np.random.default_rng(zlib.crc32(key.encode()))
            shared = np.random.default_rng(spec.seed)
            loss_E = loss_E + self.noise_sd * own.standard_normal(loss_E.shape)
            loss_E = loss_E + self.shared_sd * shared.standard_normal(loss_E.shape)
            yield Run(
                spec=spec,
                key=key,
                status="ok",
                loss=dict(zip(self.eval_domains, loss_E.tolist(), strict=True)),
                realised=dict(spec.tokens),
                epochs=dict.fromkeys(spec.tokens, 0.0),
            )
