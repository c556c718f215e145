"""config.data: defaults, and the checks that need no files."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoscale_jax.data import embedded
from autoscale_jax.data.window import WINDOWS
from autoscale_jax.specs import BadInput

DEFAULTS: dict[str, Any] = {
    "source": "embedded",
    "domains": embedded.DEFAULT,
    "tokenizer": "bpe",
    "vocab_size": 1024,
    "held_out": 0.1,  # below 1 a share of each domain's documents, otherwise their number
    "eval_tokens": 0,
    "min_chars": 0,  # documents of so many characters or fewer are left out
    "window_chars": 0,  # so many characters of each document are used, 0 = all
    "window": "first",
    "max_document_bytes": 8192,
    "on_bad_line": "refuse",
    "max_train_tokens": 0,
    "seed": 0,
}
SOURCES = ("embedded", "files")


def check(data_config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain, checked settings: defaults filled in, tuples as lists, so that they hash alike.

    Raises `BadInput` for the first one that cannot be right.
    """
    given = json.loads(json.dumps({k: _plain(data_config[k]) for k in data_config}))
    for key in given:
        if key not in DEFAULTS:
            near = difflib.get_close_matches(key, DEFAULTS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DEFAULTS)}"
            raise BadInput(f"data.{key}: no such setting; {hint}")
    settings = {**json.loads(json.dumps(DEFAULTS)), **given}
    _check_choice(settings, "source", SOURCES)
    _check_choice(settings, "on_bad_line", ("refuse", "skip"))
    _check_choice(settings, "window", WINDOWS)
    held_out = settings["held_out"]
    if not (0 < held_out < 1 or (held_out >= 1 and held_out == int(held_out))):
        raise BadInput(
            f"data.held_out = {held_out}: give a fraction between 0 and 1, or a whole number"
            " of documents of each domain"
        )
    settings["held_out"] = held_out if held_out < 1 else int(held_out)  # flags read floats
    counts = ("eval_tokens", "max_document_bytes", "max_train_tokens", "min_chars", "window_chars")
    for key in counts:
        if settings[key] < 0:
            raise BadInput(f"data.{key} = {settings[key]}: give 0 (no limit) or more")
    if 0 < (limit := settings["max_document_bytes"]) < 16:
        raise BadInput(f"data.max_document_bytes = {limit}: give 16 or more, or 0 for no limit")
    if not settings["domains"]:
        settings["domains"] = list(embedded.DEFAULT) if settings["source"] == "embedded" else {}
    if len(settings["domains"]) < 2:
        raise BadInput(f"data.domains = {settings['domains']}: a mixture needs two domains or more")
    _CHECK_DOMAINS[settings["source"]](settings["domains"])
    return settings


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return dict(value) if isinstance(value, Mapping) else value


def _check_choice(settings: Mapping[str, Any], key: str, choices: Sequence[str]) -> None:
    if settings[key] not in choices:
        raise BadInput(f"data.{key} = {settings[key]!r}: choose one of {', '.join(choices)}")


def _check_embedded(names: Any) -> None:
    if isinstance(names, Mapping):
        raise BadInput(f"data.domains = {names}: source 'embedded' takes names; or set 'files'")
    if len(set(names)) < len(names):
        raise BadInput(f"data.domains = {names}: name each domain once")
    for name in names:
        if name not in embedded.BUILDERS:
            raise BadInput(f"data.domains: no {name!r}; there are {', '.join(embedded.BUILDERS)}")


def _check_files(domains: Any) -> None:
    if not isinstance(domains, Mapping):
        raise BadInput(f"data.domains = {domains}: source 'files' takes name: path or glob pairs")
    for name in domains:
        if not name or any(c in name for c in "/\\\0"):
            raise BadInput(f"data.domains: {name!r} names a folder too; leave out slashes")


_CHECK_DOMAINS = {"embedded": _check_embedded, "files": _check_files}
