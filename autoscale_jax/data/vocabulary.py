"""The tokeniser of a corpus: a given one, or a BPE trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from autoscale_jax.data import mlm, tokenize
from autoscale_jax.data.plan import Plan
from autoscale_jax.data.samples import Notes, samples
from autoscale_jax.data.split import Split
from autoscale_jax.data.window import pieces

_BPE_SAMPLE_CHARS = 1_500_000


def tokenizer_of(
    plan: Plan, found: Mapping[str, Sequence[Notes]], splits: Mapping[str, Split]
) -> tokenize.Tokenizer:
    """The given tokeniser, or a BPE of the training samples that come first in each domain."""
    if plan.tokenizer is not None:
        return plan.tokenizer
    sample: list[str] = []
    for name in sorted(splits):
        room = _BPE_SAMPLE_CHARS // len(splits)
        for text in _first_training_samples(plan, name, found[name], splits[name], room):
            for piece in pieces(text, plan.settings["max_document_bytes"]):
                if room > 0:
                    sample.append(piece[:room])
                    room -= len(piece)
    return tokenize.train_bpe(sample, plan.settings["vocab_size"])


def most_tokens(settings: Mapping[str, Any], objective: str) -> int:
    """Ids that a model under `objective` may see, as far as is known before there is a corpus.

    A BPE that is to be trained may turn out smaller, where the text is short. Raises `BadInput`.
    """
    if settings["tokenizer"] == "bpe":
        return settings["vocab_size"] + (objective == "mlm")  # one more, to hide tokens with
    known = tokenize.ByteTokenizer() if settings["tokenizer"] == "bytes" else None
    tokenizer = known or tokenize.load(settings["tokenizer"])
    return mlm.vocab_size(tokenizer) if objective == "mlm" else tokenizer.vocab_size


def _first_training_samples(
    plan: Plan, name: str, found: Sequence[Notes], of_domain: Split, room: int
) -> Iterator[str]:
    """Training samples in the order of their bits, with `room` characters or more if there are."""
    bits, unit, index, chars = [], [], [], []
    for k, (notes, keep) in enumerate(zip(found, of_domain.keep, strict=True)):
        bits_N = notes.bits_N()
        use = np.flatnonzero(keep & (bits_N >= np.uint64(of_domain.threshold)))
        use = use[np.argsort(bits_N[use])[:room]]  # a sample has a character or more
        bits.append(bits_N[use])
        unit.append(np.full(len(use), k))
        index.append(notes.index_N()[use])
        chars.append(notes.chars_N()[use])
    first_N = np.argsort(np.concatenate(bits))
    n = int(np.searchsorted(np.cumsum(np.concatenate(chars)[first_N]), room)) + 1
    unit_n, index_n = (np.concatenate(x)[first_N[:n]] for x in (unit, index))
    texts: dict[tuple[int, int], str] = {}
    for k in np.unique(unit_n).tolist():
        mine = np.sort(index_n[unit_n == k])
        read = samples(plan.units[name][k], plan.rules[name], mine)
        texts |= {(k, i): text for i, text in zip(mine.tolist(), read, strict=True)}
    for at in zip(unit_n.tolist(), index_n.tolist(), strict=True):
        yield texts[at]
