"""Domains taking turns: exact at the end, close to what was asked all along, by random access.

A binary tree over the domains splits the positions of a stage; what a node gets by some position
is one integer division. Of the tokens asked, each domain is off by less than 1 sequence at the end
and by less than 2 at any prefix (`docs/order.md` has the proof).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from autoscale_jax.specs import BadInput

POSITION_BITS = 31  # of the positions of a run
# Part of a run's identity: raised when the same run would train on its sequences in another order.
ORDER_VERSION = 2


class Node(NamedTuple):
    """Some domains: `tokens` asked of them, whole `sequences` they get, and the two `parts` they
    fall into. A single `domain`, numbered in the order of names, has none; else it is -1."""

    tokens: int
    sequences: int
    domain: int
    parts: tuple[Node, ...] = ()


@dataclasses.dataclass(frozen=True)
class Interleaving:
    """The turns that domains take, and how many whole `sequences` each of them has."""

    sequences: dict[str, int]
    root: Node

    @classmethod
    def of(cls, tokens: Mapping[str, int], seq_len: int = 1) -> Interleaving:
        """Of `tokens` asked by domain, in whole sequences of `seq_len`.

        Raises `BadInput` when the tokens of all domains fill no sequence.
        """
        if seq_len < 1:
            raise BadInput(f"seq_len = {seq_len}: give 1 or more")
        total = _rounded(sum(tokens.values()), seq_len)
        if total == 0:
            raise BadInput(
                f"tokens = {dict(tokens)}: less than one sequence of seq_len = {seq_len};"
                " ask for more tokens or shorten seq_len"
            )
        names = sorted(tokens)
        asked = [(int(tokens[name]), k) for k, name in enumerate(names) if tokens[name]]
        root = _node(sorted(asked, key=lambda domain: -domain[0]), total, seq_len)
        sequences = {names[leaf.domain]: leaf.sequences for leaf in _leaves(root)}
        return cls(dict.fromkeys(tokens, 0) | sequences, root)

    def first(self, n: int) -> Interleaving:
        """Its first `n` sequences. In whole sequences (`seq_len` 1) it goes on for ever."""
        names = sorted(self.sequences)
        sequences = dict.fromkeys(self.sequences, 0)
        todo = [(self.root, n)]
        while todo:
            node, n = todo.pop()
            if not node.parts:
                sequences[names[node.domain]] = n
                continue
            before = int(_before(np.array([n]), node)[0][0])
            todo += zip(node.parts, (before, n - before), strict=True)
        return dataclasses.replace(self, sequences=sequences)

    def __len__(self) -> int:
        return sum(self.sequences.values())

    def at(self, position_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(domain_N, rank_N): whose turn each position is, by number, and its how-manieth."""
        domain_N = np.zeros(len(position_N), np.int32)
        rank_N = np.zeros(len(position_N), np.int64)
        todo = [(self.root, np.arange(len(position_N)), np.asarray(position_N, np.int64))]
        while todo:
            node, where, position = todo.pop()
            if not node.parts:
                domain_N[where], rank_N[where] = node.domain, position
                continue
            left, right = node.parts
            before, goes_left = _before(position, node)
            todo.append((left, where[goes_left], before[goes_left]))
            todo.append((right, where[~goes_left], (position - before)[~goes_left]))
        return domain_N, rank_N


def _node(asked: list[tuple[int, int]], sequences: int, seq_len: int) -> Node:
    """Domains as (tokens, number), most first, and the sequences they share.

    Each domain goes to the part that has fewer tokens so far. A part gets the whole sequences just
    below or just above what is asked of it, so that in the end each domain does.
    """
    tokens = sum(n for n, _ in asked)
    if len(asked) == 1:
        return Node(tokens, sequences, asked[0][1])
    parts: tuple[list[tuple[int, int]], ...] = ([], [])
    sums = [0, 0]
    for n, k in asked:
        lighter = int(sums[1] < sums[0])
        parts[lighter].append((n, k))
        sums[lighter] += n
    low = max(sums[0] // seq_len, sequences - -(-sums[1] // seq_len))
    high = min(-(-sums[0] // seq_len), sequences - sums[1] // seq_len)
    left = min(max(_rounded(sequences * sums[0], tokens), low), high)
    counts = (left, sequences - left)
    found = (_node(p, n, seq_len) for p, n in zip(parts, counts, strict=True))
    return Node(tokens, sequences, -1, tuple(found))


def _before(position: np.ndarray, node: Node) -> tuple[np.ndarray, np.ndarray]:
    """Of the left part, sequences among the first so many of a node, and whether the next is one.

    The left part's share of tokens asked, times the position, shifted so that half of the left
    sequences are there at half of the node's, and rounded.
    """
    left = node.parts[0]
    times, over = 2 * left.tokens, 2 * node.tokens
    plus = (1 + left.sequences) * node.tokens - node.sequences * left.tokens
    before, rest = _divide(position, times, plus, over)
    return before, rest + times >= over


def _divide(x: np.ndarray, times: int, plus: int, over: int) -> tuple[np.ndarray, np.ndarray]:
    """Quotient and rest of (x * times + plus) / over without leaving int64.

    For x < 2^31 and times, plus < over < 2^60: long division, as many bits of x at once as fit.
    """
    bits = 61 - over.bit_length()
    quotient, rest = np.zeros_like(x), np.zeros_like(x)
    for shift in reversed(range(0, POSITION_BITS, bits)):
        value = (rest << bits) + (x >> shift & (1 << bits) - 1) * times
        if not shift:
            value += plus
        digit = value // over
        quotient, rest = (quotient << bits) + digit, value - digit * over
    return quotient, rest


def _rounded(n: int, over: int) -> int:
    return (2 * n + over) // (2 * over)


def _leaves(node: Node) -> Iterator[Node]:
    if not node.parts:
        yield node
    for part in node.parts:
        yield from _leaves(part)
