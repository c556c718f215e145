"""From settings to the units to read: what a corpus will be made of, before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from autoscale_jax.data import embedded, manifest, tokenize
from autoscale_jax.data.samples import Rules
from autoscale_jax.data.sources import Source, Unit, files, identity_hash, parse, units_of
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class Plan:
    """Units by domain, and the folders of the domains that come prepared."""

    settings: dict[str, Any]
    units: Mapping[str, list[Unit]]
    rules: Mapping[str, Rules]
    stores: Mapping[str, str]
    tokenizer: tokenize.Tokenizer | None  # None: to be trained on the corpus

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
    tokenizer = _tokenizer(settings["tokenizer"])
    if settings["source"] == "embedded":
        identity = embedded.identity()
        for name in settings["domains"]:
            units[name] = [Unit("embedded", (), options={"name": name, "versions": identity})]
            rules[name] = Rules.of(settings, None)
        return Plan(settings, units, rules, stores, tokenizer)
    sources = {name: parse(name, value) for name, value in settings["domains"].items()}
    for name, source in sources.items():
        if (folder := _store(name, source)) is not None:
            _check_store(name, folder, tokenizer)
            stores[name] = folder
        else:
            units[name] = units_of(name, source)
            rules[name] = Rules.of(settings, source)
    _check_owners(sources, units)
    return Plan(settings, units, rules, stores, tokenizer)


def _tokenizer(setting: str) -> tokenize.Tokenizer | None:
    if setting == "bytes":
        return tokenize.ByteTokenizer()
    return None if setting == "bpe" else tokenize.load(setting)


def _store(name: str, source: Source) -> str | None:
    """The folder of a prepared domain, if that is what the source names."""
    if not isinstance(source.path, str) or source.path.startswith("tfds:"):
        return None
    named = f"data.domains.{name} = {source.path!r}"
    if not files.exists(f"{source.path}/{manifest.FILE}", named):
        return None
    return str(epath.Path(source.path).expanduser())


def _check_store(name: str, folder: str, tokenizer: tokenize.Tokenizer | None) -> None:
    content = manifest.read(folder) or {}
    where = f"data.domains.{name} = {folder!r}"
    if content.get("kind") != "domain":
        raise BadInput(f"{where}: holds a whole corpus; give one of its domain-* folders")
    if tokenizer is None or tokenizer.sha256 != content["tokenizer_sha256"]:
        raise BadInput(
            f"{where}: was tokenised with another tokeniser; set data.tokenizer ="
            f" {folder + '/' + manifest.TOKENIZER!r}"
        )


def _check_owners(sources: Mapping[str, Source], units: Mapping[str, list[Unit]]) -> None:
    """Two domains may read the same file only where `where` tells their records apart."""
    owners: dict[str, list[str]] = {}
    for name in units:
        files = dict.fromkeys(
            f"{path} {unit.options.get('split', '')}".strip()
            for unit in units[name]
            for path, _, _ in unit.files
        )
        for file in files:
            for other in owners.setdefault(file, []):
                if not _apart(sources[name].where, sources[other].where):
                    raise BadInput(
                        f"data.domains.{name} = {sources[name].path!r}: {file} is also in domain"
                        f" {other!r}; give each file to one domain, or tell them apart by 'where'"
                    )
            owners[file].append(name)


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return any(field in b and b[field] != value for field, value in a.items())


def folder_of(plan: Plan, cache: Path) -> Path:
    """Where the corpus belongs, whether it is there or not."""
    return cache / f"corpus-{plan.key()}"
