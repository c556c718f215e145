"""Documents that are held out in a domain and trained on, there or in another one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from autoscale_jax.data import manifest
from autoscale_jax.data.encode import ends_file
from autoscale_jax.data.store import REMEDY, Shard, read_shard
from autoscale_jax.specs import BadInput


class Leaks(NamedTuple):
    """Of one domain: documents on each side, and those trained on that are held out somewhere."""

    name: str
    train: int
    held_out: int
    both: int
    first: str  # the domain that holds the first of these out


def leaks(folders: Mapping[str, str]) -> Iterator[Leaks]:
    """Domain by domain, from the folders of all. Reads every token once, from its shards.

    Documents are the same when their tokens are, by 128 bits of a hash. Raises `BadInput` for a
    damaged shard.
    """
    held_out = {name: set(_documents(folder, "eval")) for name, folder in folders.items()}
    owner = {digest: name for name, some in held_out.items() for digest in some}
    for name, folder in folders.items():
        train, both = 0, list[bytes]()
        for digest in _documents(folder, "train"):
            train += 1
            if digest in owner:
                both.append(digest)
        first = owner[both[0]] if both else ""
        yield Leaks(name, train, len(held_out[name]), len(both), first)


def _documents(folder: str, side: str) -> Iterator[bytes]:
    """Hashes of the documents of one side of a domain."""
    content: Mapping[str, Any] = manifest.read(folder) or {}
    dtype = np.dtype(content["dtype"])
    for k, shard in enumerate(Shard(**s) for s in content[side]["shards"]):
        path = epath.Path(folder) / ends_file(shard)
        try:
            with path.open("rb") as file:
                ends = np.load(file).tolist()
        except (OSError, ValueError) as e:
            raise BadInput(f"{path}: cannot be read ({e}); {REMEDY}") from e
        # the EOS that opens the stream belongs to no document
        yield from _cut(read_shard(folder, shard, dtype), ends, int(k == 0))


def _cut(parts: Iterable[np.ndarray], ends: list[int], start: int) -> Iterator[bytes]:
    """Hashes of the stretches of a stream from `start` on that end at `ends`."""
    at, n, sha = 0, 0, hashlib.blake2b(digest_size=16)
    for part in parts:
        while n < len(ends) and ends[n] <= at + len(part):
            sha.update(part[max(start - at, 0) : ends[n] - at].tobytes())
            yield sha.digest()
            start, n, sha = ends[n], n + 1, hashlib.blake2b(digest_size=16)
        sha.update(part[max(start - at, 0) :].tobytes())
        at += len(part)
