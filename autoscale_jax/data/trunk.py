"""The sequences that runs of different lengths train on alike, so that one can continue another.

A run's quotas are whole tokens and sequences, so twins at two budgets ask for slightly different
weights. What they share is ordered by weights that both round to; each ends on its exact quotas.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from autoscale_jax.data.interleave import Interleaving
from autoscale_jax.data.quotas import quota

SIMPLE = 64  # largest denominator of the largest domain's tokens over another's
# Of weights in multiples of 1/GRID no ratio needs a larger one, and a run on a multiple of GRID
# sequences of them ends where its trunk does: longer ones continue it from its end.
GRID = 2 * SIMPLE
_UNITS = 2**30  # finer than any run


class Trunk(NamedTuple):
    """The weights that order a run's first sequences; these, and those after them if there are."""

    weights: dict[str, int]
    stages: list[Interleaving]


def trunk_of(tokens: Mapping[str, int], seq_len: int, sequences: int) -> Trunk | None:
    """The first so many `sequences` of a run, in an order it shares with runs of about its weights.

    Of two such runs the order of the longer one's trunk begins with that of the shorter one's. None
    where the order would take more sequences of a domain than the run has.
    """
    weights, whole = shared_weights(tokens), quota(tokens, seq_len)
    first = Interleaving.of(weights).first(sequences)
    rest = {name: n - first.sequences.get(name, 0) for name, n in whole.items()}
    if min(rest.values()) < 0:
        return None
    return Trunk(weights, [first, Interleaving.of(rest)] if any(rest.values()) else [first])


def shared_weights(tokens: Mapping[str, int]) -> dict[str, int]:
    """Weights by domain, as whole numbers that runs of about the same weights have in common.

    The largest domain's tokens over each other's are rounded to the nearest fraction of a small
    denominator: 16,000 over 5,333 tokens and 64,000 over 21,333 are both 3. A ratio is off by less
    than 1/64. Domains of next to no tokens are left out.
    """
    most = max(tokens.values())
    share = {
        name: float(1 / Fraction(most, n).limit_denominator(SIMPLE))
        for name, n in sorted(tokens.items())
        if n
    }
    whole = sum(share.values())
    units = {name: round(_UNITS * x / whole) for name, x in share.items()}
    return {name: n for name, n in units.items() if n}
