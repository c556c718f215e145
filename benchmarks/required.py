"""What a benchmark's figures have to reach, said under its table: met or MISSED."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Required(NamedTuple):
    """A bound on one figure: the `column` of the row that holds `row`'s values."""

    row: Mapping[str, Any]
    column: str
    bound: float
    least: bool = False  # the bound is a least value, not a greatest one

    def verdict(self, rows: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
        """Whether the figure is within its bound, and that as a line; a lacking one is not."""
        named = ", ".join(v if isinstance(v, str) else f"{k} {v:g}" for k, v in self.row.items())
        asked = f"{named}: {self.column} {'>=' if self.least else '<='} {self.bound:g}"
        found = [r[self.column] for r in rows if self.row.items() <= r.items() and self.column in r]
        if len(found) != 1:
            return False, f"required {asked}: {len(found)} such figures, MISSED"
        met = found[0] >= self.bound if self.least else found[0] <= self.bound
        return met, f"required {asked}: {found[0]:.4g}, {'met' if met else 'MISSED'}"


def judge(required: Sequence[Required], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Prints a line for each bound; whether all are met."""
    verdicts = [one.verdict(rows) for one in required]
    for _, line in verdicts:
        print(line)
    return all(met for met, _ in verdicts)
