"""Manifests: what a prepared domain or corpus holds. A folder without one is not there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscale_jax.data.sources import files
from autoscale_jax.data.store import REMEDY, Shard, write_whole
from autoscale_jax.specs import BadInput

FORMAT = 2
FILE = "manifest.json"
TOKENIZER = "tokenizer.json"
# What a manifest must hold; a side of a domain holds more, and a list of shards.
_KEYS = {
    "corpus": ("settings", "tokenizer_sha256", "eval_limit", "domains", "warnings"),
    "domain": ("name", "tokenizer_sha256", "dtype", "train", "eval", "rules", "files", "warnings"),
}
_SIDE = ("documents", "tokens", "fingerprint", "shards")
_SHARD = tuple(field.name for field in dataclasses.fields(Shard))


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
    try:
        content = json.loads(files.read_text(path))
    except ValueError as e:
        raise BadInput(f"{path}: unreadable ({e}); {REMEDY}") from e
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise BadInput(f"{path}: format {version!r} and this version reads {FORMAT}; {REMEDY}")
    if missing := _missing(content):
        raise BadInput(f"{path}: lacks {', '.join(missing)}; {REMEDY}")
    return content


def _missing(content: Mapping[str, Any]) -> list[str]:
    """What a manifest lacks, by dotted name."""
    kind = content.get("kind")
    if kind not in _KEYS:
        return [f"a kind ({' or '.join(_KEYS)})"]
    missing = [key for key in _KEYS[kind] if key not in content]
    for side in {"train", "eval"} & content.keys():
        of_side = content[side] if isinstance(content[side], dict) else {}
        missing += [f"{side}.{key}" for key in _SIDE if key not in of_side]
        for shard in of_side.get("shards", []):
            missing += [f"{side}.shards.{key}" for key in _SHARD if key not in shard]
    return sorted(set(missing))


def domain_folder(corpus: Path, named: str) -> str:
    """The folder of a domain as a corpus' manifest names it."""
    return named if "://" in named or Path(named).is_absolute() else str(corpus.parent / named)
