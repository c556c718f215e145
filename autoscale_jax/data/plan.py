"""From settings to the units to read: what a corpus will be made of, before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoscale_jax.data import embedded, manifest, owners, prepared, tokenize
from autoscale_jax.data.samples import Rules
from autoscale_jax.data.sources import Unit, identity_hash, parse, units_of


@dataclasses.dataclass(frozen=True)
class Plan:
    """Units by domain, and the folders of the domains that come prepared.

    `warnings` tell of rules that do not reach these.
    """

    settings: dict[str, Any]
    units: Mapping[str, list[Unit]]
    rules: Mapping[str, Rules]
    stores: Mapping[str, str]
    tokenizer: tokenize.Tokenizer | None  # None: to be trained on the corpus
    warnings: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return sorted([*self.units, *self.stores])

    @property
    def held_out(self) -> float:
        return self.settings["held_out"]

    def all_units(self) -> Iterator[Unit]:
        for units in self.units.values():
            yield from units

    def key(self) -> str:
        """Identity of the corpus: settings, files and tokeniser."""
        return identity_hash(
            manifest.FORMAT,
            self.settings,
            {name: [unit.identity() for unit in units] for name, units in self.units.items()},
            {name: (manifest.read(path) or {}) for name, path in self.stores.items()},
            self.tokenizer.sha256 if self.tokenizer else "bpe",
        )


def plan(settings: dict[str, Any]) -> Plan:
    """Finds the files of all domains. Raises `BadInput`."""
    units: dict[str, list[Unit]] = {}
    rules: dict[str, Rules] = {}
    stores: dict[str, str] = {}
    contents: dict[str, dict[str, Any]] = {}
    tokenizer = _tokenizer(settings["tokenizer"])
    if settings["source"] == "embedded":
        identity = embedded.identity()
        for name in settings["domains"]:
            units[name] = [Unit("embedded", (), options={"name": name, "versions": identity})]
            rules[name] = Rules.of(settings, None)
        return Plan(settings, units, rules, stores, tokenizer)
    sources = {name: parse(name, value) for name, value in settings["domains"].items()}
    for name, source in sources.items():
        rules[name] = Rules.of(settings, source)
        if (folder := prepared.store_of(name, source)) is not None:
            contents[name] = prepared.check(name, folder, tokenizer)
            stores[name] = folder
        else:
            units[name] = units_of(name, source)
    owners.check(sources, units, contents)
    warnings = tuple(
        line
        for name, content in contents.items()
        for line in prepared.ignored(name, content, settings, rules[name], sources[name].where)
    )
    return Plan(settings, units, rules, stores, tokenizer, warnings)


def _tokenizer(setting: str) -> tokenize.Tokenizer | None:
    if setting == "bytes":
        return tokenize.ByteTokenizer()
    return None if setting == "bpe" else tokenize.load(setting)


def folder_of(plan: Plan, cache: Path) -> Path:
    """Where the corpus belongs, whether it is there or not."""
    return cache / f"corpus-{plan.key()}"
