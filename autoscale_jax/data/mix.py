"""Batches of an exact mixture, by random access: batch i is element i, on any number of hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from autoscale_jax.data import mlm
from autoscale_jax.data.corpus import Corpus
from autoscale_jax.data.order import Order
from autoscale_jax.data.quotas import NO_POOL, Pool, interleavings, stages_of, supply
from autoscale_jax.data.quotas import Tokens as TokensAsked
from autoscale_jax.data.store import Tokens
from autoscale_jax.data.trunk import trunk_of
from autoscale_jax.specs import BadInput

OBJECTIVES = ("causal", "mlm")
Batch = dict[str, np.ndarray]
_ROWS_ORDERED = 8192  # positions whose place in the order is worked out together


def batches(
    corpus: Corpus,
    tokens: TokensAsked,
    seq_len: int,
    batch_size: int,
    seed: int,
    objective: str = "causal",
    *,
    host: int = 0,
    hosts: int = 1,
    segments: bool = False,
    trunk: int = 0,
    pool: Pool = NO_POOL,
) -> grain.MapDataset:
    """Training batches of one run, by random access: element i is batch i, so resuming is indexing.

    Each is {"inputs", "targets": int32 [B, L], "weight": float32 [B, L]}. Under "causal" the target
    of a position is the next token; under "mlm" it is the token that the input hides, with weight 1
    at such positions alone (`mlm.Masking`). The last batch is filled up with rows of weight 0, and
    `len` is the number of steps. `tokens` by domain, or a list of such stages. Host `host` of
    `hosts` gets its rows of each batch, [B / hosts, L]; together they are the batch of one host.
    The first `trunk` sequences of a single mixture come in an order that runs of about its weights
    share (`trunk_of`), where its quotas allow that. `segments` adds "segments" int32 [B, L], which
    counts documents, for attention within each. Of a domain in `pool` only so many unique tokens
    are read, a random part of its sequences that follows from the seed.
    Raises `BadInput` for tokens no domain can give.
    """
    if batch_size < 1:
        raise BadInput(f"batch_size = {batch_size}: give 1 or more")
    if batch_size % hosts:
        raise BadInput(f"batch_size = {batch_size}: must be a multiple of the {hosts} hosts")
    order = order_of(corpus, tokens, seq_len, seed, trunk, pool)
    share = batch_size // hosts
    source = BatchSource(
        order,
        [corpus.train_tokens[name] for name in order.names],
        seq_len,
        batch_size,
        range(host * share, (host + 1) * share),
        Rows(corpus, objective, seed, segments),
    )
    return grain.MapDataset.source(source)


def order_of(
    corpus: Corpus,
    tokens: TokensAsked,
    seq_len: int,
    seed: int,
    trunk: int = 0,
    pool: Pool = NO_POOL,
) -> Order:
    """The order of the sequences of a run; the arguments are those of `batches`."""
    mixtures = stages_of(tokens)
    alone = trunk and len(mixtures) == 1
    shared = trunk_of(mixtures[0], seq_len, trunk) if alone else None
    return Order(
        shared.stages if shared else interleavings(mixtures, seq_len),
        supply(corpus, seq_len),
        seed,
        supply(corpus, seq_len, pool),
    )


class Rows:
    """Stretches of L + 1 tokens -> a batch, under one objective."""

    def __init__(self, corpus: Corpus, objective: str, seed: int, segments: bool = False) -> None:
        if objective not in OBJECTIVES:
            raise BadInput(f"objective = {objective!r}: choose one of {', '.join(OBJECTIVES)}")
        self._masking = mlm.Masking.of(corpus.tokenizer, seed) if objective == "mlm" else None
        self._segments = segments
        self._eos_id = corpus.tokenizer.eos_id

    def __call__(self, tokens_BxL1: np.ndarray, weight_BxL: np.ndarray, at_B: np.ndarray) -> Batch:
        """`at` are the numbers that masks are drawn from, one a row."""
        if self._masking is not None:
            batch = self._masking(tokens_BxL1[:, :-1], weight_BxL, at_B)
        else:
            batch = {
                "inputs": tokens_BxL1[:, :-1],
                "targets": tokens_BxL1[:, 1:],
                "weight": weight_BxL,
            }
        if self._segments:
            # an end predicts the first token of the next document, or ("mlm") is its own's last
            ends_BxL = tokens_BxL1[:, :-1] == self._eos_id
            batch["segments"] = np.cumsum(ends_BxL, axis=1, dtype=np.int32)
            if self._masking is not None:
                batch["segments"] -= ends_BxL
        return batch


class BatchSource:
    """Grain's random-access source of whole batches.

    Batches rather than rows: a Grain pipeline over rows spends most of its time between them.
    """

    def __init__(
        self,
        order: Order,
        tokens_K: Sequence[Tokens],
        seq_len: int,
        batch_size: int,
        rows: range,
        make: Callable[[np.ndarray, np.ndarray, np.ndarray], Batch],
    ) -> None:
        self._order, self._tokens_K, self._seq_len = order, tokens_K, seq_len
        self._batch_size, self._rows, self._make = batch_size, rows, make
        self._steps_ordered = max(1, _ROWS_ORDERED // batch_size)
        self._ordered: tuple[int, list[int], list[int]] = (-1, [], [])

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, step: int) -> Batch:
        step = int(step)
        first, domain_N, index_N = self._part_of_order(step)
        at_B = step * self._batch_size + np.arange(self._rows.start, self._rows.stop)
        here = slice(int(at_B[0]) - first, int(at_B[-1]) + 1 - first)
        rows = zip(domain_N[here], index_N[here], strict=True)
        return self._make(*read_rows(self._tokens_K, rows, len(at_B), self._seq_len), at_B)

    def _part_of_order(self, step: int) -> tuple[int, list[int], list[int]]:
        """The order of some thousand positions around a step; the last such part is kept."""
        first = step // self._steps_ordered * self._steps_ordered * self._batch_size
        ordered = self._ordered  # one read, for threads
        if ordered[0] != first:
            last = min(first + self._steps_ordered * self._batch_size, len(self._order))
            domain_N, index_N = self._order.at(np.arange(first, last))
            ordered = self._ordered = (first, domain_N.tolist(), index_N.tolist())
        return ordered

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ordered": (-1, [], [])}


def read_rows(
    tokens_K: Sequence[Tokens], rows: Iterable[tuple[int, int]], n: int, seq_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """tokens [n, L + 1] and weights [n, L] of (domain, sequence) rows; missing ones weigh 0."""
    tokens_nxL1 = np.empty((n, seq_len + 1), np.int32)
    weight_nxL = np.ones((n, seq_len), np.float32)
    filled = 0
    for domain, index in rows:
        tokens_K[domain].read(index * seq_len, tokens_nxL1[filled])
        filled += 1
    tokens_nxL1[filled:] = 0
    weight_nxL[filled:] = 0
    return tokens_nxL1, weight_nxL


def eval_batches(
    corpus: Corpus,
    seq_len: int,
    batch_size: int,
    objective: str = "causal",
    *,
    segments: bool = False,
) -> Mapping[str, Batch]:
    """Held-out batches by domain: as `batches`, all n of them in arrays [n, B, L].

    The weights are 1 for each held-out token to be predicted and 0 for padding, so that the sum of
    weighted losses over the sum of weights is exact. With a corpus limit on held-out tokens, that
    many (rounded up to whole sequences) are taken at even distances over all held-out documents.
    Masks ("mlm") are the same in every evaluation of every run. `segments` as in `batches`; under
    "mlm" they are always there, 0 without it, and -1 where a row is filled up: attention that sees
    what follows must not see filler.
    """
    make = Rows(corpus, objective, 0, segments)
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
        for r, i in enumerate(taken.tolist()):
            n = min(seq_len, targets - i * seq_len)
            tokens.read(i * seq_len, tokens_RxL[r, : n + 1])
            weight_RxL[r, :n] = 1
        flat = make(tokens_RxL, weight_RxL, np.arange(len(tokens_RxL)))
        if objective == "mlm":
            own_RxL = flat.get("segments", np.zeros_like(flat["inputs"]))
            flat["segments"] = np.where(weight_RxL > 0, own_RxL, np.int32(-1))
        out[name] = {key: value.reshape(steps, batch_size, seq_len) for key, value in flat.items()}
    return out
