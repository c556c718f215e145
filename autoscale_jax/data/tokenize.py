"""Tokenisers: bytes, a BPE trained on the corpus, or a Hugging Face tokenizer.json."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import tokenizers
from etils import epath

from autoscale_jax.data.sources import files
from autoscale_jax.specs import BadInput

END_OF_TEXT = "<|endoftext|>"
_EOS_NAMES = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")
_MASK_NAMES = ("[MASK]", "<mask>")
_MOST_CACHED_WORDS = 500_000


class Tokenizer(Protocol):
    """Text to token ids and back. `sha256` identifies it: same hash, same ids.

    `special_ids` are the ids that stand for no text, EOS among them; `mask_id` is the one that
    hides a token in masked language modelling, None where the tokeniser has none.
    """

    vocab_size: int
    eos_id: int
    mask_id: int | None
    special_ids: tuple[int, ...]
    sha256: str

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One int32 array of ids per text, without EOS."""

    def framed(self, ids: np.ndarray) -> np.ndarray:
        """The ids of a document as it stands in a token stream: EOS behind, [CLS] in front."""

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ids; EOS reads as <|endoftext|>."""

    def to_json(self) -> str:
        """All there is to it, as JSON text that `from_json` reads."""


class ByteTokenizer:
    """UTF-8 bytes are ids 0-255; EOS is 256."""

    vocab_size = 257
    eos_id = 256
    mask_id: int | None = None
    special_ids: tuple[int, ...] = (256,)
    sha256 = hashlib.sha256(b"bytes").hexdigest()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(t.encode(), np.uint8).astype(np.int32) for t in texts]

    def framed(self, ids: np.ndarray) -> np.ndarray:
        return np.append(ids, np.int32(self.eos_id))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        pieces = (END_OF_TEXT.encode() if i == self.eos_id else bytes([i]) for i in map(int, ids))
        return b"".join(pieces).decode("utf-8", errors="replace")

    def to_json(self) -> str:
        return json.dumps({"bytes": True})


class HFTokenizer:
    """A Hugging Face tokeniser from the text of its tokenizer.json."""

    def __init__(self, text: str, where: str = "tokenizer") -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as e:  # the library raises bare Exception for anything it cannot read
            raise BadInput(f"{where}: not a Hugging Face tokenizer.json ({e})") from e
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # A document that happens to spell <|endoftext|> must not end there.
        self._tokenizer.encode_special_tokens = True
        ids = [self._tokenizer.token_to_id(name) for name in _EOS_NAMES]
        eos = next((i for i in ids if i is not None), None)
        if eos is None:
            raise BadInput(f"{where}: no end-of-text token; add one of {', '.join(_EOS_NAMES)}")
        self.eos_id = eos
        self._opening = [i for i in [self._tokenizer.token_to_id("[CLS]")] if i is not None]
        masks = (self._tokenizer.token_to_id(name) for name in _MASK_NAMES)
        self.mask_id = next((i for i in masks if i is not None), None)
        added = self._tokenizer.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special}
        self.special_ids = tuple(sorted(special | {eos}))
        self.vocab_size = max(self._tokenizer.get_vocab().values()) + 1
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._text = text
        self._splits_like_gpt2 = _splits_like_gpt2(json.loads(text))
        self._words = _Words(self._tokenizer)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(t) for t in texts]

    def framed(self, ids: np.ndarray) -> np.ndarray:
        return np.concatenate([self._opening, ids, [self.eos_id]]).astype(np.int32)

    def _encode(self, text: str) -> np.ndarray:
        if self._splits_like_gpt2 and text.isascii():
            # A BPE never merges across words, so known words need no second look: 3x faster.
            if len(self._words) > _MOST_CACHED_WORDS:
                self._words.clear()
            words = map(self._words.__getitem__, _GPT2_WORDS_ASCII.findall(text))
            return np.fromiter(chain.from_iterable(words), np.int32)
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

    def to_json(self) -> str:
        return self._text


# GPT-2's split into words. On ASCII text the standard library's regular expressions agree with it.
_GPT2_WORDS_ASCII = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[a-zA-Z]+| ?[0-9]+| ?[^\sa-zA-Z0-9]+|\s+(?!\S)|\s+", re.ASCII
)


def _splits_like_gpt2(settings: dict) -> bool:
    split = settings.get("pre_tokenizer") or {}
    plain = split.get("type") == "ByteLevel" and not split.get("add_prefix_space")
    added = all(t.get("special") for t in settings.get("added_tokens", ()))
    return plain and split.get("use_regex", True) and not settings.get("normalizer") and added


class _Words(dict):
    """Ids of each word, encoded at first sight."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, word: str) -> list[int]:
        ids = self[word] = self._tokenizer.encode(word, add_special_tokens=False).ids
        return ids


def train_bpe(texts: Iterable[str], vocab_size: int) -> HFTokenizer:
    """A byte-level BPE of at most `vocab_size` ids (256 bytes and EOS included) from `texts`."""
    if vocab_size < 257:
        raise BadInput(f"vocab_size = {vocab_size}: a byte-level BPE needs 257 or more")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = byte_level
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(byte_level.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return HFTokenizer(bpe.to_str(), "trained BPE")


def load(path: str | Path) -> HFTokenizer:
    """The tokeniser in a tokenizer.json, or in the folder that holds one, here or remote."""
    with files.reachable(str(path), f"tokenizer = {str(path)!r}"):
        file = epath.Path(path).expanduser()
        file = file / "tokenizer.json" if file.is_dir() else file
        there = file.is_file()
    if not there:
        raise BadInput(f"tokenizer = {str(path)!r}: no such file; give 'bytes', 'bpe' or a path")
    try:
        text = files.read_text(str(file))
    except UnicodeDecodeError as e:
        raise BadInput(f"tokenizer = {str(file)!r}: not a tokenizer.json ({e})") from e
    return HFTokenizer(text, f"tokenizer = {str(file)!r}")


def from_json(text: str) -> Tokenizer:
    """The tokeniser whose `to_json` gave `text`."""
    return ByteTokenizer() if json.loads(text) == {"bytes": True} else HFTokenizer(text)
