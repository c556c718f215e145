"""Token arrays on disk: a folder per corpus that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from autoscale_jax.specs import BadInput

FORMAT = 1
TOKENIZER = "tokenizer.json"
_MANIFEST = "manifest.json"
_STALE_SECONDS = 3600


def folder(cache_dir: str | Path, identity: Any) -> Path:
    """Where the corpus with this identity (JSON) belongs, whether it is there or not."""
    text = json.dumps([FORMAT, identity], sort_keys=True)
    return Path(cache_dir).expanduser() / hashlib.sha256(text.encode()).hexdigest()[:16]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What is in a finished folder; None where there is none."""
    if not (folder / _MANIFEST).is_file():
        return None
    try:
        return json.loads((folder / _MANIFEST).read_text("utf-8"))
    except ValueError as e:
        raise BadInput(
            f"{folder / _MANIFEST}: unreadable ({e}); delete its folder to prepare anew"
        ) from e


def arrays(folder: Path, manifest: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training, held-out) token arrays of each domain, memory-mapped and read-only."""
    return [
        (
            _map(folder / f"{k}.train.npy", domain["train_tokens"] + 1),
            _map(folder / f"{k}.eval.npy", domain["eval_tokens"] + 1),
        )
        for k, domain in enumerate(manifest["domains"])
    ]


def _map(path: Path, length: int) -> np.ndarray:
    try:
        # A plain view: np.memmap's own slicing is many times slower.
        tokens = np.load(path, mmap_mode="r").view(np.ndarray)
    except (EOFError, OSError, ValueError) as e:
        raise BadInput(f"{path}: unreadable ({e}); delete its folder to prepare anew") from e
    if len(tokens) != length:
        raise BadInput(
            f"{path}: {len(tokens)} tokens and the manifest says {length}; delete its folder"
        )
    return tokens


class Writer:
    """Writes a corpus beside its final place and moves it there once it is complete on disk.

    The rename is what makes it exist: a process killed at any moment before leaves only a
    temporary folder, which a later one removes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._domains: list[dict[str, Any]] = []
        self._hashes: dict[str, str] = {}

    def __enter__(self) -> Writer:
        parent = self._folder.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for old in parent.glob("tmp-*"):
                if time.time() - old.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
            self._tmp = Path(tempfile.mkdtemp(prefix="tmp-", dir=parent))
        except OSError as e:
            raise BadInput(f"cache_dir = {str(parent)!r}: not writable ({e}); give another") from e
        return self

    def tokenizer(self, text: str) -> None:
        (self._tmp / TOKENIZER).write_text(text, "utf-8")

    def domain(self, record: dict[str, Any], train: np.ndarray, held_out: np.ndarray) -> None:
        """Adds one domain: its record for the manifest and its two token arrays."""
        k = len(self._domains)
        sha = hashlib.sha256()
        for part, tokens in (("train", train), ("eval", held_out)):
            np.save(self._tmp / f"{k}.{part}.npy", tokens)
            # Ids as little-endian uint32, so that the hash is of the tokens and not of the dtype.
            sha.update(len(tokens).to_bytes(8, "little") + tokens.astype("<u4").tobytes())
        self._domains.append(record)
        self._hashes[record["name"]] = sha.hexdigest()

    def finish(self, rest: dict[str, Any]) -> dict[str, Any]:
        """Completes the folder and returns its manifest. `rest` is what else the manifest holds."""
        key = [self._hashes, rest["tokenizer_sha256"], rest["eval_limit"]]
        fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        manifest = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "domains": self._domains,
            "sha256": self._hashes,
            **rest,
        }
        (self._tmp / _MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        for path in self._tmp.iterdir():
            with path.open("rb") as f:
                os.fsync(f.fileno())
        if self._folder.exists() and read_manifest(self._folder) is None:
            shutil.rmtree(self._folder)  # damaged by hand: we never leave a folder without manifest
        try:
            self._tmp.rename(self._folder)
        except OSError:
            # Another process finished the same corpus first: same key, same content.
            if read_manifest(self._folder) is None:
                raise
        return manifest

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        shutil.rmtree(self._tmp, ignore_errors=True)
        if isinstance(e, OSError):
            raise BadInput(
                f"cache_dir = {str(self._folder.parent)!r}: saving the corpus failed ({e});"
                " make room or give another"
            ) from e
