"""From specs to runs: train them here, replay them from a table, or compute them from a law."""

from __future__ import annotations

import dataclasses
import itertools
import queue
import shutil
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.data import Corpus
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run, RunSpec, run_key
from autoscale_jax.train import processes
from autoscale_jax.train.branches import Group, chains, trunk_key, units
from autoscale_jax.train.checkpoint import TRUNKS, sweep, unfinished
from autoscale_jax.train.loop import Progress, Trainer
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.population import choose, largest
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.sharding import check_batch, check_mesh

OnProgress = Callable[[RunSpec, Progress], None]


class Execute(Protocol):
    """Runs in the order in which they finish; one for every spec."""

    def __call__(self, specs: Sequence[RunSpec]) -> Iterable[Run]: ...


class _Stopped(Exception):
    """Ends a run in a slot because another slot failed or the caller has gone."""


@dataclasses.dataclass
class TrainHere:
    """Trains runs on the devices that this process sees: those of all processes that train as one.

    The devices are split into `slots`; each has a mesh (data, fsdp, tensor) and a group of runs at
    a time. `population` runs make a group, fewer where memory does not hold as many: one program
    trains them together. 0 measures how many are fastest. Groups that a process which was killed
    had begun are continued as they were. Under "wsd" a slot trains a unit of groups one after
    another, each branching off the one before; under "constant" a run also continues what an
    earlier call trained (`release` forgets that).
    `recipes` holds that of each model size; no group mixes sizes. `models` is the folder in which
    trained models are kept, None for none.
    """

    recipes: Mapping[str, Recipe]
    corpus: Corpus
    folder: Path
    slots: int
    checkpoint_seconds: float
    on_progress: OnProgress
    fsdp: int = 1
    tensor: int = 1
    population: int = 1
    models: Path | None = None

    def __post_init__(self) -> None:
        slots = slot_meshes(self.slots, self.fsdp, self.tensor)
        seconds = self.checkpoint_seconds
        if processes.leads():
            sweep(self.folder)
        self._trainers = [
            {
                size: Trainer(recipe, self.corpus, mesh, self.folder, seconds, self.models)
                for size, recipe in self.recipes.items()
            }
            for mesh in slots
        ]

    def __call__(self, specs: Sequence[RunSpec]) -> Iterator[Run]:
        todo = self._units(specs)
        processes.from_leader([[[_plain(s) for s in group] for group in unit] for unit in todo])
        return self._train(todo)

    def follow(self) -> None:
        """What every process but the first does: train what the first one trains, to its end."""
        while todo := processes.from_leader(None):
            plain = [[[RunSpec(**s) for s in group] for group in unit] for unit in todo]
            for _ in self._train(plain):
                pass

    def release(self) -> None:
        """At the end of a study: ends the other processes' `follow`, and deletes the ends of runs
        that longer ones might have continued."""
        processes.from_leader([])
        if processes.leads() and (self.folder / TRUNKS).exists():
            shutil.rmtree(self.folder / TRUNKS)

    def _units(self, specs: Sequence[RunSpec]) -> list[list[Group]]:
        """Units of one model size after the other."""
        found: dict[str, list[RunSpec]] = {}
        for spec in specs:
            if spec.size not in self.recipes:
                known = ", ".join(map(repr, self.recipes))
                raise BadInput(
                    f"run {spec.label!r}: model size {spec.size!r} is not known; there are {known}"
                )
            found.setdefault(spec.size, []).append(spec)
        return [unit for size, some in found.items() for unit in self._units_of(size, some)]

    def _units_of(self, size: str, specs: Sequence[RunSpec]) -> list[list[Group]]:
        """Units that have a checkpoint, then new ones, each of runs of similar length."""
        recipe = self.recipes[size]
        by_key = {
            run_key(spec, recipe.identity(), self.corpus.fingerprint_of(spec.tokens)): spec
            for spec in specs
        }
        begun = [
            [by_key[key] for key in keys]
            for keys in unfinished(self.folder)
            if all(key in by_key for key in keys)
        ]
        found = chains(list(by_key.values()), recipe)
        under_way = set(itertools.chain(*begun))
        alone = [c for c in found if self._continues(c[0]) and under_way.isdisjoint(c)]
        rest = [chain for chain in found if chain not in alone]
        return [
            *units(rest, begun, recipe, lambda count: self._most(size, specs, count)),
            *units(alone, [], recipe, lambda count: 1),
        ]

    def _continues(self, spec: RunSpec) -> bool:
        """Whether an earlier call kept the end of a run of this one's trunk."""
        fingerprint = self.corpus.fingerprint_of(spec.tokens)
        trunk = trunk_key(spec, self.recipes[spec.size], fingerprint)
        return bool(trunk) and (self.folder / TRUNKS / trunk).exists()

    def _most(self, size: str, specs: Sequence[RunSpec], count: int) -> int:
        """Runs a group, for so many chains of runs: no more than leave every slot one."""
        most = max(1, count // self.slots)
        recipe, mesh = self.recipes[size], self._trainers[0][size].mesh
        if jax.process_count() > 1:  # which would all have to compile and measure together
            return max(1, min(self.population, most))
        if self.population == 0:
            return choose(recipe, mesh, specs, most) if most > 1 else 1
        return largest(recipe, mesh, min(self.population, most))

    def _train(self, units: Sequence[Sequence[Group]]) -> Iterator[Run]:
        todo: queue.SimpleQueue[Sequence[Group]] = queue.SimpleQueue()
        for unit in units:
            todo.put(unit)
        done: queue.SimpleQueue[list[Run] | BaseException] = queue.SimpleQueue()
        stop = threading.Event()
        slots = [
            threading.Thread(target=self._work, args=(trainers, todo, done, stop), daemon=True)
            for trainers in self._trainers[: len(units)]
        ]
        for slot in slots:
            slot.start()
        try:
            for _ in itertools.chain(*units):
                result = done.get()
                if isinstance(result, BaseException):
                    raise result
                yield from result
        finally:
            stop.set()
            for slot in slots:
                slot.join()

    def _work(
        self,
        trainers: Mapping[str, Trainer],
        todo: queue.SimpleQueue[Sequence[Group]],
        done: queue.SimpleQueue[list[Run] | BaseException],
        stop: threading.Event,
    ) -> None:
        def on_progress(spec: RunSpec, progress: Progress) -> None:
            if stop.is_set():
                raise _Stopped
            self.on_progress(spec, progress)

        while not stop.is_set():
            try:
                for group, then in itertools.pairwise([*todo.get_nowait(), []]):
                    done.put(trainers[group[0].size].train(group, on_progress, then))
            except (_Stopped, queue.Empty):
                return
            except BaseException as error:  # handed to the caller's thread, which raises it
                done.put(error)
                return


def slot_meshes(slots: int, fsdp: int, tensor: int) -> list[Mesh]:
    """The mesh of each slot: an equal share of the devices that this process sees.

    Raises `BadInput` when they cannot be shared like this.
    """
    devices = jax.devices()
    if jax.process_count() > 1 and slots > 1:
        raise BadInput(
            f"config.execute.slots = {slots}: use 1, all {jax.process_count()} processes train "
            "each run together"
        )
    if len(devices) % slots:
        raise BadInput(
            f"config.execute.slots = {slots}: must divide the {len(devices)} devices here"
        )
    per_slot = len(devices) // slots
    return [
        make_mesh(devices[i * per_slot : (i + 1) * per_slot], fsdp, tensor) for i in range(slots)
    ]


def check_devices(recipes: Iterable[Recipe], slots: int, fsdp: int, tensor: int) -> None:
    """Raises `BadInput` for what `TrainHere` would refuse, which takes a corpus."""
    mesh = slot_meshes(slots, fsdp, tensor)[0]
    for recipe in recipes:
        check_mesh(recipe.model, mesh)
        check_batch(recipe, mesh)


def _plain(spec: RunSpec) -> dict[str, Any]:
    return spec.identity() | {"label": spec.label}


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
