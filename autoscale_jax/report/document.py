"""The blocks a report is made of: what it says, free of how HTML or Markdown would say it.

Every string here is plain text as it came from the study; the renderers escape it.
"""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Bar:
    """A share in its interval, drawn beside a number: fractions of the widest bar, and a colour."""

    value: float
    low: float | None
    high: float | None
    colour: str


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a table; `note` is printed small after the text."""

    text: str
    note: str = ""
    strong: bool = False
    bar: Bar | None = None
    colour: str | None = None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column's head; numbers stand right-aligned."""

    title: str
    number: bool = True


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells, each as long as `columns`."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph: plain, how to read something, what is missing, or the report's answer."""

    text: str
    kind: Literal["plain", "reading", "missing", "answer"] = "plain"


@dataclasses.dataclass(frozen=True)
class Items:
    """A list of sentences; `kind` "warning" makes them stand out."""

    items: tuple[str, ...]
    kind: Literal["plain", "warning"] = "plain"


@dataclasses.dataclass(frozen=True)
class Stat:
    """One number in large type with what it is and how sure it is."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Stats:
    """The few numbers to see first."""

    stats: tuple[Stat, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """One of the drawn figures, by name, with its text for those who cannot see it."""

    name: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded away until asked for."""

    summary: str
    blocks: tuple[Block, ...]


Block = Table | Text | Items | Stats | Picture | Details


@dataclasses.dataclass(frozen=True)
class Section:
    """A titled part of the report; `anchor` is its name in links."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclasses.dataclass(frozen=True)
class Document:
    """The whole report."""

    title: str
    created: str | None
    sections: tuple[Section, ...]
