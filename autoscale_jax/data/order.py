"""The global order of the sequences of a run: exact, even, nested, by random access.

Exact: every domain gets its sequences. Even: any prefix of a stage holds each domain's share to
within two sequences. Nested: which sequences a domain contributes depends on (seed, domain name)
alone, so runs that differ in one domain see the same sequences of all others (common random
numbers). Nothing is as long as the run: an order of 10^9 sequences costs what one of 10 does.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_jax.data.permute import key_of, mix64, permute
from autoscale_jax.data.quotas import known_domain
from autoscale_jax.specs import BadInput

_MOST_SEQUENCES = 2**31  # so that 2 * position * sequences fits int64


class Order:
    """Sequences by domain, stage after stage -> position in training -> (domain, sequence).

    Domains are numbered in the sorted order of their names (`names`). A domain's sequences are
    visited in a permutation of all it has, drawn from (seed, name), or of as many of them as its
    `pool` says; when they run out, another permutation follows for each further epoch. Stages go on
    where the one before them stopped; `starts` are their first positions and the end of the last.
    `first_by` orders the first stage by these weights, which it must be a `prefix` of.
    """

    def __init__(
        self,
        stages: Sequence[Mapping[str, int]],
        available: Mapping[str, int],
        seed: int,
        first_by: Mapping[str, int] | None = None,
        pool: Mapping[str, int] | None = None,
    ) -> None:
        pool = available if pool is None else pool
        self.names = sorted(set().union(*stages))
        for name in self.names:
            known_domain(name, available)
            asked = sum(stage.get(name, 0) for stage in stages)
            if asked and not pool[name]:
                raise BadInput(
                    f"tokens[{name!r}]: {asked} sequences asked and the domain fills none;"
                    " add data or shorten seq_len"
                )
        self._visits = Visits(self.names, available, seed, pool)
        self.starts = [0, *itertools.accumulate(sum(stage.values()) for stage in stages)]
        if self.starts[-1] >= _MOST_SEQUENCES:
            raise BadInput(
                f"tokens: a run of {self.starts[-1]} sequences; at most {_MOST_SEQUENCES - 1}"
                " can be ordered, so lengthen seq_len"
            )
        number = {name: k for k, name in enumerate(self.names)}
        weights = [stages[0] if first_by is None else first_by, *stages[1:]]
        self._stages = [_tree(stage, number) for stage in weights]
        counts = [[stage.get(name, 0) for name in self.names] for stage in stages]
        self._before_SxK = np.cumsum([[0] * len(self.names), *counts], axis=0, dtype=np.int64)

    def __len__(self) -> int:
        return self.starts[-1]

    def at(self, position_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(domain_N, index_N): whose sequence trains at each position, and which of its own."""
        position_N = np.asarray(position_N, np.int64)
        domain_N = np.zeros(len(position_N), np.int32)
        rank_N = np.zeros(len(position_N), np.int64)
        stage_N = np.searchsorted(self.starts[1:], position_N, side="right")
        for s in np.unique(stage_N):
            here = np.flatnonzero(stage_N == s)
            domain_n, rank_n = _descend(self._stages[s], position_N[here] - self.starts[s])
            domain_N[here], rank_N[here] = domain_n, rank_n + self._before_SxK[s][domain_n]
        return domain_N, self._visits(domain_N, rank_N)


class Visits:
    """Which sequence of a domain its `rank`-th visit reads: epoch after epoch, each shuffled.

    A `pool` of fewer sequences than are available is a random subsample of them, the same in every
    epoch and drawn from (seed, name); a smaller pool is part of a larger one.
    """

    def __init__(
        self,
        names: Sequence[str],
        available: Mapping[str, int],
        seed: int,
        pool: Mapping[str, int],
    ) -> None:
        self._available_K = np.array([max(available[name], 1) for name in names], np.int64)
        self._pool_K = np.array([max(pool[name], 1) for name in names], np.int64)
        self._key_K = np.array([key_of(seed, name) for name in names], np.uint64)
        self._pool_key_K = np.array([key_of(seed, name, "pool") for name in names], np.uint64)

    def __call__(self, domain_N: np.ndarray, rank_N: np.ndarray) -> np.ndarray:
        """index_N of domains, numbered as in `names`, and ranks."""
        pool_N, available_N = self._pool_K[domain_N], self._available_K[domain_N]
        epoch_N, rank_N = np.divmod(rank_N, pool_N)
        key_N = mix64(self._key_K[domain_N] + epoch_N.astype(np.uint64))
        index_N = permute(rank_N, pool_N, key_N)
        part = np.flatnonzero(pool_N < available_N)
        keys = self._pool_key_K[domain_N[part]]
        index_N[part] = permute(index_N[part], available_N[part], keys)
        return index_N


def interleave(sequences: Mapping[str, int], position_N: np.ndarray) -> tuple[np.ndarray, ...]:
    """(domain_N, rank_N): which domain trains at each position, and its how-manieth sequence.

    At any prefix each domain is within 1.7 sequences of its share (see `_tree`).
    """
    tree = _tree(sequences, {name: k for k, name in enumerate(sorted(sequences))})
    return _descend(tree, np.asarray(position_N, np.int64))


def prefix(weights: Mapping[str, int], n: int) -> dict[str, int]:
    """Sequences of each domain among the first `n` of an endless order by `weights`."""
    names = sorted(weights)
    counts = dict.fromkeys(names, 0)
    todo = [(_tree(weights, {name: k for k, name in enumerate(names)}), n)]
    while todo:
        (total, node), n = todo.pop()
        if isinstance(node, int):
            counts[names[node]] = n
            continue
        left, right = node
        before = _before(n, left[0], total)
        todo += [(left, before), (right, n - before)]
    return counts


def _tree(sequences: Mapping[str, int], number: Mapping[str, int]) -> tuple[int, Any]:
    """Huffman tree of the domains: leaves (count, domain), inner nodes (count, (left, right)).

    Splitting a node is off by at most 1/2, and a child inherits its share of the parent's error.
    In a Huffman tree the shares along a path shrink at least as fast as 1/1, 1/2, 1/3, 1/5, ...
    (reciprocal Fibonacci numbers), so a leaf is off by less than (1 + 2.36) / 2 < 1.7.
    """
    heap: list[tuple[int, int, Any]] = [
        (n, k, number[name]) for k, (name, n) in enumerate(sorted(sequences.items())) if n
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


def _descend(tree: tuple[int, Any], position_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    domain_N = np.zeros(len(position_N), np.int32)
    rank_N = np.zeros(len(position_N), np.int64)
    todo = [(tree, np.arange(len(position_N)), position_N)]
    while todo:
        (total, node), where, position = todo.pop()
        if isinstance(node, int):
            domain_N[where], rank_N[where] = node, position
            continue
        left, right = node
        before = _before(position, left[0], total)
        goes_left = _before(position + 1, left[0], total) > before
        todo.append((left, where[goes_left], before[goes_left]))
        todo.append((right, where[~goes_left], (position - before)[~goes_left]))
    return domain_N, rank_N


def _before(position: Any, left: int, total: int) -> Any:
    """Left sequences among the first so many of a node: position * left / total, rounded."""
    return (2 * position * left + total) // (2 * total)
