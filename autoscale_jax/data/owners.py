"""No text belongs to two domains: files, the files behind prepared stores, and the stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from autoscale_jax.data.sources import Source, Unit
from autoscale_jax.specs import BadInput


class Owned(NamedTuple):
    """What a domain reads: the files, and which of their records."""

    files: list[str]
    where: Mapping[str, Any]


def of_units(units: Sequence[Unit], where: Mapping[str, Any]) -> Owned:
    """What a domain of these units reads; splits of one data set are told apart."""
    files = [(path, unit.options.get("split", "")) for unit in units for path, _, _ in unit.files]
    return Owned(_named(files), where)


def of_store(content: Mapping[str, Any]) -> Owned:
    """What the domain of a store's manifest was made of, as far as its manifest tells."""
    splits = content.get("splits") or [""] * len(content["files"])
    files = [
        (path, split)
        for unit, split in zip(content["files"], splits, strict=True)
        for path, _, _ in unit
    ]
    return Owned(_named(files), content.get("where", {}))


def _named(files: Sequence[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(f"{path} {split}".strip() for path, split in files))


def check(
    sources: Mapping[str, Source],
    units: Mapping[str, Sequence[Unit]],
    stores: Mapping[str, Mapping[str, Any]],
) -> None:
    """Two domains may read the same file only where `where` tells their records apart.

    `stores` are the manifests of the domains that come prepared. Raises `BadInput`.
    """
    first: dict[str, str] = {}
    for name, content in stores.items():
        other = first.setdefault(content["train"]["fingerprint"], name)
        if other != name:
            raise BadInput(
                f"data.domains.{name} = {sources[name].path!r}: holds the same tokens as domain"
                f" {other!r}; give each store to one domain"
            )
    owned = {name: of_units(some, sources[name].where) for name, some in units.items()}
    owned |= {name: of_store(content) for name, content in stores.items()}
    owners: dict[str, list[str]] = {}
    for name, mine in owned.items():
        for file in mine.files:
            for other in owners.setdefault(file, []):
                if not _apart(mine.where, owned[other].where):
                    raise BadInput(
                        f"data.domains.{name} = {sources[name].path!r}: {file} is also in domain"
                        f" {other!r}; give each file to one domain, or tell them apart by 'where'"
                    )
            owners[file].append(name)


def _apart(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return any(field in b and b[field] != value for field, value in a.items())
