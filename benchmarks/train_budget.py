"""Where the time of a training step goes, from a profile of the loop that studies train with.

Every instant of the loop counts once: to the first of `PARTS` that is under way in it. An operation
belongs to the part whose scope it was written in; one that the compiler fused from several scopes
to that of its result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.data import Corpus
from autoscale_jax.data.tokenize import ByteTokenizer
from autoscale_jax.specs import Domain, RunSpec
from autoscale_jax.train import hlo
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.plan_cost import product_flops
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import chunk_steps, make_train_chunk

# matmul: products with parameters but the output layer's, which is part of the loss. other: norms,
# activations, residuals, embedding, copies. input wait: the devices stand still while the next
# batches load or travel. idle: they stand still otherwise.
PARTS = ("matmul", "attention", "loss", "optimizer", "other", "input wait", "idle")
SCOPES = {"softmax_attention": "attention", "cross_entropy": "loss", "optimizer": "optimizer"}
LOAD, REPORT = "load batches", "report"  # what the host does, by name: the trainer's and ours
Spans = np.ndarray  # [n, 2]: begins and ends, in ns


class RandomTokens:
    """A stream of tokens drawn from the whole vocabulary, in memory."""

    def __init__(self, vocabulary: int, length: int, seed: int) -> None:
        self._tokens = np.random.default_rng(seed).integers(0, vocabulary, length, np.int32)

    def __len__(self) -> int:
        return len(self._tokens)

    def read(self, start: int, out: np.ndarray) -> None:
        out[:] = self._tokens[start : start + len(out)]


def random_corpus(vocabulary: int, length: int = 2**22) -> Corpus:
    """One domain of random tokens: embedding and loss touch what they do with a real vocabulary."""
    held_out, tokenizer = 2048, ByteTokenizer()
    tokenizer.vocab_size = vocabulary
    return Corpus(
        domains=(Domain("random", length - 1, held_out - 1, 1, 1),),
        train_tokens={"random": RandomTokens(vocabulary, length, 0)},
        eval_tokens={"random": RandomTokens(vocabulary, held_out, 1)},
        eval_limit=0,
        tokenizer=tokenizer,
        fingerprints={"random": ("random", "random")},
        warnings=(),
    )


def budget(
    recipe: Recipe, corpus: Corpus, mesh: Mesh, folder: Path, calls: int = 2
) -> dict[str, float]:
    """Seconds of a step by part of `PARTS`, of `calls` compiled calls in the middle of a training.

    The recipe must not ask for evaluations on the way (`recipe_of`). Raises as `between_reports`.
    """
    profile = _train(recipe, corpus, mesh, folder, calls)
    seconds = between_reports(profile, parts_of(make_train_chunk(recipe, mesh, 1).as_text()))
    steps = calls * chunk_steps(recipe)
    return {part: s / steps for part, s in seconds.items()}


def between_reports(profile: Path, parts: Mapping[str, str]) -> dict[str, float]:
    """Seconds by part of `PARTS` from the first of the profile's reports to its last.

    parts: of the program's instructions. Raises `RuntimeError` when the profile shows no product.
    """
    spans, loads, reports = _spans(profile, parts)
    if not len(spans["matmul"]) or len(reports) < 2:
        raise RuntimeError("the profile shows nothing of the program: is CUPTI there?")
    spans["input wait"] = np.concatenate([spans["input wait"], waits(loads, spans)])
    found = shares(spans, reports[0, 1], reports[-1, 0])
    return {part: ns / 1e9 for part, ns in found.items()}


def _train(recipe: Recipe, corpus: Corpus, mesh: Mesh, folder: Path, calls: int) -> Path:
    """Trains on an equal mixture; the profile of the calls after the first and before the last."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # which would slow the host down
    options.host_tracer_level = 1
    done = 0

    def on_progress(*_: object) -> None:
        nonlocal done
        done += 1
        if done == 1:
            jax.profiler.start_trace(folder, profiler_options=options)
        if done <= calls + 1:
            with jax.profiler.TraceAnnotation(REPORT):
                pass
        if done == calls + 1:
            jax.profiler.stop_trace()

    names = [domain.name for domain in corpus.domains]
    tokens = (calls + 2) * chunk_steps(recipe) * recipe.step_tokens
    spec = RunSpec(dict.fromkeys(names, tokens // len(names)))
    Trainer(recipe, corpus, mesh, folder / "checkpoints", 1e9).train([spec], on_progress)
    (profile,) = folder.glob("**/*.xplane.pb")
    return profile


def parts_of(text: str) -> dict[str, str]:
    """The part of each instruction of a compiled program, by its name."""
    program = hlo.parse(text)
    found = {}
    for computation in program.computations.values():
        for instruction in computation.values():
            found[instruction.name] = _part(program, instruction, computation)
    return found


def _part(program: hlo.Program, instruction: hlo.Instruction, near: hlo.Computation) -> str:
    inside = list(program.inside(instruction, near))
    names = (re.search(r'op_name="([^"]*)"', one.attributes) for one, _ in inside)
    name = next((name.group(1) for name in names if name), "")
    for scope, part in SCOPES.items():
        if scope in name:
            return part
    return "matmul" if any(_is_product(*one) for one in inside) else "other"


def _is_product(instruction: hlo.Instruction, near: hlo.Computation) -> bool:
    target = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    library = target and re.search("gemm|matmul", target.group(1))
    return bool(library) or product_flops(instruction, near) > 0


def _spans(profile: Path, parts: Mapping[str, str]) -> tuple[dict[str, Spans], Spans, Spans]:
    """When operations of each part were under way, when batches were loaded and when reported."""
    spans: dict[str, list[tuple[float, float]]] = {name: [] for name in (*PARTS, LOAD, REPORT)}
    for name, begin, end in _events(profile, parts):
        spans[name].append((begin, end))
    arrays = {name: np.array(sorted(s)).reshape(-1, 2) for name, s in spans.items()}
    return {part: arrays[part] for part in PARTS}, arrays[LOAD], arrays[REPORT]


def _events(profile: Path, parts: Mapping[str, str]) -> Iterator[tuple[str, float, float]]:
    """(part, LOAD or REPORT, begin, end), of a profile of one device.

    The operations of a card are what its streams did, those of a CPU what the host did.
    """
    data = jax.profiler.ProfileData.from_file(str(profile))
    lines = [(plane.name, line) for plane in data.planes for line in plane.lines]
    host = [line for plane, line in lines if plane.startswith("/host:")]
    streams = [line for _, line in lines if line.name.startswith("Stream #")]
    for event in (event for line in host for event in line.events):
        if event.name in (LOAD, REPORT):
            yield event.name, event.start_ns, event.start_ns + event.duration_ns
    for event in (event for line in streams or host for event in line.events):
        part = parts.get(str(dict(event.stats).get("hlo_op")))
        if part is None and streams:  # none of the program's: batches that travel, say
            part = "input wait" if "H2D" in event.name else "other"
        if part:
            yield part, event.start_ns, event.start_ns + event.duration_ns


def waits(loads: Spans, spans: dict[str, Spans]) -> Spans:
    """Of each load the end for which no operation was under way any more."""
    busy = np.concatenate([of_part for part, of_part in spans.items() if part != "input wait"])
    found = []
    for begin, end in loads:
        until = busy[busy[:, 0] < end, 1].max(initial=begin)
        if until < end:
            found.append((until, end))
    return np.array(found).reshape(-1, 2)


def shares(spans: dict[str, Spans], begin: float, end: float) -> dict[str, float]:
    """How long each part is the first of `PARTS` under way; "idle" is what is left. They add up."""
    seen, found, before = np.empty((0, 2)), {}, 0.0
    for part in PARTS[:-1]:
        seen = np.concatenate([seen, np.clip(spans[part], begin, end)])
        total = covered(seen)
        found[part], before = total - before, total
    return {**found, "idle": float(end - begin - before)}


def covered(spans: Spans) -> float:
    """Length of the union of intervals."""
    if not len(spans):
        return 0.0
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    seen = np.concatenate([spans[:1, 0], np.maximum.accumulate(spans[:-1, 1])])
    return float(np.sum(np.maximum(0.0, spans[:, 1] - np.maximum(spans[:, 0], seen))))
