"""Permutations of ranges of any size by random access: nothing is held in memory."""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_SALTS = np.array([r * _GOLDEN % 2**64 for r in range(1, 9)], np.uint64)  # one a round


def key_of(*parts: object) -> np.uint64:
    """A 64-bit key that is fixed by its parts, in every process."""
    text = "\0".join(map(str, parts)).encode()
    return np.uint64(int.from_bytes(hashlib.sha256(text).digest()[:8], "little"))


def mix64(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: a bijection of uint64, each bit of which depends on all bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index_N: np.ndarray, size_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
    """Where `index` goes in the permutation of range(size) that `key` draws, elementwise, int64.

    A Feistel network over Z_a x Z_b with a * b >= size (Black and Rogaway 2002): left and right
    halves are added to each other's hashes in turn; an image outside the range is sent through
    again, which happens to fewer than one in sqrt(size).
    """
    index_N, size_N = np.broadcast_arrays(np.asarray(index_N), np.asarray(size_N))
    size_N = size_N.astype(np.uint64)
    key_N = np.broadcast_to(np.asarray(key_N, np.uint64), size_N.shape)
    a_N = np.ceil(np.sqrt(size_N.astype(np.float64))).astype(np.uint64)
    a_N = np.maximum(a_N, np.uint64(1))
    b_N = (size_N + a_N - np.uint64(1)) // a_N
    out_N = _rounds(index_N.astype(np.uint64), a_N, b_N, key_N)
    outside = np.flatnonzero(out_N >= size_N)
    while len(outside):
        out_N[outside] = _rounds(out_N[outside], a_N[outside], b_N[outside], key_N[outside])
        outside = outside[out_N[outside] >= size_N[outside]]
    return out_N.astype(np.int64)


def _rounds(x_N: np.ndarray, a_N: np.ndarray, b_N: np.ndarray, key_N: np.ndarray) -> np.ndarray:
    right_N, left_N = np.divmod(x_N, a_N)
    for r, salt in enumerate(_SALTS):
        salt_N = key_N + salt
        if r % 2:
            right_N = (right_N + mix64(left_N ^ salt_N) % b_N) % b_N
        else:
            left_N = (left_N + mix64(right_N ^ salt_N) % a_N) % a_N
    return right_N * a_N + left_N
