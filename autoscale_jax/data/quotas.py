"""Tokens asked -> whole sequences: exact quotas, the supply they draw on, what was realised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autoscale_jax.data.corpus import Corpus
from autoscale_jax.data.interleave import Interleaving
from autoscale_jax.specs import BadInput

# Tokens by domain, of one mixture or of several that follow one another in training.
Tokens = Mapping[str, int] | Sequence[Mapping[str, int]]
# Unique tokens that a run draws on, of domains whose data it may not all read.
Pool = Mapping[str, int]
NO_POOL: Pool = {}


def stages_of(tokens: Tokens) -> list[Mapping[str, int]]:
    """The mixtures of a curriculum in their order; a single mixture is a curriculum of one."""
    stages = [tokens] if isinstance(tokens, Mapping) else list(tokens)
    if not stages:
        raise BadInput("tokens = []: a curriculum needs one stage or more")
    return stages


def interleavings(tokens: Tokens, seq_len: int) -> list[Interleaving]:
    """How domains take turns in each stage of `tokens`, in whole sequences of `seq_len` tokens.

    What a stage leaves over of a domain, or gives too much, is made good in the next stage that has
    the domain: by the end of each stage a domain is within one sequence of all that was asked of
    it. Raises `BadInput` when the tokens of a stage fill no sequence.
    """
    owed: dict[str, int] = {}
    found = []
    for stage in stages_of(tokens):
        owed |= {name: n + owed.get(name, 0) for name, n in stage.items()}
        due = {name: max(0, owed[name]) if n else 0 for name, n in stage.items()}
        found.append(Interleaving.of(due, seq_len))
        for name, sequences in found[-1].sequences.items():
            owed[name] -= sequences * seq_len
    return found


def quota(tokens: Tokens, seq_len: int) -> dict[str, int]:
    """Whole sequences of `seq_len` tokens per domain, over all stages: each is within one sequence
    of what was asked. Domains with 0 tokens get 0. Raises as `interleavings`."""
    return _total([stage.sequences for stage in interleavings(tokens, seq_len)])


def supply(corpus: Corpus, seq_len: int, pool: Pool = NO_POOL) -> dict[str, int]:
    """Unique training sequences of `seq_len` tokens per domain, of its `pool` where it has one.

    Every token is predicted once.
    """
    return {name: n // seq_len for name, n in _unique(corpus, pool).items()}


def check_supply(
    corpus: Corpus, tokens: Tokens, seq_len: int, max_epochs: float, pool: Pool = NO_POOL
) -> None:
    """Raises `BadInput` when `tokens` needs a domain, or its pool, more than `max_epochs` times."""
    available = supply(corpus, seq_len, pool)
    for name, n in _total(tokens).items():
        known_domain(name, available)
        unique = available[name] * seq_len
        has = "the run's pool has" if name in pool else "the domain has"
        if n and not unique:
            raise BadInput(
                f"tokens[{name!r}] = {n}: {has} {_unique(corpus, pool)[name]} unique tokens, which"
                f" fill no sequence of seq_len = {seq_len}; add data or shorten seq_len"
            )
        # Less than one sequence too many is rounding, not repetition.
        if n >= max_epochs * unique + seq_len:
            raise BadInput(
                f"tokens[{name!r}] = {n}: {has} {unique} unique tokens, so this is"
                f" {n / unique:.2f} epochs and max_epochs = {max_epochs:g}; raise max_epochs to"
                f" {math.ceil(10 * n / unique) / 10:g}, ask for fewer tokens or add data"
            )


def realised(
    corpus: Corpus, tokens: Tokens, seq_len: int, pool: Pool = NO_POOL
) -> tuple[dict[str, int], dict[str, float]]:
    """What a run on `tokens` trains on: (tokens, epochs) by domain, over whole sequences.

    An epoch is once through all sequences of the domain, or of its `pool`.
    """
    available = supply(corpus, seq_len, pool)
    sequences = quota(tokens, seq_len)
    trained = {name: n * seq_len for name, n in sequences.items()}
    epochs = {name: n / available[name] if n else 0.0 for name, n in sequences.items()}
    return trained, epochs


def known_domain(name: str, available: Mapping[str, int]) -> None:
    """Raises `BadInput` for a domain that is not in the corpus."""
    if name not in available:
        raise BadInput(f"domain {name!r} is not in the corpus: it has {sorted(available)}")


def _unique(corpus: Corpus, pool: Pool) -> dict[str, int]:
    whole = {name: len(t) - 1 for name, t in corpus.train_tokens.items()}
    return {name: min(n, pool.get(name, n)) for name, n in whole.items()}


def _total(tokens: Tokens) -> dict[str, int]:
    stages = stages_of(tokens)
    names = dict.fromkeys(name for stage in stages for name in stage)
    return {name: sum(stage.get(name, 0) for stage in stages) for name in names}
