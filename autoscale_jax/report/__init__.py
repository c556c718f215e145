"""The report of a study: report.json, and report.html and report.md as pure views of it.

`write(study, workdir)` is the one way in. `study` is a plain JSON-able dict whose shape is
`schema.Study`; every list in it may be empty and every number None while a study is unfinished, and
the report then says in words what is missing. What is written:

    WORKDIR/report.json         the study itself; nothing in the two pages comes from elsewhere
    WORKDIR/report.html         one self-contained page, no scripts, nothing loaded from outside
    WORKDIR/report.md           the same sections for a code host or a terminal
    WORKDIR/figures/NAME.svg    the pictures of report.md (report.html carries its own copy)

Order of work: `store` checks the study and gives it back printable; `sections`, with `headline`,
`results` and `account`, turns it into a document of blocks (`document`); `figures` draws the
pictures in one `style`; `html` and `markdown` print the document.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write"]


def write(study: Mapping[str, Any], workdir: Path) -> None:
    """Write report.json, report.html, report.md and figures/ into `workdir`.

    Each file is replaced as a whole, report.json first. Raises `BadInput`, before anything is
    written, for a NaN, an infinity or anything that JSON has no word for, naming the field.
    """
    # here, for Matplotlib takes a second to import, and a study trains before it draws
    from autoscale_jax.report import figures, html, markdown, sections, store

    workdir = Path(workdir)
    text = store.dumps(study)
    (workdir / "figures").mkdir(parents=True, exist_ok=True)
    _replace(workdir / "report.json", text)
    view = store.loads(text)
    pictures = figures.draw_all(view)
    for name in figures.NAMES:
        path = workdir / "figures" / f"{name}.svg"
        if name in pictures:
            _replace(path, pictures[name].wide)
        else:
            path.unlink(missing_ok=True)  # of an earlier state of the study
    document = sections.build(view, frozenset(pictures))
    _replace(workdir / "report.md", markdown.render(document))
    _replace(workdir / "report.html", html.render(document, pictures))


def _replace(path: Path, text: str) -> None:
    """Write `text` to `path` by way of a temporary file, so that no reader sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
