"""Manifests: what a prepared domain or corpus holds. A folder without one is not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscale_jax.data.sources import files
from autoscale_jax.data.store import write_whole
from autoscale_jax.specs import BadInput

FORMAT = 2
FILE = "manifest.json"
TOKENIZER = "tokenizer.json"


def write(folder: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Makes the folder exist: call it once all else in it is on disk."""
    whole = {"format": FORMAT, **content}
    write_whole(folder / FILE, lambda file: file.write(json.dumps(whole, indent=1).encode()))
    return whole


def read(folder: str | Path) -> dict[str, Any] | None:
    """What is in a finished folder; None where there is none. Raises `BadInput`."""
    path = f"{folder}/{FILE}"
    if not files.exists(path):
        return None
    remedy = "delete its folder to prepare it anew"
    try:
        content = json.loads(files.read_text(path))
    except ValueError as e:
        raise BadInput(f"{path}: unreadable ({e}); {remedy}") from e
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise BadInput(f"{path}: format {version!r} and this version reads {FORMAT}; {remedy}")
    return content
