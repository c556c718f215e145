"""Preparing a corpus: scan all units, split, tokenise what is new, write the manifests.

Each step leaves files that appear whole or not at all and are named by what they follow from, so
that a process killed at any moment continues where it was, and a domain that did not change is
taken as it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoscale_jax.data import manifest, parallel, prepared, tokenize
from autoscale_jax.data.encode import EncodeTask, Part, encode
from autoscale_jax.data.leaks import leaks
from autoscale_jax.data.plan import Plan
from autoscale_jax.data.samples import Counts, Notes, ScanTask, scan
from autoscale_jax.data.sources import identity_hash
from autoscale_jax.data.split import Split, split
from autoscale_jax.data.store import sweep, write_whole
from autoscale_jax.data.vocabulary import tokenizer_of
from autoscale_jax.specs import BadInput

_FEW_HELD_OUT = 30


def build(plan: Plan, folder: Path, workers: int, progress: parallel.Progress) -> None:
    """Prepares the corpus of `plan` into `folder` and its neighbours."""
    sweep(folder.parent)
    count = parallel.worker_count(workers, sum(u.bytes for u in plan.all_units()))
    with parallel.Workers(count) as pool:
        _build(plan, folder, pool, progress)


def _build(plan: Plan, folder: Path, pool: parallel.Workers, progress: parallel.Progress) -> None:
    cache = folder.parent
    tasks = {
        name: [ScanTask(unit, plan.rules[name], cache / "scans") for unit in units]
        for name, units in plan.units.items()
    }
    flat = [task for of_domain in tasks.values() for task in of_domain]
    results = pool.run(scan, flat)
    for _ in progress.watch("scan", results, [task.unit.bytes for task in flat]):
        pass
    found = {name: [task.notes() for task in of_domain] for name, of_domain in tasks.items()}
    for name, of_domain in found.items():
        _check_any_left(plan, name, sum((n.counts() for n in of_domain), Counts()))
    splits = split({n: [unit.bits_N for unit in xs] for n, xs in found.items()}, plan.held_out)
    tokenizer = tokenizer_of(plan, found, splits)
    write_whole(folder / manifest.TOKENIZER, lambda file: file.write(tokenizer.to_json().encode()))
    warnings = list(plan.warnings)
    if plan.settings["tokenizer"] == "bpe" and tokenizer.vocab_size < plan.settings["vocab_size"]:
        warnings.append(
            f"data.vocab_size = {plan.settings['vocab_size']}: the text yields"
            f" {tokenizer.vocab_size}"
        )
    domains = _Domains(plan, found, splits, tokenizer, folder / manifest.TOKENIZER, cache)
    built = {**domains.build(pool, progress), **plan.stores}
    folders = {name: built[name] for name in plan.names}
    if plan.stores:
        _check_stores(
            plan, {n: manifest.domain_folder(folder, f) for n, f in folders.items()}, progress
        )
    manifest.write(
        folder,
        {
            "kind": "corpus",
            "settings": plan.settings,
            "tokenizer_sha256": tokenizer.sha256,
            "eval_limit": plan.settings["eval_tokens"],
            "domains": [{"name": name, "folder": place} for name, place in folders.items()],
            "warnings": warnings,
        },
    )


def _check_stores(plan: Plan, folders: Mapping[str, str], progress: parallel.Progress) -> None:
    """Reads all tokens once: stores that were prepared apart may be damaged, and the split of one
    knows nothing of the other domains' documents. Raises `BadInput`."""
    contents = [manifest.read(folder) or {} for folder in folders.values()]
    sizes = [sum(s["bytes"] for x in ("train", "eval") for s in c[x]["shards"]) for c in contents]
    for _, found in progress.watch("check the stores", enumerate(leaks(folders)), sizes):
        if found.both and not plan.stores.keys().isdisjoint((found.name, found.first)):
            raise BadInput(
                f"data.domains.{found.name}: {found.both} of its {found.train} training documents"
                f" are held out, the first in domain {found.first!r}; a store's own split cannot be"
                " changed: name the text of both domains, so that copies are removed"
            )


def _check_any_left(plan: Plan, name: str, counts: Counts) -> None:
    if counts.read - counts.left_out - counts.empty - counts.short - counts.bad:
        return
    rules = plan.rules[name]
    first = next((path for unit in plan.units[name] for path, _, _ in unit.files), name)
    raise BadInput(
        f"data.domains.{name}: no text is left of {counts.read} records (first file {first}):"
        f" {counts.left_out} not selected by 'where' or blank, {counts.empty} empty,"
        f" {counts.short} of {rules.min_chars} characters or fewer (min_chars),"
        f" {counts.bad} unreadable; check the files or loosen the rules"
    )


@dataclasses.dataclass
class _Domains:
    """The token stores of all domains that are not there yet."""

    plan: Plan
    found: Mapping[str, list[Notes]]
    splits: Mapping[str, Split]
    tokenizer: tokenize.Tokenizer
    tokenizer_file: Path
    cache: Path

    def build(self, pool: parallel.Workers, progress: parallel.Progress) -> dict[str, str]:
        """Names of the folders, relative to the cache, by domain."""
        folders = {name: f"domain-{name}-{self._key(name)}" for name in self.plan.units}
        missing = [n for n, f in folders.items() if manifest.read(self.cache / f) is None]
        capped = bool(self.plan.settings["max_train_tokens"])
        parts: dict[str, dict[int, Part]] = {name: {} for name in missing}
        if capped:
            for name in missing:
                parts[name] = self._encode_capped(name, folders[name])
        else:
            tasks = [
                (name, self._task(name, k, folders[name], None))
                for name in missing
                for k in range(len(self.plan.units[name]))
            ]
            results = pool.run(encode, [task for _, task in tasks])
            sizes = [task.unit.bytes for _, task in tasks]
            for i, part in progress.watch("tokenise", results, sizes):
                name, task = tasks[i]
                parts[name][task.k] = part
        for name in missing:
            self._finish(name, folders[name], [parts[name][k] for k in sorted(parts[name])])
        return folders

    def _key(self, name: str) -> str:
        """All that the tokens of a domain follow from, and nothing else."""
        plan = self.plan
        return identity_hash(
            manifest.FORMAT,
            [unit.identity() for unit in plan.units[name]],
            dataclasses.asdict(plan.rules[name]),
            [plan.settings[key] for key in ("max_document_bytes", "max_train_tokens")],
            self.splits[name].digest(),
            self.tokenizer.sha256,
        )

    def _task(self, name: str, k: int, folder: str, most_tokens: int | None) -> EncodeTask:
        of_domain = self.splits[name]
        return EncodeTask(
            unit=self.plan.units[name][k],
            rules=self.plan.rules[name],
            k=k,
            notes=self.found[name][k],
            keep_N=of_domain.keep[k],
            threshold=of_domain.threshold,
            tokenizer=self.tokenizer_file,
            dtype="uint16" if self.tokenizer.vocab_size <= 1 << 16 else "uint32",
            max_document_bytes=self.plan.settings["max_document_bytes"],
            most_tokens=most_tokens,
            folder=self.cache / folder,
        )

    def _encode_capped(self, name: str, folder: str) -> dict[int, Part]:
        """Unit after unit, since how much one may give depends on those before it."""
        parts, left = {}, self.plan.settings["max_train_tokens"]
        for k in range(len(self.plan.units[name])):
            part = parts[k] = encode(self._task(name, k, folder, left))
            left -= part.train.tokens - (k == 0)  # without the EOS that opens the stream
        return parts

    def _finish(self, name: str, folder: str, parts: list[Part]) -> None:
        path, counts = self.cache / folder, sum((n.counts() for n in self.found[name]), Counts())
        write_whole(
            path / manifest.TOKENIZER,
            lambda file: file.write(self.tokenizer.to_json().encode()),
        )
        sides = {
            side: {
                "documents": sum(getattr(p, f"{side}_documents") for p in parts),
                "tokens": sum(getattr(p, side).tokens for p in parts) - 1,
                "fingerprint": identity_hash([getattr(p, side).sha256 for p in parts]),
                "shards": [dataclasses.asdict(getattr(p, side)) for p in parts],
            }
            for side in ("train", "eval")
        }
        content = {
            "kind": "domain",
            "name": name,
            "tokenizer_sha256": self.tokenizer.sha256,
            "dtype": "uint16" if self.tokenizer.vocab_size <= 1 << 16 else "uint32",
            **sides,
            "records": dataclasses.asdict(counts),
            "rules": dataclasses.asdict(self.plan.rules[name]),
            "settings": {key: self.plan.settings[key] for key in prepared.SETTINGS},
            "where": self.plan.units[name][0].options.get("where", {}),
            "files": json.loads(json.dumps([u.files for u in self.plan.units[name]])),
            "splits": [u.options.get("split", "") for u in self.plan.units[name]],
            "warnings": self._warnings(name, sides, counts),
        }
        manifest.write(path, content)

    def _warnings(self, name: str, sides: Mapping[str, Any], counts: Counts) -> list[str]:
        out = []
        if counts.bad:
            out.append(
                f"domain {name!r}: skipped {counts.bad} bad lines or files;"
                f" the first is {counts.first_bad}"
            )
        if (n := sides["eval"]["documents"]) < _FEW_HELD_OUT:
            out.append(f"domain {name!r}: its held-out loss rests on {n} documents")
        if (kept := sides["train"]["documents"]) < self.splits[name].train:
            out.append(
                f"domain {name!r}: data.max_train_tokens ="
                f" {self.plan.settings['max_train_tokens']} keeps {kept} of"
                f" {self.splits[name].train} training documents"
            )
        return out
