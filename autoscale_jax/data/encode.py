"""Samples -> tokens: one unit of a domain into one training and one held-out shard."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autoscale_jax.data import tokenize
from autoscale_jax.data.parallel import Reading, Report
from autoscale_jax.data.samples import Notes, Rules, samples
from autoscale_jax.data.sources import Unit
from autoscale_jax.data.store import Shard, write_shard, write_whole
from autoscale_jax.data.window import pieces

_CHARS_AT_ONCE = 64_000_000


@dataclasses.dataclass(frozen=True)
class EncodeTask:
    """Unit `k` of a domain: the samples to use, their order, and where their tokens go."""

    unit: Unit
    rules: Rules
    k: int
    notes: Notes
    keep_N: np.ndarray
    threshold: int  # samples of lower bits are held out
    tokenizer: Path
    dtype: str
    max_document_bytes: int
    most_tokens: int | None  # of training
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"part-{self.k:05}.json"


@dataclasses.dataclass(frozen=True)
class Part:
    """What became of a unit."""

    train: Shard
    eval: Shard
    train_documents: int
    eval_documents: int


@functools.lru_cache(maxsize=2)
def _tokenizer(path: Path) -> tokenize.Tokenizer:
    return tokenize.from_json(path.read_text("utf-8"))


def encode(task: EncodeTask, report: Report) -> Part:
    """Writes the shards of a unit."""
    dtype = np.dtype(task.dtype)
    reading = Reading(report)
    stream = _Stream(task, _tokenizer(task.tokenizer), reading)
    train = write_shard(task.folder / f"train-{task.k:05}.array_record", stream.train(), dtype)
    held_out = write_shard(task.folder / f"eval-{task.k:05}.array_record", stream.held_out, dtype)
    for shard, ends in ((train, stream.train_ends), (held_out, stream.eval_ends)):
        write_whole(task.folder / ends_file(shard), functools.partial(np.save, arr=ends))
    part = Part(train, held_out, len(stream.train_ends), len(stream.eval_ends))
    text = json.dumps(dataclasses.asdict(part)).encode()
    write_whole(task.path, lambda file: file.write(text))
    reading.end(task.unit.bytes)
    return part


def ends_file(shard: Shard) -> str:
    """Where each document of a shard ends: an int64 array of positions in the shard."""
    return shard.file.removesuffix(".array_record") + ".ends.npy"


def read_part(path: Path) -> Part:
    """What `encode` left in a task's path."""
    found = json.loads(path.read_text())
    return Part(
        Shard(**found["train"]),
        Shard(**found["eval"]),
        found["train_documents"],
        found["eval_documents"],
    )


class _Stream:
    """EOS piece EOS piece ... EOS, over all units of a domain: only the first unit opens with EOS.

    Some 64 million characters at a time are in memory, in the order of their bits, which
    shuffles them.
    """

    def __init__(self, task: EncodeTask, tokenizer: tokenize.Tokenizer, reading: Reading) -> None:
        self._task, self._tokenizer, self._reading = task, tokenizer, reading
        self._opening = [np.array([tokenizer.eos_id])] if task.k == 0 else []
        self.held_out = list(self._opening)
        self.train_ends: list[int] = []
        self.eval_ends: list[int] = []

    def train(self) -> Iterator[np.ndarray]:
        """Training tokens; the held-out ones gather in `held_out` meanwhile."""
        at_train = at_eval = len(self._opening)
        last = np.inf if self._task.most_tokens is None else at_train + self._task.most_tokens
        yield from self._opening
        for bits, text in self._in_order():
            if bits < self._task.threshold:
                ids = self._encode(text)
                self.held_out.append(ids)
                at_eval += len(ids)
                self.eval_ends.append(at_eval)
            elif at_train < last:
                ids = self._encode(text)
                ids = ids[: int(min(len(ids), last - at_train))]
                yield ids
                at_train += len(ids)
                self.train_ends.append(at_train)

    def _encode(self, text: str) -> np.ndarray:
        parts = self._tokenizer.encode_batch(pieces(text, self._task.max_document_bytes))
        return np.concatenate([self._tokenizer.framed(ids) for ids in parts])

    def _in_order(self) -> Iterator[tuple[int, str]]:
        task, keep_N = self._task, self._task.keep_N
        bits_n = task.notes.bits_N()[keep_N]
        chunk_n = np.cumsum(task.notes.chars_N()[keep_N]) // _CHARS_AT_ONCE
        index_n = task.notes.index_N()[keep_N]
        texts = samples(task.unit, task.rules, index_n, self._reading)
        for chunk in np.unique(chunk_n):
            bits = bits_n[chunk_n == chunk].tolist()
            yield from sorted(zip(bits, texts, strict=False))
