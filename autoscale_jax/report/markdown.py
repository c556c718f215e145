"""The document as GitHub-flavoured Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from autoscale_jax.report.document import (
    Block,
    Cell,
    Details,
    Document,
    Items,
    Picture,
    Stats,
    Table,
    Text,
)

# Characters that could start markup of any kind, in the middle of a line or at its start.
_MARKUP = re.compile(r"([\\`*_{}\[\]#|~$])")
_LINE_START = re.compile(r"^(\d*)([-+.)])(?=\s|$)")


def render(document: Document) -> str:
    """The whole report; pictures are the files in figures/ beside it."""
    lines = [f"# {escape(document.title)}", ""]
    if document.created:
        lines += [escape(document.created), ""]
    for section in document.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Text that Markdown prints as it is, on one line."""
    text = html.escape(" ".join(text.split()), quote=False)
    return _LINE_START.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", text))


def _block(block: Block) -> Iterable[str]:
    if isinstance(block, Text):
        text = escape(block.text)
        marks = {"plain": "", "reading": "", "missing": "*", "answer": "**"}
        mark = marks[block.kind]
        return [f"{mark}{text}{mark}"]
    if isinstance(block, Items):
        head = "**Warning:** " if block.kind == "warning" else ""
        return [f"- {head}{escape(item)}" for item in block.items]
    if isinstance(block, Stats):
        return [
            f"- {escape(s.label)}: **{escape(s.value)}**"
            + (f" ({escape(s.note)})" if s.note else "")
            for s in block.stats
        ]
    if isinstance(block, Picture):
        return [f"![{escape(block.alt)}](figures/{block.name}.svg)"]
    if isinstance(block, Details):
        lines = ["<details>", f"<summary>{html.escape(block.summary)}</summary>", ""]
        for inner in block.blocks:
            lines += [*_block(inner), ""]
        return [*lines, "</details>"]
    return _table(block)


def _table(table: Table) -> list[str]:
    lines = [escape(table.caption), ""] if table.caption else []
    lines.append(_row([escape(c.title) for c in table.columns]))
    lines.append(_row(["---:" if c.number else "---" for c in table.columns]))
    lines += [_row([_cell(cell) for cell in row]) for row in table.rows]
    return lines


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.strong and text else text
    return f"{text} ({escape(cell.note)})" if cell.note else text
