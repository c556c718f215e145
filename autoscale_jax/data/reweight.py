"""Mixtures whose weights change while training (DoReMi, DoGE), as exact as fixed ones.

Which domain trains next follows from the weights so far and from integers alone, so that the same
weights give the same sequences on any host, and after a resume from `Drawn`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autoscale_jax.data.corpus import Corpus
from autoscale_jax.data.mix import Batch, Rows, read_rows
from autoscale_jax.data.order import Visits
from autoscale_jax.data.quotas import check_supply, known_domain, supply
from autoscale_jax.specs import BadInput

_ONE = 2**32  # weights are whole parts of this, so that sums are exact


class Drawn(NamedTuple):
    """What was drawn so far: plain arrays, to be saved with the model.

    `count_K` sequences of each domain; `asked_K` what the weights so far ask for, in 2^-32
    sequences.
    """

    count_K: np.ndarray
    asked_K: np.ndarray

    @classmethod
    def nothing(cls, domains: int) -> Drawn:
        return cls(np.zeros(domains, np.int64), np.zeros(domains, np.int64))


def draw(drawn: Drawn, weight_K: np.ndarray, n: int) -> tuple[Drawn, np.ndarray, np.ndarray]:
    """The next n sequences under one set of weights: (drawn, domain_n, rank_n).

    Each is of the domain that is furthest behind what was asked of it. So no domain is ever a whole
    sequence ahead, and none more than 1 + 1/2 + ... + 1/(K-1) behind, however the weights move.
    """
    share_K = np.floor(weight_K * _ONE).astype(np.int64)
    share_K[np.argmax(share_K)] += _ONE - share_K.sum()
    count_K, asked_K = drawn.count_K.copy(), drawn.asked_K.copy()
    domain_n, rank_n = np.zeros(n, np.int32), np.zeros(n, np.int64)
    for i in range(n):
        asked_K += share_K
        k = int(np.argmax(asked_K - count_K * _ONE))
        domain_n[i], rank_n[i] = k, count_K[k]
        count_K[k] += 1
    return Drawn(count_K, asked_K), domain_n, rank_n


class Reweighted:
    """Batches under weights that are given from step to step; rows and epochs as in `mix.batches`.

    `domains` fixes the order of arrays over K. Sequences are those that a fixed mixture with this
    seed would visit first. No domain is repeated more than `max_epochs` times.
    """

    def __init__(
        self,
        corpus: Corpus,
        domains: Sequence[str],
        seq_len: int,
        batch_size: int,
        seed: int,
        objective: str = "causal",
        *,
        host: int = 0,
        hosts: int = 1,
        segments: bool = False,
        max_epochs: float = math.inf,
    ) -> None:
        if batch_size < 1 or batch_size % hosts:
            raise BadInput(
                f"batch_size = {batch_size}: give 1 or more, a multiple of the {hosts} hosts"
            )
        available = supply(corpus, seq_len)
        for name in domains:
            known_domain(name, available)
            if not available[name]:
                raise BadInput(
                    f"domain {name!r}: fills no sequence of seq_len = {seq_len}; add data"
                )
        self.domains = tuple(domains)
        self._visits = Visits(self.domains, available, seed, available)
        self._tokens_K = [corpus.train_tokens[name] for name in self.domains]
        self._rows = Rows(corpus, objective, seed, segments)
        self._corpus, self._max_epochs = corpus, max_epochs
        self._available_K = np.array([available[name] for name in self.domains])
        self._seq_len, self._batch_size = seq_len, batch_size
        share = batch_size // hosts
        self._mine = slice(host * share, (host + 1) * share)

    def start(self) -> Drawn:
        """Before the first batch."""
        return Drawn.nothing(len(self.domains))

    def batch(self, drawn: Drawn, weights: Mapping[str, float]) -> tuple[Drawn, Batch]:
        """The batch that follows `drawn` under `weights`, and what is drawn after it.

        Raises `BadInput` for weights that are no mixture of the domains, and where a domain would
        be repeated too often; other weights can then follow the same `drawn`.
        """
        weight_K = np.array([weights.get(name, np.nan) for name in self.domains], np.float64)
        if set(weights) != set(self.domains) or not (weight_K >= 0).all():
            raise BadInput(f"weights = {dict(weights)}: give 0 or more for {list(self.domains)}")
        if abs(weight_K.sum() - 1) > 1e-6:
            raise BadInput(f"weights sum to {weight_K.sum():.6g}: divide them to sum to 1")
        at_B = int(drawn.count_K.sum()) + np.arange(self._batch_size)
        after, domain_B, rank_B = draw(drawn, weight_K / weight_K.sum(), self._batch_size)
        trained, _ = self.realised(after)
        check_supply(self._corpus, trained, self._seq_len, self._max_epochs)
        index_B = self._visits(domain_B, rank_B)
        mine = self._mine
        rows = zip(domain_B[mine].tolist(), index_B[mine].tolist(), strict=True)
        n = mine.stop - mine.start
        return after, self._rows(*read_rows(self._tokens_K, rows, n, self._seq_len), at_B[mine])

    def realised(self, drawn: Drawn) -> tuple[dict[str, int], dict[str, float]]:
        """What was trained on so far: (tokens, epochs) by domain."""
        tokens_K = (drawn.count_K * self._seq_len).tolist()
        epochs_K = (drawn.count_K / self._available_K).tolist()
        tokens = dict(zip(self.domains, tokens_K, strict=True))
        return tokens, dict(zip(self.domains, epochs_K, strict=True))
