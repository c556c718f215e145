"""The document as one self-contained HTML page: no scripts, nothing loaded from outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from autoscale_jax.report.css import PAGE
from autoscale_jax.report.document import (
    Bar,
    Block,
    Cell,
    Details,
    Document,
    Items,
    Picture,
    Section,
    Stats,
    Table,
    Text,
)
from autoscale_jax.report.figures import Drawn

# The page can run no script and fetch nothing, whatever a study's strings hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(document: Document, pictures: Mapping[str, Drawn]) -> str:
    """The page; `pictures` holds the SVG text of every `Picture` in the document."""
    created = f'<p class="created">{escape(document.created)}</p>' if document.created else ""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in document.sections[1:])
    first, *rest = (_section(section, pictures) for section in document.sections)
    body = "\n".join([first, f'<nav aria-label="Sections">{links}</nav>', *rest])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(document.title)}</title>
<style>
{PAGE}</style>
</head>
<body>
<main>
<header>
<h1>{escape(document.title)}</h1>
{created}
</header>
{body}
</main>
</body>
</html>
"""


def _section(section: Section, pictures: Mapping[str, Drawn]) -> str:
    blocks = "\n".join(_block(block, pictures) for block in section.blocks)
    return (
        f'<section id="{section.anchor}">\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>'
    )


def _block(block: Block, pictures: Mapping[str, Drawn]) -> str:
    if isinstance(block, Text):
        return f'<p class="{block.kind}">{escape(block.text)}</p>'
    if isinstance(block, Items):
        items = "".join(f"<li>{escape(item)}</li>" for item in block.items)
        return f'<ul class="{block.kind}">{items}</ul>'
    if isinstance(block, Stats):
        cards = "".join(
            f'<div class="stat"><dt>{escape(s.label)}</dt><dd class="value">{escape(s.value)}</dd>'
            f'<dd class="note">{escape(s.note)}</dd></div>'
            for s in block.stats
        )
        return f'<dl class="stats">{cards}</dl>'
    if isinstance(block, Picture):
        return _picture(block, pictures[block.name])
    if isinstance(block, Details):
        inner = "\n".join(_block(b, pictures) for b in block.blocks)
        return f"<details><summary>{escape(block.summary)}</summary>\n{inner}\n</details>"
    return _table(block)


def _picture(picture: Picture, drawn: Drawn) -> str:
    label = escape(picture.alt)
    return (
        f'<figure role="img" aria-label="{label}">'
        f'<div class="wide">{_sized(drawn.wide)}</div>'
        f'<div class="narrow">{_sized(drawn.narrow)}</div></figure>'
    )


def _sized(svg: str) -> str:
    """The picture scaled to the page, but no wider than a little over the size it was drawn at."""
    width = re.match(r'<svg[^>]* width="([0-9.]+)pt"', svg)
    limit = f"max-width:{float(width[1]) * 1.5:.0f}px;" if width else ""
    return svg.replace('style="', f'style="{limit}', 1)


def _table(table: Table) -> str:
    heads = "".join(
        f'<th scope="col"{_class(c.number)}>{escape(c.title)}</th>' for c in table.columns
    )
    rows = []
    for row in table.rows:
        first = f'<th scope="row">{_cell(row[0])}</th>'
        rest = "".join(
            f"<td{_class(column.number, len(cell.text) > 40)}>{_cell(cell)}</td>"
            for cell, column in zip(row[1:], table.columns[1:], strict=True)
        )
        rows.append(f"<tr>{first}{rest}</tr>")
    # Outside the table: the table may scroll sideways, its caption should stay.
    caption = f'<p class="caption">{escape(table.caption)}</p>\n' if table.caption else ""
    head = f"<thead><tr>{heads}</tr></thead>" if any(c.title for c in table.columns) else ""
    return (
        f'{caption}<div class="scroll"><table aria-label="{escape(table.caption)}">'
        f"{head}<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _class(number: bool, long: bool = False) -> str:
    names = " ".join(["number"] * number + ["long"] * long)
    return f' class="{names}"' if names else ""


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.colour:
        text = f'<i class="chip" style="background:{escape(cell.colour)}"></i>{text}'
    if cell.strong:
        text = f"<strong>{text}</strong>"
    if cell.note:
        text += f" <small>{escape(cell.note)}</small>"
    return text + (_bar(cell.bar) if cell.bar else "")


def _bar(bar: Bar) -> str:
    """The share as a bar, with its interval as a line through the end of it."""
    value = f'<i style="width:{_share(bar.value)};background:{escape(bar.colour)}"></i>'
    line = ""
    if bar.low is not None and bar.high is not None:
        line = f'<b style="left:{_share(bar.low)};width:{_share(bar.high - bar.low)}"></b>'
    return f'<span class="bar">{value}{line}</span>'


def _share(x: float) -> str:
    return f"{100 * min(max(x, 0.0), 1.0):.1f}%"
