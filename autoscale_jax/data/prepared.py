"""Domains that come as prepared stores: what must hold of one, and what it is not asked again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from autoscale_jax.data import manifest, tokenize
from autoscale_jax.data.samples import Rules
from autoscale_jax.data.sources import Source, files
from autoscale_jax.data.store import Shard, check_shards, check_size
from autoscale_jax.specs import BadInput

# The study's settings that decide, beside a domain's rules, what its store holds.
SETTINGS = ("held_out", "max_document_bytes", "max_train_tokens")


def store_of(name: str, source: Source) -> str | None:
    """The folder of a prepared domain, if that is what the source names."""
    if not isinstance(source.path, str) or source.path.startswith("tfds:"):
        return None
    named = f"data.domains.{name} = {source.path!r}"
    if not files.exists(f"{source.path}/{manifest.FILE}", named):
        return None
    return str(epath.Path(source.path).expanduser())


def check(name: str, folder: str, tokenizer: tokenize.Tokenizer | None) -> dict[str, Any]:
    """The manifest of a store that the study can use. Raises `BadInput` for any other.

    Shards are there and as long as they should be; that their tokens are right shows when they
    are read.
    """
    content = manifest.read(folder) or {}
    where = f"data.domains.{name} = {folder!r}"
    if content.get("kind") != "domain":
        raise BadInput(f"{where}: holds a whole corpus; give one of its domain-* folders")
    if tokenizer is None or tokenizer.sha256 != content["tokenizer_sha256"]:
        raise BadInput(
            f"{where}: was tokenised with another tokeniser; set data.tokenizer ="
            f" {folder + '/' + manifest.TOKENIZER!r}"
        )
    shards = [Shard(**shard) for side in ("train", "eval") for shard in content[side]["shards"]]
    check_shards(folder, shards)
    sizes = {path.rpartition("/")[2]: size for path, size, _ in files.find(f"{folder}/*")}
    for shard in shards:
        check_size(f"{folder}/{shard.file}", sizes[shard.file], shard)
    return content


def ignored(
    name: str,
    content: Mapping[str, Any],
    settings: Mapping[str, Any],
    rules: Rules,
    where: Mapping[str, Any],
) -> list[str]:
    """A warning for what the study asks of a domain and its store was not made with."""
    asked = dataclasses.asdict(rules) | {key: settings[key] for key in SETTINGS}
    made = {**content["rules"], **content.get("settings", {})}
    if where:
        asked["where"], made["where"] = dict(where), content.get("where", {})
    del asked["on_bad_line"]  # what it left out is in the store's own warnings
    if not asked["window_chars"] and not made.get("window_chars"):
        del asked["window"]
    other = [key for key in asked if key in made and made[key] != asked[key]]
    if not other:
        return []
    had, wanted = (", ".join(f"{key} = {of[key]!r}" for key in other) for of in (made, asked))
    return [f"domain {name!r}: its prepared store was made with {had}; {wanted} is ignored for it"]
