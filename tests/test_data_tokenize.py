"""Tokenisers: reversible, repeatable, and the fast path agrees with the library."""

from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from autoscale_jax.data import tokenize
from autoscale_jax.specs import BadInput

TEXTS = ["The cat sat on the mat.\n\n  It's 42 o'clock, isn't it?\t", "def f(x_1):\r\n    return x"]
BPE = tokenize.train_bpe([t for t in TEXTS for _ in range(50)], 300)
REFERENCE = tokenizers.Tokenizer.from_str(BPE.to_json())
REFERENCE.encode_special_tokens = True
GPT2 = Path(__file__).parents[2] / "shared/data/tokenizers/gpt2"


@given(st.one_of(st.text(max_size=60), st.text("ab12 \n\t'sre_.\x0b\x1c\x85", max_size=60)))
def test_round_trip_and_agreement_with_the_library(text):
    for tokenizer in (tokenize.ByteTokenizer(), BPE):
        (ids,) = tokenizer.encode_batch([text])
        assert ids.dtype == np.int32
        assert (ids < tokenizer.vocab_size).all() and tokenizer.eos_id not in ids
        assert tokenizer.decode(ids) == text
    assert BPE.encode_batch([text])[0].tolist() == REFERENCE.encode(text).ids


def test_a_document_that_spells_the_end_of_text_does_not_end():
    (ids,) = BPE.encode_batch(["a<|endoftext|>b"])
    assert BPE.eos_id not in ids and BPE.decode(ids) == "a<|endoftext|>b"
    assert BPE.decode([BPE.eos_id]) == "<|endoftext|>"
    assert tokenize.ByteTokenizer().decode([97, 256, 98]) == "a<|endoftext|>b"


def test_training_is_repeatable_and_the_hash_tells_tokenisers_apart():
    again = tokenize.train_bpe([t for t in TEXTS for _ in range(50)], 300)
    smaller = tokenize.train_bpe(TEXTS, 280)
    assert again.sha256 == BPE.sha256 and again.to_json() == BPE.to_json()
    assert len({BPE.sha256, smaller.sha256, tokenize.ByteTokenizer().sha256}) == 3
    assert BPE.vocab_size == 300 and smaller.vocab_size == 280


@pytest.mark.parametrize("tokenizer", [tokenize.ByteTokenizer(), BPE])
def test_json_holds_the_whole_tokeniser(tokenizer):
    copy = tokenize.from_json(tokenizer.to_json())
    assert (copy.sha256, copy.vocab_size) == (tokenizer.sha256, tokenizer.vocab_size)
    assert copy.encode_batch(TEXTS)[0].tolist() == tokenizer.encode_batch(TEXTS)[0].tolist()


def test_cached_words_are_dropped_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(tokenize, "_MOST_CACHED_WORDS", 3)
    tokenizer = tokenize.from_json(BPE.to_json())
    for _ in range(3):
        assert tokenizer.encode_batch(TEXTS)[1].tolist() == BPE.encode_batch(TEXTS)[1].tolist()


@pytest.mark.skipif(not GPT2.is_dir(), reason="no GPT-2 tokenizer.json beside the project")
def test_gpt2():
    tokenizer = tokenize.load(GPT2)
    assert (tokenizer.vocab_size, tokenizer.eos_id) == (50257, 50256)
    assert tokenizer.encode_batch(["Hello world"])[0].tolist() == [15496, 995]
    reference = tokenizers.Tokenizer.from_file(str(GPT2 / "tokenizer.json"))
    text = Path(__file__).read_text("utf-8").replace("<|endoftext|>", "") + "naïve 数"
    assert tokenizer.encode_batch([text])[0].tolist() == reference.encode(text).ids
    assert tokenizer.sha256 == tokenize.load(GPT2 / "tokenizer.json").sha256


def test_bad_tokenisers_are_named(tmp_path):
    with pytest.raises(BadInput, match="no such file; give 'bytes', 'bpe' or a path"):
        tokenize.load(tmp_path / "missing.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"tokenizer = .*tokenizer.json.*not a Hugging Face"):
        tokenize.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match=r"not a tokenizer.json"):
        tokenize.load(tmp_path)
    tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])).save(str(tmp_path / "no_eos.json"))
    with pytest.raises(BadInput, match=r"no end-of-text token; add one of <\|endoftext\|>"):
        tokenize.load(tmp_path / "no_eos.json")
    with pytest.raises(BadInput, match="vocab_size = 256: a byte-level BPE needs 257"):
        tokenize.train_bpe(TEXTS, 256)
