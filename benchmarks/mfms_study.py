"""One search on the simulator: the registry of methods, a trajectory, and the folder that keeps it.

A trajectory is what a search recommends against what it has spent, judged by the truth.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autoscale_jax.methods import ASHA, MFMSBO, CornerProbe, GridSearch, Hyperband, RandomSearch
from autoscale_jax.methods.mixtures import Sampler
from autoscale_jax.methods.search import Objective, Search
from autoscale_jax.methods.space import Space
from autoscale_jax.runs import RunTable
from autoscale_jax.simulate import Simulator
from autoscale_jax.specs import RunSpec

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "mfms"
LOSSES = ("common_crawl", "c4", "wikipedia", "stack_exchange", "github", "arxiv", "book")
ERRORS = ("hellaswag_error", "piqa_error", "arc_easy_error")
METRICS = {name: (name,) for name in (*LOSSES, *ERRORS)} | {"mean_loss": LOSSES}  # means of these
TUNING = ("stack_exchange", "c4", "arxiv", "piqa_error")  # all that settings were chosen by
DOMAINS = {"whole": 1.0, "capped": 0.5}  # largest weight allowed
FULL = 195  # units of a full training; a unit is 100 steps of the largest model
UNIT = 825687276.3097087  # FLOPs of the cost table
BUDGET = 80 * FULL * UNIT


def sampler(space: Space) -> Sampler:
    """Random's of a domain: the authors' on the whole simplex, uniform on the capped one."""
    return "logits" if min(space.upper_K) == 1 else "dirichlet"


LONG = 2600 * UNIT  # budget of searches with a surrogate
STEPS = (900, 2000, 4000, 10_000, 14_000, 19_500)  # from which they choose
PAPER_STEPS = (6000, 12_000, 19_500)
QUARTERS = (0.25, 0.5, 0.75)


def long(space: Space) -> float:
    """FLOPs of a search with a surrogate: less on the capped simplex, where corners are no end."""
    return LONG if min(space.upper_K) == 1 else 1600 * UNIT


def stepped(space: Space, steps: tuple[int, ...] = STEPS) -> Space:
    return dataclasses.replace(space, steps=steps)


def at_target_size(space: Space) -> Space:
    return dataclasses.replace(space, sizes=space.sizes[-1:])


# A method a line. A setting that changes begins new trajectories, and so does changed code.
METHODS: dict[str, Callable[[Space, Objective, int], Any]] = {
    "random": lambda space, f, seed: RandomSearch(space, f, BUDGET, seed, sampler(space)),
    "random dirichlet": lambda space, f, seed: RandomSearch(space, f, BUDGET, seed),
    "grid": lambda space, f, seed: GridSearch(space, f, BUDGET, seed),
    "corner probe": lambda space, f, seed: CornerProbe(space, f, BUDGET, seed),
    "hyperband": lambda space, f, seed: Hyperband(space, f, BUDGET, seed, 3, sampler(space)),
    "hyperband full": lambda space, f, seed: Hyperband(  # with the paper's incumbents
        space, f, BUDGET, seed, 3, sampler(space), full_only=True
    ),
    "ours": lambda space, f, seed: MFMSBO(stepped(space), f, long(space), seed),
    "paper": lambda space, f, seed: MFMSBO(
        stepped(space, PAPER_STEPS), f, LONG, seed, acquisition="paper", curve_at=QUARTERS
    ),
    "target size only": lambda space, f, seed: MFMSBO(
        at_target_size(stepped(space)), f, long(space), seed
    ),
    "full fidelity EI": lambda space, f, seed: MFMSBO(
        at_target_size(stepped(space, (19_500,))), f, 5850 * UNIT, seed
    ),
    "asha": lambda space, f, seed: ASHA(space, f, BUDGET, seed, sampler=sampler(space)),
}


def peer(name: str) -> Any:
    """A search of another library, which takes long to import."""
    return getattr(importlib.import_module("mfms_peers"), name)


if importlib.util.find_spec("optuna"):
    METHODS["optuna"] = lambda space, f, seed: peer("OptunaHyperband")(space, f, BUDGET, seed)
if importlib.util.find_spec("botorch"):
    METHODS["botorch"] = lambda space, f, seed: peer("BoTorchGradient")(space, f, 600 * UNIT, seed)
SLOW = ("botorch",)  # minutes a trajectory: computed only where named


class Task(NamedTuple):
    """One trajectory to compute."""

    method: str
    metric: str
    domain: str
    seed: int


class Trajectory(NamedTuple):
    """The true target value of what is recommended from each cost on (units, rising).

    Only changes are kept, and the end.
    """

    units: list[float]
    value: list[float]
    seconds: float  # of a CPU


@functools.cache
def simulator() -> Simulator:
    return Simulator.load(DATA)


@functools.cache
def space_of(domain: str) -> Space:
    return simulator().space(upper=DOMAINS[domain])


def mean_of(metric: str) -> Objective:
    """The metric as an objective of a run's losses."""
    names = METRICS[metric]
    return lambda loss: sum(loss[name] for name in names) / len(names)


def columns_of(metric: str) -> Callable[[np.ndarray], np.ndarray]:
    """The metric of the simulator's values: [..., M] -> [...]."""
    columns = [simulator().metrics.index(name) for name in METRICS[metric]]
    return lambda value_QxM: value_QxM[..., columns].mean(-1)


def method_of(task: Task) -> Any:
    return METHODS[task.method](space_of(task.domain), mean_of(task.metric), task.seed)


def truth(task: Task, weights_QxK: np.ndarray) -> np.ndarray:
    """The metric at the target, of Q mixtures."""
    space = space_of(task.domain)
    value_QxM = simulator().predict(weights_QxK, space.target.name, space.target_steps)
    return columns_of(task.metric)(value_QxM)


def trajectory(task: Task) -> Trajectory:
    """Runs a search to its end."""
    method, began = method_of(task), time.process_time()
    steps = searched(method) if isinstance(method, Search) else asked(method, space_of(task.domain))
    flops, weights = zip(*steps, strict=True)
    value_Q = truth(task, np.array(weights))
    last = len(value_Q) - 1
    kept = [i for i in range(last + 1) if i in (0, last) or value_Q[i] != value_Q[i - 1]]
    units = [float(flops[i] / UNIT) for i in kept]
    return Trajectory(units, value_Q[kept].tolist(), time.process_time() - began)


def asked(method: Any, space: Space) -> Iterator[tuple[float, np.ndarray]]:
    """FLOPs spent and the recommended weights_K after every ask of any method.

    `recommend(table)`, where a method offers it, stands for the slower `propose`.
    """
    table, done, spent = RunTable(), list[RunSpec](), 0.0
    while specs := method.ask(table):
        for run in simulator()(specs):
            spent += space.cost(run.spec, done)
            done.append(run.spec)
            table.add(run)
        if hasattr(method, "recommend"):
            weights_K = np.asarray(method.recommend(table))
        else:
            weights = method.propose(table, 1).weights
            weights_K = np.array([weights[name] for name in space.domains])
        yield spent, weights_K


def searched(method: Search) -> Iterator[tuple[float, np.ndarray]]:
    """The same after every run of a search without a model, without asking from the start again."""
    simulate = dataclasses.replace(simulator(), shares=())
    batches, best, spent = method.batches(), None, 0.0
    jobs = next(batches)
    while True:
        runs = list(simulate([job.spec for job in jobs]))
        for run, job in zip(runs, jobs, strict=True):
            spent += job.cost
            if method.counts(run) and (best is None or method.rank(run) < method.rank(best)):
                best = run
            if best is not None:
                yield spent, method.space.trial(best.spec).weights_K
        try:
            jobs = batches.send(runs)
        except StopIteration:
            return


def key(task: Task) -> str:
    """Hash of the task, the method's settings, its code and the simulator's."""
    method = method_of(task)
    settings = {
        field.name: repr(getattr(method, field.name))
        for field in dataclasses.fields(method)
        if field.name != "objective"
    }
    code = sources(type(method).__module__) | sources("autoscale_jax.simulate")
    identity = [task[1:], settings, sorted(code.items()), simulator().fingerprint]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:24]


@functools.cache
def sources(module: str) -> dict[str, str]:
    """Hashes of the code, without docstrings and comments, of a module and what it is made of.

    Of what it imports, that is the methods' own modules and the surrogates (`fit.gp...`).
    """
    file = importlib.util.find_spec(module)
    assert file is not None and file.origin is not None
    tree = ast.parse(Path(file.origin).read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            path = node.module.removeprefix("autoscale_jax.")
            if path.startswith(("methods.", "fit.gp", "fit.acquisition", "mfms_botorch")):
                found |= sources(node.module)
    return found | {module: hashlib.sha256(ast.dump(tree).encode()).hexdigest()}


def path_of(task: Task, cache: Path) -> Path:
    name = f"{task.method} {task.metric} {task.domain} {task.seed}".replace(" ", "-")
    return cache / f"{name}.{key(task)}.json"


def kept(task: Task, cache: Path) -> Trajectory | None:
    """The trajectory of an earlier command, if it ended."""
    path = path_of(task, cache)
    return Trajectory(**json.loads(path.read_text())) if path.exists() else None


def compute(task: Task, cache: Path) -> Trajectory:
    """A trajectory, kept for later commands the moment that it ends."""
    found = trajectory(task)
    path = path_of(task, cache)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(found._asdict()))
    part.replace(path)
    return found
