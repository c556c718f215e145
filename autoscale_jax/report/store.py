"""A study's way to JSON, checked, and back from it, complete and printable."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from typing import Any, cast

from autoscale_jax.report.schema import Study
from autoscale_jax.specs import BadInput

# What a study has where it says nothing.
_EMPTY: Study = {
    "title": "Data mixture study",
    "created": None,
    "config": {},
    "objective": {},
    "domains": [],
    "target_tokens": None,
    "budgets": [],
    "reference": "uniform",
    "recommended": None,
    "proposals": [],
    "trajectory": [],
    "laws": [],
    "effects": {},
    "verification": [],
    "gain": {},
    "tokens_saved": {},
    "cost": {},
    "noise": {},
    "next_run": None,
    "search": {},
    "warnings": [],
    "runs": [],
}


def dumps(study: Mapping[str, Any]) -> str:
    """The study as JSON text, keys as given. Raises `BadInput` naming what is not JSON."""
    _check(study, "study")
    return json.dumps(study, indent=1, allow_nan=False) + "\n"


def loads(text: str) -> Study:
    """The study that `dumps` wrote, complete and printable: what the pages are views of.

    A top-level key that is missing or null gets its empty value, deeper ones that are null are left
    out, and characters that cannot be printed are spelled out.
    """
    data = _printable(json.loads(text))
    full: dict[str, Any] = {}
    for key, empty in _EMPTY.items():
        value = data.get(key)
        if key != "config":
            value = _without_none(value)
        full[key] = empty if value is None else value
    return cast(Study, full)


def _without_none(value: Any) -> Any:
    """The same without its nulls, so that a view asks one thing: is it there?

    The matrix `change` keeps them: there a place has a meaning.
    """
    if isinstance(value, dict):
        return {
            key: item if key == "change" else _without_none(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_none(item) for item in value if item is not None]
    return value


def _check(value: Any, where: str) -> None:
    """Raise `BadInput` for what JSON cannot hold, with the path of the field."""
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(f"{where} = {value}: a report holds finite numbers; write None instead")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise BadInput(f"{where} has the key {key!r}: keys of a report are strings")
            _check(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check(item, f"{where}[{i}]")
    else:
        kind = type(value).__name__
        raise BadInput(f"{where} is a {kind}: a report holds str, int, float, bool, list and dict")


def _printable(value: Any) -> Any:
    """The same value with control, surrogate and text-direction characters spelled out.

    They would make the SVG pictures invalid, or let a domain's name reorder the text around it.
    """
    if isinstance(value, str):
        return "".join(_spell(c) for c in value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value


def _spell(char: str) -> str:
    bidirectional = char in "\u200e\u200f\u061c" or 0x202A <= ord(char) <= 0x202E
    bidirectional = bidirectional or 0x2066 <= ord(char) <= 0x2069 or char in "\ufffe\uffff"
    if char == "\n":
        return " "
    if bidirectional or unicodedata.category(char) in ("Cc", "Cs"):
        return char.encode("unicode_escape").decode("ascii")
    return char
