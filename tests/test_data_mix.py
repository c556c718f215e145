"""Quotas, the global order of sequences, and batches: exact, even, nested, resumable."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax.data import mix
from autoscale_jax.data.corpus import Corpus
from autoscale_jax.data.tokenize import ByteTokenizer
from autoscale_jax.specs import BadInput, Domain

counts = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 3000))
mixtures = st.lists(counts, min_size=2, max_size=8).filter(any)


def named(values: list[int]) -> dict[str, int]:
    return {f"d{k}": n for k, n in enumerate(values)}


def corpus(lengths: dict[str, int], eval_length: int = 100, eval_limit: int = 0) -> Corpus:
    """Domains of ascending token ids, each starting at its own thousand."""
    return Corpus(
        domains=tuple(Domain(n, k - 1, eval_length - 1, 9, 1) for n, k in lengths.items()),
        train_tokens={n: np.arange(k, dtype=np.uint32) for n, k in lengths.items()},
        eval_tokens={n: np.arange(eval_length, dtype=np.uint16) for n in lengths},
        eval_limit=eval_limit,
        tokenizer=ByteTokenizer(),
        fingerprint="",
        warnings=(),
    )


@given(mixtures, st.integers(1, 300))
def test_quota_is_right_to_within_one_sequence(values, seq_len):
    tokens = named(values)
    if 2 * sum(values) < seq_len:
        with pytest.raises(BadInput, match="less than one sequence"):
            mix.quota(tokens, seq_len)
        return
    sequences = mix.quota(tokens, seq_len)
    for name, n in tokens.items():
        assert abs(sequences[name] - n / seq_len) < 1
        assert n or not sequences[name]
    assert abs(sum(sequences.values()) - sum(values) / seq_len) < 1


@given(mixtures)
@settings(deadline=None)
def test_every_prefix_is_the_mixture_to_within_two_sequences(values):
    sequences = named(values)
    total = sum(values)
    domain_N, rank_N = mix.interleave(sequences, np.arange(total))
    prefix = np.arange(1, total + 1)
    for k, n in enumerate(values):
        so_far = np.cumsum(domain_N == k)
        assert np.abs(so_far - prefix * n / total).max() < 2
        assert rank_N[domain_N == k].tolist() == list(range(n))


@given(mixtures, st.data())
@settings(deadline=None)
def test_positions_are_read_in_any_order(values, data):
    sequences = named(values)
    some = np.array(data.draw(st.lists(st.integers(0, sum(values) - 1), max_size=20)), np.int64)
    whole = mix.interleave(sequences, np.arange(sum(values)))
    for part, everything in zip(mix.interleave(sequences, some), whole, strict=True):
        assert part.tolist() == everything[some].tolist()


def test_more_of_one_domain_leaves_the_others_alone():
    available = {"a": 50, "b": 80, "c": 30}
    base = {"a": 20, "b": 20, "c": 20}
    domain, index = mix.order(base, available, seed=3)
    domain3, index3 = mix.order({**base, "b": 60}, available, seed=3)
    for k in (0, 2):
        assert index[domain == k].tolist() == index3[domain3 == k].tolist()
    assert index[domain == 1].tolist() == index3[domain3 == 1][:20].tolist()
    other_domains = mix.order({"b": 20, "x": 5}, {"b": 80, "x": 9}, seed=3)
    assert index[domain == 1].tolist() == other_domains[1][other_domains[0] == 0].tolist()
    assert index.tolist() != mix.order(base, available, seed=4)[1].tolist()


def test_an_epoch_has_no_repeats_and_the_next_one_is_shuffled_anew():
    domain, index = mix.order({"a": 25, "b": 3}, {"a": 10, "b": 10}, seed=0)
    visits = index[domain == 0].tolist()
    assert sorted(visits[:10]) == sorted(visits[10:20]) == list(range(10))
    assert visits[:10] != visits[10:20]
    assert len(set(visits[20:])) == 5


def test_batches_hold_exactly_the_quota_and_pad_the_last():
    data = corpus({"a": 1001, "b": 501})
    tokens = {"a": 330, "b": 140}
    batches = mix.batches(data, tokens, seq_len=10, batch_size=4, seed=0)
    assert len(batches) == 12  # 47 sequences
    rows = []
    for i in range(len(batches)):
        batch = batches[i]
        assert all(part.shape == (4, 10) for part in batch.values())
        assert batch["inputs"].dtype == batch["targets"].dtype == np.int32
        assert batch["weight"].dtype == np.float32
        real = batch["weight"].all(1)
        assert not batch["inputs"][~real].any() and not batch["weight"][~real].any()
        assert (batch["targets"][real] == batch["inputs"][real] + 1).all()
        rows += batch["inputs"][real].tolist()
    assert len(rows) == 47
    assert all(row == list(range(row[0], row[0] + 10)) for row in rows)
    domain, index = mix.order(mix.quota(tokens, 10), mix.supply(data, 10), 0)
    assert [row[0] for row in rows] == (index * 10).tolist()
    trained, epochs = mix.realised(data, tokens, 10)
    assert trained == {"a": 330, "b": 140}
    assert epochs == {"a": pytest.approx(0.33), "b": pytest.approx(0.28)}
    assert {k: int((domain == k).sum()) * 10 for k in (0, 1)} == {0: 330, 1: 140}


def test_resuming_is_indexing():
    def run():
        return mix.batches(corpus({"a": 1001, "b": 501}), {"a": 500, "b": 700}, 10, 4, seed=1)

    whole = [batch["inputs"] for batch in run()]
    again = run()
    for i in (29, 7, 0, 15):
        assert (again[i]["inputs"] == whole[i]).all()
    rest = [batch["inputs"] for batch in run()[20:]]
    assert len(rest) == len(whole) - 20 and (np.stack(rest) == np.stack(whole[20:])).all()


def test_the_selection_travels_to_worker_processes():
    domain, index = mix.order({"a": 5, "b": 3}, {"a": 10, "b": 10}, seed=0)
    copy = pickle.loads(pickle.dumps(mix.Selection(domain, index)))
    assert [copy[i] for i in range(len(copy))] == list(zip(domain, index, strict=True))


def test_a_domain_of_zero_tokens_takes_no_part():
    batches = mix.batches(corpus({"a": 101, "b": 3}), {"a": 50, "b": 0}, 10, 4, seed=0)
    assert sum(b["weight"].sum() for b in batches) == 50
    mix.check_supply(corpus({"a": 101, "b": 3}), {"a": 50, "b": 0}, 10, max_epochs=1)
    assert mix.realised(corpus({"a": 101, "b": 3}), {"a": 50, "b": 0}, 10)[1]["b"] == 0


@pytest.mark.parametrize(
    ("tokens", "max_epochs", "message"),
    [
        ({"a": 1500, "b": 10}, 1.0, r"tokens\['a'\] = 1500.*1000 unique.*max_epochs to 1.5"),
        ({"a": 3100, "b": 10}, 3.0, r"3.10 epochs and max_epochs = 3; raise max_epochs to 3.1"),
        ({"a": 10, "c": 10}, 1.0, r"tokens\['c'\] = 10.*fill no sequence of seq_len = 10"),
        ({"a": 10, "typo": 10}, 1.0, r"'typo' is not in the corpus: it has \['a', 'b', 'c'\]"),
    ],
)
def test_too_little_data_is_refused_before_training(tokens, max_epochs, message):
    with pytest.raises(BadInput, match=message) as e:
        mix.check_supply(corpus({"a": 1001, "b": 501, "c": 5}), tokens, 10, max_epochs)
    assert "\n" not in str(e.value)


def test_supply_may_be_used_up_to_the_last_token():
    data = corpus({"a": 1006, "b": 501})
    mix.check_supply(data, {"a": 1005, "b": 500}, 10, max_epochs=1)
    mix.check_supply(data, {"a": 3000, "b": 500}, 10, max_epochs=3)


@pytest.mark.parametrize(
    ("tokens", "seq_len", "batch_size", "message"),
    [
        ({"a": 100, "b": 10}, 0, 4, "seq_len = 0"),
        ({"a": 100, "b": 10}, 10, 0, "batch_size = 0"),
        ({"a": 2, "b": 1}, 10, 4, "less than one sequence"),
        ({"a": 2000, "b": 1000}, 1000, 4, r"tokens\['b'\]: 1 sequences asked and the domain fills"),
    ],
)
def test_batches_that_cannot_be_are_refused(tokens, seq_len, batch_size, message):
    with pytest.raises(BadInput, match=message):
        mix.batches(corpus({"a": 1001, "b": 501}), tokens, seq_len, batch_size, seed=0)


@pytest.mark.parametrize(("length", "batch_size"), [(100, 4), (101, 4), (91, 3), (6, 4), (2, 1)])
def test_evaluation_weighs_every_held_out_token_once(length, batch_size):
    out = mix.eval_batches(corpus({"a": 50, "b": 50}, length), 10, batch_size)
    for part in out.values():
        weight = part["weight"]
        assert all(array.shape[1:] == (batch_size, 10) for array in part.values())
        assert part["inputs"].dtype == np.int32 and weight.dtype == np.float32
        targets = part["targets"][weight == 1]
        assert targets.tolist() == list(range(1, length))
        assert (weight == 1).sum() + (weight == 0).sum() == weight.size


def test_a_limit_on_evaluation_spreads_over_the_held_out_documents():
    out = mix.eval_batches(corpus({"a": 50, "b": 50}, 1001, eval_limit=55), 10, 4)["a"]
    assert out["weight"].sum() == 60
    starts = out["inputs"].reshape(-1, 10)[:6, 0]
    assert starts.tolist() == [0, 160, 330, 500, 660, 830]
