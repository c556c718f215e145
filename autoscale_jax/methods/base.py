"""The one interface of all methods."""

from __future__ import annotations

from typing import Protocol

from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Proposal, RunSpec


class Method(Protocol):
    """`ask` is a pure function of the table, so a study that was killed continues by asking."""

    def ask(self, table: RunTable) -> list[RunSpec]:
        """Runs to do next; [] when the evidence is enough."""
        ...

    def propose(self, table: RunTable, tokens: int) -> Proposal:
        """The mixture for a training on `tokens` tokens."""
        ...
