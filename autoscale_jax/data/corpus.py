"""From documents by domain to token arrays on disk: de-duplicated, split, tokenised, cached."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autoscale_jax.data import embedded, sources, store, tokenize
from autoscale_jax.specs import BadInput, Domain

DEFAULTS: dict[str, Any] = {
    "source": "embedded",
    "domains": embedded.DEFAULT,
    "tokenizer": "bpe",
    "vocab_size": 1024,
    "held_out": 0.1,
    "eval_tokens": 0,
    "max_document_bytes": 8192,
    "on_bad_line": "refuse",
    "max_train_tokens": 0,
    "seed": 0,
}
_BPE_SAMPLE_BYTES = 1_500_000
_FEW_HELD_OUT = 30


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Token arrays of each domain, training and held out: EOS document EOS document ... EOS.

    The arrays are memory-mapped uint16 or uint32. Every token but the first is predicted once, so
    a domain has `len(array) - 1` tokens. `eval_limit` caps the held-out tokens that one evaluation
    reads from each domain (0 = all). Equal fingerprints mean equal numbers from training.
    """

    domains: tuple[Domain, ...]
    train_tokens: Mapping[str, np.ndarray]
    eval_tokens: Mapping[str, np.ndarray]
    eval_limit: int
    tokenizer: tokenize.Tokenizer
    fingerprint: str
    warnings: tuple[str, ...]

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def summary(self) -> str:
        """A table of the domains, one line each, then the warnings."""
        head = f"{'domain':<14}{'documents':>10}{'held out':>10}{'tokens':>13}{'held out':>11}"
        rows = [
            f"{d.name:<14}{d.train_documents:>10,}{d.eval_documents:>10,}"
            f"{d.train_tokens:>13,}{d.eval_tokens:>11,}"
            for d in self.domains
        ]
        return "\n".join([head, *rows, *(f"warning: {w}" for w in self.warnings)])


def prepare(data_config: Mapping[str, Any], cache_dir: str | Path) -> Corpus:
    """The corpus that `data_config` (see `DEFAULTS`) describes, from `cache_dir` if it is there.

    The cache key covers the settings and the identity of every input, so a changed file or setting
    is prepared anew. Raises `BadInput` for unusable settings, files or domains.
    """
    settings = _settings(data_config)
    documents = _FROM[settings["source"]](settings)
    identity = {
        "settings": settings,
        "inputs": documents.identity,
        "tokenizer": _tokenizer_identity(settings["tokenizer"]),
    }
    folder = store.folder(cache_dir, identity)
    manifest = store.read_manifest(folder)
    if manifest is None:
        manifest = _build(settings, documents, folder)
    return _open(folder, manifest)


def _settings(data_config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain, checked settings: defaults filled in, tuples as lists, so that they hash alike."""
    given = json.loads(json.dumps({k: _plain(data_config[k]) for k in data_config}))
    for key in given:
        if key not in DEFAULTS:
            near = difflib.get_close_matches(key, DEFAULTS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DEFAULTS)}"
            raise BadInput(f"data.{key}: no such setting; {hint}")
    settings = {**json.loads(json.dumps(DEFAULTS)), **given}
    _check_choice(settings, "source", tuple(_FROM))
    _check_choice(settings, "on_bad_line", ("refuse", "skip"))
    if not 0 < settings["held_out"] < 1:
        raise BadInput(f"data.held_out = {settings['held_out']}: give a fraction between 0 and 1")
    for key in ("eval_tokens", "max_document_bytes", "max_train_tokens"):
        if settings[key] < 0:
            raise BadInput(f"data.{key} = {settings[key]}: give 0 (no limit) or more")
    if 0 < (limit := settings["max_document_bytes"]) < 16:
        raise BadInput(f"data.max_document_bytes = {limit}: give 16 or more, or 0 for no limit")
    if not settings["domains"]:
        settings["domains"] = list(embedded.DEFAULT) if settings["source"] == "embedded" else {}
    if len(settings["domains"]) < 2:
        raise BadInput(f"data.domains = {settings['domains']}: a mixture needs two domains or more")
    return settings


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return dict(value) if isinstance(value, Mapping) else value


def _check_choice(settings: Mapping[str, Any], key: str, choices: Sequence[str]) -> None:
    if settings[key] not in choices:
        raise BadInput(f"data.{key} = {settings[key]!r}: choose one of {', '.join(choices)}")


class _Documents(NamedTuple):
    """Where text comes from: what identifies it, and how to read it by domain."""

    identity: Any
    read: Callable[[], tuple[dict[str, list[str]], list[str]]]  # and warnings


def _from_embedded(settings: Mapping[str, Any]) -> _Documents:
    names = settings["domains"]
    if isinstance(names, Mapping):
        raise BadInput(f"data.domains = {names}: source 'embedded' takes names; or set 'files'")
    if len(set(names)) < len(names):
        raise BadInput(f"data.domains = {names}: name each domain once")
    for name in names:
        if name not in embedded.BUILDERS:
            raise BadInput(f"data.domains: no {name!r}; there are {', '.join(embedded.BUILDERS)}")
    return _Documents(embedded.identity(), lambda: (embedded.embedded_documents(names), []))


def _from_files(settings: Mapping[str, Any]) -> _Documents:
    globs = settings["domains"]
    if not isinstance(globs, Mapping):
        raise BadInput(f"data.domains = {globs}: source 'files' takes name: glob pairs")
    files = sources.find(globs)
    return _Documents(
        sources.identity(files), lambda: sources.documents(files, settings["on_bad_line"])
    )


_FROM: dict[str, Callable[[Mapping[str, Any]], _Documents]] = {
    "embedded": _from_embedded,
    "files": _from_files,
}


class _Split(NamedTuple):
    """One domain's documents, each cut into pieces, in the order of their hashes."""

    train: list[list[str]]
    held_out: list[list[str]]


def _build(settings: Mapping[str, Any], documents: _Documents, folder: Path) -> dict[str, Any]:
    text, warnings = documents.read()
    splits = _split(text, settings)
    tokenizer = _tokenizer(settings, splits)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    if settings["tokenizer"] == "bpe" and tokenizer.vocab_size < settings["vocab_size"]:
        warnings.append(
            f"data.vocab_size = {settings['vocab_size']}: the text yields {tokenizer.vocab_size}"
        )
    with store.Writer(folder) as writer:
        writer.tokenizer(tokenizer.to_json())
        for name, split in sorted(splits.items()):
            limit = settings["max_train_tokens"]
            train, n_train = _encode(split.train, tokenizer, dtype, limit)
            held_out, n_eval = _encode(split.held_out, tokenizer, dtype, 0)
            domain = Domain(name, len(train) - 1, len(held_out) - 1, n_train, n_eval)
            writer.domain(dataclasses.asdict(domain), train, held_out)
            warnings += _domain_warnings(domain, len(split.train), limit)
        return writer.finish(
            {
                "tokenizer_sha256": tokenizer.sha256,
                "eval_limit": settings["eval_tokens"],
                "warnings": warnings,
            }
        )


def _domain_warnings(domain: Domain, documents: int, limit: int) -> list[str]:
    out = []
    if domain.eval_documents < _FEW_HELD_OUT:
        out.append(
            f"domain {domain.name!r}: its held-out loss rests on {domain.eval_documents} documents"
        )
    if domain.train_documents < documents:
        out.append(
            f"domain {domain.name!r}: data.max_train_tokens = {limit} keeps"
            f" {domain.train_documents} of {documents} training documents"
        )
    return out


def _split(text: Mapping[str, list[str]], settings: Mapping[str, Any]) -> dict[str, _Split]:
    """De-duplicates over everything and splits each domain by document hash."""
    seen: dict[bytes, str] = {}
    splits = {}
    for name in sorted(text):
        ranked = []
        for document in text[name]:
            document = document.strip()
            digest = hashlib.blake2b(document.encode(), digest_size=16).digest()
            if document and digest not in seen:
                seen[digest] = name
                ranked.append((_uniform(digest, settings["seed"]), document))
        if len(ranked) < 2:
            raise BadInput(
                f"domain {name!r}: {len(ranked)} distinct documents of {len(text[name])} remain"
                " after removing those of other domains; it needs 2 or more, one to hold out"
            )
        # Held-out documents are those of the lowest hashes, so adding documents moves no other.
        ranked.sort()
        n = sum(u < settings["held_out"] for u, _ in ranked)
        n = min(max(n, 1), len(ranked) - 1)
        pieces = [_pieces(document, settings["max_document_bytes"]) for _, document in ranked]
        splits[name] = _Split(train=pieces[n:], held_out=pieces[:n])
    return splits


def _uniform(digest: bytes, seed: int) -> float:
    """A number in [0, 1) fixed by a document and the seed."""
    salted = hashlib.blake2b(digest, key=str(seed).encode(), digest_size=8).digest()
    return int.from_bytes(salted, "big") / 2**64


def _pieces(document: str, max_bytes: int) -> list[str]:
    """The document in pieces of at most `max_bytes` bytes of UTF-8, cut at a line end if it can."""
    if not max_bytes or len(document) * 4 <= max_bytes or len(document.encode()) <= max_bytes:
        return [document]
    pieces, rest = [], document.encode()
    while len(rest) > max_bytes:
        cut = rest.rfind(b"\n", max_bytes // 2, max_bytes) + 1 or max_bytes
        while rest[cut] & 0xC0 == 0x80:  # inside a character
            cut -= 1
        pieces.append(rest[:cut].decode())
        rest = rest[cut:]
    return [*pieces, rest.decode()]


def _tokenizer(settings: Mapping[str, Any], splits: Mapping[str, _Split]) -> tokenize.Tokenizer:
    if settings["tokenizer"] == "bytes":
        return tokenize.ByteTokenizer()
    if settings["tokenizer"] != "bpe":
        return tokenize.load(settings["tokenizer"])
    sample = []
    for name in sorted(splits):
        room = _BPE_SAMPLE_BYTES // len(splits)
        for piece in (p for document in splits[name].train for p in document):
            if room <= 0:
                break
            sample.append(piece[:room])
            room -= len(piece)
    return tokenize.train_bpe(sample, settings["vocab_size"])


def _tokenizer_identity(tokenizer: str) -> str:
    return tokenizer if tokenizer in ("bytes", "bpe") else tokenize.load(tokenizer).sha256


def _encode(
    documents: Sequence[list[str]], tokenizer: tokenize.Tokenizer, dtype: np.dtype, limit: int
) -> tuple[np.ndarray, int]:
    """EOS piece EOS ... EOS of documents until `limit` tokens (0 = all), and their number."""
    eos = np.array([tokenizer.eos_id], dtype)
    arrays, total, used = [eos], 0, 0
    for pieces in documents:
        if limit and total >= limit:
            break
        for ids in tokenizer.encode_batch(pieces):
            arrays += [ids.astype(dtype), eos]
            total += len(ids) + 1
        used += 1
    tokens = np.concatenate(arrays)
    return (tokens[: limit + 1] if limit else tokens), used


def _open(folder: Path, manifest: Mapping[str, Any]) -> Corpus:
    domains = tuple(Domain(**d) for d in manifest["domains"])
    arrays = store.arrays(folder, manifest)
    return Corpus(
        domains=domains,
        train_tokens={d.name: train for d, (train, _) in zip(domains, arrays, strict=True)},
        eval_tokens={d.name: held_out for d, (_, held_out) in zip(domains, arrays, strict=True)},
        eval_limit=manifest["eval_limit"],
        tokenizer=tokenize.from_json((folder / store.TOKENIZER).read_text("utf-8")),
        fingerprint=manifest["fingerprint"],
        warnings=tuple(manifest["warnings"]),
    )
