"""Which samples are kept, and which are held out: exact de-duplication, then the draw.

A sample is known by 64 bits drawn from its text and the seed (`window.uniform64`), which are also
its place in the order of the draw. Copies share them, so copies fall together; that two
different samples of 10^9 do, and one is lost, has a probability of 3%.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autoscale_jax.specs import BadInput

_AT_ONCE = 50_000_000
Bits = Callable[[], np.ndarray]


class Split(NamedTuple):
    """One domain: of each unit, which samples are kept; those below `threshold` are held out."""

    keep: list[np.ndarray]
    threshold: int
    train: int
    held_out: int

    def digest(self) -> str:
        """Changes with any sample's fate."""
        sha = hashlib.sha256(str(self.threshold).encode())
        for keep in self.keep:
            sha.update(len(keep).to_bytes(8, "little") + np.packbits(keep).tobytes())
        return sha.hexdigest()


def split(
    samples: Mapping[str, Sequence[Bits]], held_out: float, at_once: int = _AT_ONCE
) -> dict[str, Split]:
    """Splits samples, given by domain and unit as functions that read uint64 arrays.

    A sample stays where it comes first, by domain in sorted order, then by unit. `held_out` below 1
    is a share of each domain's samples, otherwise their number; those with the lowest bits are
    taken, so that adding documents moves few others. Works through the range of the bits in
    parts of some `at_once` samples, so that memory holds these and a byte for each sample.
    Raises `BadInput` for a domain of which too little remains.
    """
    names = sorted(samples)
    keep = {name: [np.zeros(len(read()), bool) for read in samples[name]] for name in names}
    total = sum(len(unit) for name in names for unit in keep[name])
    parts = max(1, -(-total // at_once))
    lowest: dict[str, list[np.ndarray]] = {name: [] for name in names}
    kept = dict.fromkeys(names, 0)
    below = dict.fromkeys(names, 0)
    for p in range(parts):
        low, high = p * 2**64 // parts, (p + 1) * 2**64 // parts - 1
        wanting = {name for name in names if sum(map(len, lowest[name])) <= held_out or p == 0}
        for name, k, where, u in _first_ones(samples, names, low, high):
            keep[name][k][where] = True
            kept[name] += len(where)
            below[name] += int((u < _cut(held_out)).sum()) if held_out < 1 else 0
            if name in wanting:  # all units of a part, or none
                lowest[name].append(u)
    return {
        name: _drawn(name, keep[name], kept[name], below[name], lowest[name], held_out)
        for name in names
    }


def _cut(share: float) -> np.uint64:
    return np.uint64(min(int(share * 2**64), 2**64 - 1))


def _first_ones(
    samples: Mapping[str, Sequence[Bits]], names: Sequence[str], low: int, high: int
) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Of each unit, (domain, unit, indices, bits) of samples in [low, high] seen nowhere before."""
    units = [(name, k) for name in names for k in range(len(samples[name]))]
    where, bits = [], []
    for name, k in units:
        u = samples[name][k]()
        inside = np.flatnonzero((u >= np.uint64(low)) & (u <= np.uint64(high)))
        where.append(inside)
        bits.append(u[inside])
    _, first = np.unique(np.concatenate([np.zeros(0, np.uint64), *bits]), return_index=True)
    is_first = np.zeros(sum(map(len, bits)), bool)
    is_first[first] = True
    start = 0
    for (name, k), inside, u in zip(units, where, bits, strict=True):
        mine = is_first[start : start + len(u)]
        start += len(u)
        yield name, k, inside[mine], u[mine]


def _drawn(
    name: str,
    keep: list[np.ndarray],
    kept: int,
    below: int,
    lowest: list[np.ndarray],
    held_out: float,
) -> Split:
    read = sum(len(k) for k in keep)
    need = 2 if held_out < 1 else int(held_out) + 1
    if kept < need:
        wanted = "one" if held_out < 1 else int(held_out)
        raise BadInput(
            f"domain {name!r}: {kept} distinct documents of {read} remain after removing those of"
            f" other domains; it needs {need} or more, {wanted} to hold out"
        )
    n = min(max(below, 1), kept - 1) if held_out < 1 else int(held_out)
    if held_out < 1 and n == below:
        threshold = int(_cut(held_out))
    else:
        bits = np.concatenate(lowest)
        if len(bits) <= n:  # a share so near 0 or 1 needs all of them
            raise BadInput(f"data.held_out = {held_out}: leaves domain {name!r} a side of nothing")
        threshold = int(np.partition(bits, n)[n])
    return Split(keep, threshold, kept - n, n)
