"""Integer tokens per domain -> an exact, deterministic order of sequences, and batches of them.

Three promises. Exact: every domain gets its asked tokens to within one sequence, and so does the
total. Even: any prefix of training holds each domain's share to within two sequences. Nested: which
sequences a domain contributes depends on (seed, domain name) alone, so runs that differ in one
domain see the same sequences of all others (common random numbers).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from autoscale_jax.data.corpus import Corpus
from autoscale_jax.specs import BadInput


def quota(tokens: Mapping[str, int], seq_len: int) -> dict[str, int]:
    """Whole sequences of `seq_len` tokens per domain, by largest remainder.

    Each domain is within one sequence of what was asked and so is the total. Domains with 0 tokens
    get 0 sequences. Raises `BadInput` when the tokens of all domains fill no sequence.
    """
    if seq_len < 1:
        raise BadInput(f"seq_len = {seq_len}: give 1 or more")
    sequences = {name: n // seq_len for name, n in tokens.items()}
    total = (2 * sum(tokens.values()) + seq_len) // (2 * seq_len)
    if total == 0:
        raise BadInput(
            f"tokens = {dict(tokens)}: less than one sequence of seq_len = {seq_len};"
            " ask for more tokens or shorten seq_len"
        )
    by_remainder = sorted(tokens, key=lambda name: (-(tokens[name] % seq_len), name))
    for name in by_remainder[: total - sum(sequences.values())]:
        sequences[name] += 1
    return sequences


def supply(corpus: Corpus, seq_len: int) -> dict[str, int]:
    """Unique training sequences of `seq_len` tokens per domain; every token is predicted once."""
    return {name: (len(t) - 1) // seq_len for name, t in corpus.train_tokens.items()}


def check_supply(
    corpus: Corpus, tokens: Mapping[str, int], seq_len: int, max_epochs: float
) -> None:
    """Raises `BadInput` when `tokens` needs a domain more than `max_epochs` times over."""
    available = supply(corpus, seq_len)
    _known_domains(tokens, available)
    for name, n in tokens.items():
        unique = available[name] * seq_len
        if n and not unique:
            raise BadInput(
                f"tokens[{name!r}] = {n}: the domain's {len(corpus.train_tokens[name]) - 1} unique"
                f" tokens fill no sequence of seq_len = {seq_len}; add data or shorten seq_len"
            )
        # Less than one sequence too many is rounding, not repetition.
        if n >= max_epochs * unique + seq_len:
            raise BadInput(
                f"tokens[{name!r}] = {n}: the domain has {unique} unique tokens, so this is"
                f" {n / unique:.2f} epochs and max_epochs = {max_epochs:g}; raise max_epochs to"
                f" {math.ceil(10 * n / unique) / 10:g}, ask for fewer tokens or add data"
            )


def realised(
    corpus: Corpus, tokens: Mapping[str, int], seq_len: int
) -> tuple[dict[str, int], dict[str, float]]:
    """What a run on `tokens` trains on: (tokens, epochs) by domain, over whole sequences."""
    available = supply(corpus, seq_len)
    sequences = quota(tokens, seq_len)
    trained = {name: n * seq_len for name, n in sequences.items()}
    epochs = {name: n / available[name] if n else 0.0 for name, n in sequences.items()}
    return trained, epochs


def interleave(sequences: Mapping[str, int], position_N: np.ndarray) -> tuple[np.ndarray, ...]:
    """Which domain trains at each position of the global order, and its how-manieth sequence.

    Returns (domain_N, rank_N); domains are numbered in sorted order of their names.
    At any prefix each domain is within 1.7 sequences of its share (see `_halve`).
    """
    domain_N = np.zeros(len(position_N), np.int32)
    rank_N = np.zeros(len(position_N), np.int64)
    number = {name: k for k, name in enumerate(sorted(sequences))}
    todo = [(_halve(sequences), np.arange(len(position_N)), np.asarray(position_N, np.int64))]
    while todo:
        (total, node), where, position = todo.pop()
        if isinstance(node, str):
            domain_N[where], rank_N[where] = number[node], position
            continue
        left, right = node
        # Left sequences among the first p of this node: p * left / total, rounded to nearest.
        before = (2 * position * left[0] + total) // (2 * total)
        goes_left = (2 * (position + 1) * left[0] + total) // (2 * total) > before
        todo.append((left, where[goes_left], before[goes_left]))
        todo.append((right, where[~goes_left], (position - before)[~goes_left]))
    return domain_N, rank_N


def _halve(sequences: Mapping[str, int]) -> tuple[int, Any]:
    """Huffman tree of the domains: leaves (count, name), inner nodes (count, (left, right)).

    Splitting a node is off by at most 1/2, and a child inherits its share of the parent's error.
    In a Huffman tree the shares along a path shrink at least as fast as 1/1, 1/2, 1/3, 1/5, ...
    (reciprocal Fibonacci numbers), so a leaf is off by less than (1 + 2.36) / 2 < 1.7.
    """
    heap: list[tuple[int, int, Any]] = [
        (n, k, name) for k, (name, n) in enumerate(sorted(sequences.items())) if n
    ]
    heapq.heapify(heap)
    # The second entry is unique, so that equal counts never compare nodes.
    for k in itertools.count(len(sequences)):
        if len(heap) == 1:
            break
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a[0] + b[0], k, ((a[0], a[2]), (b[0], b[2]))))
    total, _, node = heap[0]
    return total, node


def order(
    sequences: Mapping[str, int], sequences_available: Mapping[str, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The global order of one run: (domain_N, index_N), domains numbered by sorted name.

    A domain's first sequences are the first ones of a permutation of all it has, drawn from
    (seed, name); when they run out, another permutation follows for each further epoch.
    """
    _known_domains(sequences, sequences_available)
    domain_N, rank_N = interleave(sequences, np.arange(sum(sequences.values())))
    index_N = np.empty_like(rank_N)
    for k, name in enumerate(sorted(sequences)):
        mine = domain_N == k
        if sequences[name] and not sequences_available[name]:
            raise BadInput(
                f"tokens[{name!r}]: {sequences[name]} sequences asked and the domain fills none;"
                " add data or shorten seq_len"
            )
        if sequences[name]:
            index_N[mine] = _visits(name, sequences_available[name], sequences[name], seed)
    return domain_N, index_N


def _visits(name: str, available: int, asked: int, seed: int) -> np.ndarray:
    """The first `asked` sequence indices of a domain, epoch after epoch."""
    epochs = []
    for epoch in range(-(-asked // available)):
        key = hashlib.sha256(f"{seed}\0{epoch}\0{name}".encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(key[:16], "little")))
        epochs.append(rng.permutation(available))
    return np.concatenate(epochs)[:asked]


def _known_domains(asked: Mapping[str, int], available: Mapping[str, int]) -> None:
    for name in asked:
        if name not in available:
            raise BadInput(f"domain {name!r} is not in the corpus: it has {sorted(available)}")


class Sequences:
    """Random access to the packed sequences of one domain: L + 1 tokens, overlapping by one."""

    def __init__(self, tokens: np.ndarray, seq_len: int) -> None:
        self._tokens = tokens
        self._seq_len = seq_len

    def __len__(self) -> int:
        return (len(self._tokens) - 1) // self._seq_len

    def __getitem__(self, index: int) -> np.ndarray:
        start = index * self._seq_len
        return self._tokens[start : start + self._seq_len + 1]


class Selection(grain.transforms.DatasetSelectionMap):
    """Grain's view of a global order: position -> (domain, sequence)."""

    def __init__(self, domain_N: np.ndarray, index_N: np.ndarray) -> None:
        self._domain_N = domain_N
        self._index_N = index_N

    def __len__(self) -> int:
        return len(self._domain_N)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return int(self._domain_N[index]), int(self._index_N[index])


def causal(tokens: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """A batch in which each token of [..., L+1] predicts the next one."""
    return {"inputs": tokens[..., :-1], "targets": tokens[..., 1:], "weight": weight}


def batches(
    corpus: Corpus, tokens: Mapping[str, int], seq_len: int, batch_size: int, seed: int
) -> grain.MapDataset:
    """Training batches of one run, by random access: element i is batch i, so resuming is indexing.

    Each is {"inputs", "targets": int32 [B, L], "weight": float32 [B, L]}; the target of a position
    is the next token. The last batch is filled up with rows of weight 0, and `len` is the number
    of steps. Raises `BadInput` for tokens no domain can give.
    """
    if batch_size < 1:
        raise BadInput(f"batch_size = {batch_size}: give 1 or more")
    sequences = quota(tokens, seq_len)
    domain_N, index_N = order(sequences, supply(corpus, seq_len), seed)
    parents = [
        grain.MapDataset.source(Sequences(corpus.train_tokens[name], seq_len))
        for name in sorted(sequences)
    ]

    def stack(rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        tokens_BxL1 = np.zeros((batch_size, seq_len + 1), np.int32)
        weight_BxL = np.zeros((batch_size, seq_len), np.float32)
        for b, row in enumerate(rows):
            tokens_BxL1[b] = row
        weight_BxL[: len(rows)] = 1
        return causal(tokens_BxL1, weight_BxL)

    mixed = grain.MapDataset.select_from_datasets(parents, Selection(domain_N, index_N))
    return mixed.batch(batch_size, drop_remainder=False, batch_fn=stack)


def eval_batches(corpus: Corpus, seq_len: int, batch_size: int) -> dict[str, dict[str, np.ndarray]]:
    """Held-out batches by domain: as `batches`, all n of them in arrays [n, B, L].

    The weights are 1 for each held-out token to be predicted and 0 for padding, so that the sum of
    weighted losses over the sum of weights is exact. With a corpus limit on held-out tokens, that
    many (rounded up to whole sequences) are taken at even distances over all held-out documents.
    """
    out = {}
    for name, tokens in corpus.eval_tokens.items():
        targets = len(tokens) - 1
        sequences = -(-targets // seq_len)
        taken = np.arange(sequences)
        if corpus.eval_limit and corpus.eval_limit < targets:
            n = -(-corpus.eval_limit // seq_len)
            taken = np.arange(n) * sequences // n
        steps = -(-len(taken) // batch_size)
        tokens_RxL = np.zeros((steps * batch_size, seq_len + 1), np.int32)
        weight_RxL = np.zeros((steps * batch_size, seq_len), np.float32)
        for r, i in enumerate(taken):
            row = tokens[i * seq_len : i * seq_len + seq_len + 1]
            tokens_RxL[r, : len(row)] = row
            weight_RxL[r, : len(row) - 1] = 1
        out[name] = causal(
            tokens_RxL.reshape(steps, batch_size, seq_len + 1),
            weight_RxL.reshape(steps, batch_size, seq_len),
        )
    return out
