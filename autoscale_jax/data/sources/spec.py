"""What a study's config says about the text of a domain, checked."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from autoscale_jax.data.sources import tfds
from autoscale_jax.data.window import WINDOWS
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the text of a domain is.

    `path` is a path or glob, `tfds:NAME[/CONFIG]:SPLIT`, or a list of these; or the folder of a
    prepared domain. `text` is the field that holds the text ("" = the format's own), dots go into
    nested fields. `where` keeps the records whose fields have these values. `window`, `min_chars`
    and `window_chars` are this domain's own rule where they differ from the study's.
    """

    path: str | list[str]
    text: str = ""
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    window: str | None = None
    window_chars: int | None = None
    min_chars: int | None = None
    data_dir: str | None = None

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else list(self.path)


_FIELDS = [field.name for field in dataclasses.fields(Source)]


def parse(name: str, value: Any) -> Source:
    """The source of one domain, given as a path or as a dict with the fields of `Source`."""
    where = f"data.domains.{name}"
    if isinstance(value, str):
        value = {"path": value}
    if not isinstance(value, Mapping) or not value.get("path"):
        raise BadInput(f"{where} = {value!r}: give one path or glob as text, or a dict with 'path'")
    for key in value:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_FIELDS)}"
            raise BadInput(f"{where}.{key}: no such field; {hint}")
    source = Source(**value)
    if not all(isinstance(p, str) and p for p in source.paths):
        raise BadInput(f"{where}.path = {source.path!r}: give a path or a list of paths")
    if not isinstance(source.where, Mapping):
        raise BadInput(f"{where}.where = {source.where!r}: give a dict of field: value")
    if source.window not in (None, *WINDOWS):
        raise BadInput(f"{where}.window = {source.window!r}: choose one of {', '.join(WINDOWS)}")
    for key in ("window_chars", "min_chars"):
        n = getattr(source, key)
        if n is not None and (not isinstance(n, int) or n < 0):
            raise BadInput(f"{where}.{key} = {n!r}: give a number of characters, 0 or more")
    return source


def text_field(source: Source, path: str) -> str:
    """The field that holds the text of `path`."""
    if source.text or not path.startswith(tfds.PREFIX):
        return source.text or "text"
    return tfds.TEXT_FIELDS.get(tfds.split_name(path)[0].split("/")[0], "text")
