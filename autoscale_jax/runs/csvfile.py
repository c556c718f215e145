"""CSV files as rows that know where they stand, so that a refusal names line and column."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from autoscale_jax.specs import BadInput, RunSpec, split_tokens

# Training tokens of a row without a column that tells: a number, or a function of its cells.
Tokens = int | Callable[[Mapping[str, str]], int] | None


class Row(NamedTuple):
    """One row of a CSV file, which knows where it stands."""

    path: Path
    line: int
    cells: Mapping[str, str]

    def refuse(self, column: str, remedy: str) -> NoReturn:
        """Raises `BadInput` that names file, line, column, value and remedy."""
        raise BadInput(
            f"{self.path} line {self.line}, column {column} = {self.cells[column]!r}: {remedy}"
        )

    def number(self, column: str) -> float:
        """A finite number, 0 or more."""
        try:
            x = float(self.cells[column])
        except ValueError:
            self.refuse(column, "write a number")
        if not math.isfinite(x) or x < 0:
            self.refuse(column, "write a finite number, 0 or more, or leave the row out")
        return x

    def count(self, column: str) -> int:
        """A whole number, 0 or more; `1e9` is one."""
        x = self.number(column)
        if not x.is_integer():
            self.refuse(column, "write a whole number")
        try:
            return int(self.cells[column])  # exact beyond 2^53
        except ValueError:
            return int(x)

    def spec(
        self,
        tokens: Mapping[str, int],
        seed: int,
        label: str,
        size: str,
        pool: Mapping[str, int],
        stages: Sequence[Mapping[str, int]] = (),
    ) -> RunSpec:
        """The row's run; a mixture that is none is refused with its line."""
        try:
            return RunSpec(tokens, seed, label, size, pool, tuple(stages))
        except BadInput as error:
            raise BadInput(f"{self.path} line {self.line}: {error}") from error


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Header and rows of a CSV file (UTF-8). Blank rows and columns without a name are left out.

    Raises `BadInput` for a missing or undecodable file, a repeated column, a row of other length.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            found = [(reader.line_num, cells) for cells in reader]
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}: give the path of a CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV file in UTF-8 ({error}): save it as one") from error
    for column, times in Counter(header).items():
        if times > 1 and column:
            raise BadInput(f"{path} line 1, column {column}: there {times} times: keep one of them")
    rows = []
    for line, cells in found:
        if not any(cells):
            continue
        if len(cells) != len(header):
            raise BadInput(
                f"{path} line {line}: {len(cells)} cells under {len(header)} columns: "
                "make them as many"
            )
        named = {c: x for c, x in zip(header, cells, strict=True) if c}
        rows.append(Row(path, line, named))
    return [column for column in header if column], rows


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file; it appears whole or not at all. Floats keep all their digits."""
    if not path.parent.is_dir():
        raise BadInput(f"{path}: no folder {path.parent}: create it first")
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)  # its \r\n makes it quote a \r or \n in a cell
            writer.writerow(header)
            writer.writerows(rows)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def run_total(row: Row, tokens: Tokens) -> int:
    """Training tokens of a row: its column `tokens`, or the caller's `tokens`."""
    if "tokens" in row.cells:
        if tokens is not None:
            raise BadInput(f"{row.path}: has a column tokens: leave out the argument tokens=")
        return row.count("tokens")
    if tokens is None:
        raise BadInput(f"{row.path}: no column tells how many tokens a run took: give tokens=")
    total = tokens(row.cells) if callable(tokens) else tokens
    if total != int(total) or total <= 0:
        raise BadInput(
            f"{row.path} line {row.line}: tokens = {total!r}: give a whole number over 0"
        )
    return int(total)


def split_weights(row: Row, columns: Mapping[str, str], total: int, slack: float) -> dict[str, int]:
    """Integer tokens per domain from the weights in `columns` (by domain), divided by their sum.

    Raises `BadInput` when a weight is no number or negative, or the sum is over `slack` from 1.
    """
    weights = {name: row.number(column) for name, column in columns.items()}
    s = math.fsum(weights.values())
    if abs(s - 1) > slack:
        raise BadInput(f"{row.path} line {row.line}: weights sum to {s:.6g}: make them sum to 1")
    return split_tokens({name: w / s for name, w in weights.items()}, total)
