"""Which part of a document becomes the sample that is trained on."""

from __future__ import annotations

import hashlib

WINDOWS = ("first", "random")


def window(text: str, chars: int, mode: str, seed: int) -> str:
    """At most `chars` characters of `text`: the first ones, or a random block (0: all of it).

    Where a random block begins follows from the seed and the document itself, so that copies of a
    document give the same sample wherever they stand.
    """
    if not chars or len(text) <= chars:
        return text
    if mode == "first":
        return text[:chars]
    start = uniform64(text, f"window {seed}") % (len(text) - chars + 1)
    return text[start : start + chars]


def uniform64(text: str, key: str | int) -> int:
    """64 bits fixed by a text and a key: equal texts, and in practice only they, share them."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    salted = hashlib.blake2b(digest, key=str(key).encode(), digest_size=8).digest()
    return int.from_bytes(salted, "big")


def pieces(document: str, max_bytes: int) -> list[str]:
    """The document in pieces of at most `max_bytes` bytes of UTF-8, cut at a line end if it can."""
    if not max_bytes or len(document) * 4 <= max_bytes or len(document.encode()) <= max_bytes:
        return [document]
    parts, rest = [], document.encode()
    while len(rest) > max_bytes:
        cut = rest.rfind(b"\n", max_bytes // 2, max_bytes) + 1 or max_bytes
        while rest[cut] & 0xC0 == 0x80:  # inside a character
            cut -= 1
        parts.append(rest[:cut].decode())
        rest = rest[cut:]
    return [*parts, rest.decode()]
