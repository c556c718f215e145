"""The global order of the sequences of a run: exact, even, nested, by random access.

Exact: every domain gets its sequences. Even: any prefix of a mixture holds what was asked of each
domain to within two sequences. Nested: which sequences a domain contributes depends on (seed,
domain name) alone, so runs that differ in one domain see the same sequences of all others (common
random numbers). Nothing is as long as the run: an order of 10^9 sequences costs what one of 10
does.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from autoscale_jax.data.interleave import POSITION_BITS, Interleaving
from autoscale_jax.data.permute import key_of, mix64, permute
from autoscale_jax.data.quotas import known_domain
from autoscale_jax.specs import BadInput


class Order:
    """Domains taking turns, stage after stage -> position in training -> (domain, sequence).

    Domains are numbered in the sorted order of their names (`names`). A domain's sequences are
    visited in a permutation of all it has, drawn from (seed, name), or of as many of them as its
    `pool` says; when they run out, another permutation follows for each further epoch. Stages go on
    where the one before them stopped; `starts` are their first positions and the end of the last.
    """

    def __init__(
        self,
        stages: Sequence[Interleaving],
        available: Mapping[str, int],
        seed: int,
        pool: Mapping[str, int] | None = None,
    ) -> None:
        pool = available if pool is None else pool
        sequences = [stage.sequences for stage in stages]
        self.names = sorted(set().union(*sequences))
        for name in self.names:
            known_domain(name, available)
            asked = sum(stage.get(name, 0) for stage in sequences)
            if asked and not pool[name]:
                raise BadInput(
                    f"tokens[{name!r}]: {asked} sequences asked and the domain fills none;"
                    " add data or shorten seq_len"
                )
        self._visits = Visits(self.names, available, seed, pool)
        self.starts = [0, *itertools.accumulate(map(len, stages))]
        if self.starts[-1] >= 2**POSITION_BITS:
            raise BadInput(
                f"tokens: a run of {self.starts[-1]} sequences; at most {2**POSITION_BITS - 1}"
                " can be ordered, so lengthen seq_len"
            )
        self._stages = list(stages)
        # the number, among all names, of each name of a stage
        self._number = [np.searchsorted(self.names, sorted(stage)) for stage in sequences]
        counts = [[stage.get(name, 0) for name in self.names] for stage in sequences]
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
            domain_n, rank_n = self._stages[s].at(position_N[here] - self.starts[s])
            domain_n = self._number[s][domain_n]
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
