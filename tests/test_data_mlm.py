"""Masks: BERT's shares, nothing special hidden, the same wherever and whenever a row is read."""

import dataclasses

import numpy as np
import pytest
import tokenizers

from autoscale_jax.data import batches, eval_batches, mix, mlm, prepare, tokenize


def bert(words: int) -> tokenize.HFTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {w: i for i, w in enumerate([*special, *(f"w{i}" for i in range(words))])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.add_special_tokens(special)
    return tokenize.HFTokenizer(model.to_str())


def test_shares_of_what_is_hidden():
    masking = mlm.Masking.of(bert(995), seed=1)
    tokens = np.random.default_rng(0).integers(5, 1000, (2000, 300)).astype(np.int32)
    out = masking(tokens, np.ones(tokens.shape, np.float32), np.arange(2000))
    taken = out["weight"] == 1
    assert (taken.sum(1) == 45).all()  # 15% of 300
    assert (out["targets"] == tokens).all() and (out["inputs"] == tokens)[~taken].all()
    n = taken.sum()
    hidden = (out["inputs"] == 4)[taken].mean()
    kept = (out["inputs"] == tokens)[taken].mean()
    assert abs(hidden - 0.8) < 4 * (0.8 * 0.2 / n) ** 0.5
    assert abs(kept - (0.1 + 0.1 / 1000)) < 4 * (0.1 * 0.9 / n) ** 0.5
    random = out["inputs"][taken & (out["inputs"] != 4) & (out["inputs"] != tokens)]
    assert len(np.unique(random)) > 950  # over the whole vocabulary
    at = taken.mean(0)  # no place is preferred
    assert abs(at - 0.15).max() < 5 * (0.15 * 0.85 / 2000) ** 0.5


def test_special_tokens_and_padding_are_never_predicted():
    masking = mlm.Masking.of(bert(20), seed=0)
    tokens = np.tile(np.array([2, 7, 3, 2, 3, 0], np.int32), (50, 1))
    weight = np.ones(tokens.shape, np.float32)
    weight[:10] = 0
    out = masking(tokens, weight, np.arange(50))
    assert (out["weight"].sum(1) == [0] * 10 + [1] * 40).all()  # one at least where there is one
    assert (out["weight"][:, [0, 2, 3, 4, 5]] == 0).all()


def test_a_tokeniser_without_a_mask_gets_one():
    byte, word = tokenize.ByteTokenizer(), bert(20)
    assert (mlm.mask_id(byte), mlm.vocab_size(byte)) == (257, 258)
    assert (mlm.mask_id(word), mlm.vocab_size(word)) == (4, 25)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlm")
    rng = np.random.default_rng(0)
    for name in "ab":
        for i in range(60):
            text = " ".join(f"w{k}" for k in rng.integers(0, 500, 30))
            (folder / f"{name}{i:02}.txt").write_text(text)
    (folder / "tokenizer.json").write_text(bert(500).to_json())
    domains = {name: str(folder / f"{name}*.txt") for name in "ab"}
    data = {"source": "files", "domains": domains, "tokenizer": str(folder / "tokenizer.json")}
    return prepare(data, folder / "cache")


def test_documents_stand_between_cls_and_sep(corpus):
    stream = corpus.train_tokens["a"][:]
    assert stream[:2].tolist() == [3, 2] and stream[-1] == 3
    opens, closes = np.flatnonzero(stream == 2), np.flatnonzero(stream == 3)
    assert (closes[:-1] + 1 == opens).all() and (np.diff(closes) == 32).all()


def test_masks_follow_from_seed_and_row_alone(corpus):
    def run(seed=0, **hosts):
        return batches(corpus, {"a": 2000, "b": 1500}, 30, 8, seed, "mlm", **hosts)

    whole, again, other = run(), run(), run(seed=1)
    for i in (5, 0, 11):
        assert all((whole[i][k] == again[i][k]).all() for k in whole[i])
    halves = [run(host=h, hosts=2)[3] for h in (0, 1)]
    for k, array in whole[3].items():
        assert (np.concatenate([half[k] for half in halves]) == array).all()
    assert (whole[0]["weight"] != other[0]["weight"]).any()
    plain = batches(corpus, {"a": 2000, "b": 1500}, 30, 8, 0)
    assert (plain[4]["inputs"] == whole[4]["targets"]).all()  # the same sequences


def test_a_second_epoch_is_masked_anew(corpus):
    n = (len(corpus.train_tokens["a"]) - 1) // 30 * 30
    data = batches(corpus, {"a": 2 * n, "b": 0}, 30, 1, 0, "mlm")
    seen = {}
    differs = 0
    for batch in data:
        key = batch["targets"].tobytes()
        if key in seen:
            differs += (seen[key] != batch["weight"]).any()
        seen[key] = batch["weight"]
    assert len(seen) == n // 30 and differs > 0.9 * len(seen)


def test_held_out_masks_are_fixed(corpus):
    one, two = (eval_batches(corpus, 30, batch, "mlm")["a"] for batch in (4, 8))
    for key in one:
        flat = [part[key].reshape(-1, 30) for part in (one, two)]
        n = min(map(len, flat))
        assert (flat[0][:n] == flat[1][:n]).all()
    assert 0.1 < one["weight"].sum() / (len(corpus.eval_tokens["a"]) - 1) < 0.2


def test_objectives_are_known(corpus):
    with pytest.raises(ValueError, match="objective = 'clm': choose one of causal, mlm"):
        mix.batches(corpus, {"a": 300, "b": 0}, 30, 4, 0, "clm")


def test_the_vocabulary_of_a_model_has_room_for_the_mask(corpus):
    assert corpus.vocab_size_of("mlm") == corpus.vocab_size_of("causal") == corpus.vocab_size
    plain = dataclasses.replace(corpus, tokenizer=tokenize.ByteTokenizer())
    assert (plain.vocab_size_of("causal"), plain.vocab_size_of("mlm")) == (257, 258)
