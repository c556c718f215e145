"""Quotas, the global order of sequences, and batches: nested, resumable, over stages and hosts."""

import dataclasses
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autoscale_jax.data import mix, order, quotas
from autoscale_jax.data.corpus import Corpus
from autoscale_jax.data.interleave import Interleaving
from autoscale_jax.data.permute import permute
from autoscale_jax.data.tokenize import ByteTokenizer
from autoscale_jax.specs import BadInput, Domain

counts = st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 3000))


class Ramp:
    """Ascending token ids: what comes out says where it was."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def read(self, start: int, out: np.ndarray) -> None:
        assert start + len(out) <= self._n
        out[:] = np.arange(start, start + len(out))


def all_of(sequences: dict, available: dict, seed: int):
    whole = order.Order(quotas.interleavings(sequences, 1), available, seed)
    return whole.at(np.arange(len(whole)))


def corpus(lengths: dict[str, int], eval_length: int = 100, eval_limit: int = 0) -> Corpus:
    """Domains of ascending token ids, each starting at its own thousand."""
    return Corpus(
        domains=tuple(Domain(n, k - 1, eval_length - 1, 9, 1) for n, k in lengths.items()),
        train_tokens={n: Ramp(k) for n, k in lengths.items()},
        eval_tokens={n: Ramp(eval_length) for n in lengths},
        eval_limit=eval_limit,
        tokenizer=ByteTokenizer(),
        fingerprints={},
        warnings=(),
    )


def test_more_of_one_domain_leaves_the_others_alone():
    available = {"a": 50, "b": 80, "c": 30}
    base = {"a": 20, "b": 20, "c": 20}
    domain, index = all_of(base, available, seed=3)
    domain3, index3 = all_of({**base, "b": 60}, available, seed=3)
    for k in (0, 2):
        assert index[domain == k].tolist() == index3[domain3 == k].tolist()
    assert index[domain == 1].tolist() == index3[domain3 == 1][:20].tolist()
    other_domains = all_of({"b": 20, "x": 5}, {"b": 80, "x": 9}, seed=3)
    assert index[domain == 1].tolist() == other_domains[1][other_domains[0] == 0].tolist()
    assert index.tolist() != all_of(base, available, seed=4)[1].tolist()


def test_an_epoch_has_no_repeats_and_the_next_one_is_shuffled_anew():
    domain, index = all_of({"a": 25, "b": 3}, {"a": 10, "b": 10}, seed=0)
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
    domain, index = all_of(quotas.quota(tokens, 10), quotas.supply(data, 10), 0)
    assert [row[0] for row in rows] == (index * 10).tolist()
    trained, epochs = quotas.realised(data, tokens, 10)
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


def test_the_data_travel_to_worker_processes():
    batches = mix.batches(corpus({"a": 1001, "b": 501}), {"a": 500, "b": 700}, 10, 4, seed=1)
    copy = pickle.loads(pickle.dumps(batches))
    assert all((copy[i]["inputs"] == batches[i]["inputs"]).all() for i in range(len(batches)))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=50)
def test_a_permutation_of_any_size_visits_everything_once(size, key):
    out = permute(np.arange(size), size, np.uint64(key))
    assert np.array_equal(np.sort(out), np.arange(size))


def test_permutations_look_random():
    """Fixed points, neighbours that stay neighbours, and places of the first element."""
    keys = np.arange(2000).astype(np.uint64)
    out_KxN = np.stack([permute(np.arange(100), 100, key) for key in keys])
    fixed = (out_KxN == np.arange(100)).sum(1)
    assert abs(fixed.mean() - 1) < 0.12 and abs(fixed.var() - 1) < 0.2  # both 1, se .02 and .04
    follow = (np.diff(out_KxN, axis=1) == 1).sum(1).mean()
    assert abs(follow - 0.99) < 0.12
    for column in (0, 50, 99):
        counts = np.bincount(out_KxN[:, column], minlength=100)
        assert ((counts - 20) ** 2 / 20).sum() < 99 + 5 * (2 * 99) ** 0.5


def test_a_corpus_of_a_trillion_tokens_costs_no_memory():
    """1.2T tokens of seven domains: what is held does not grow with them."""
    shares = {"cc": 67, "c4": 15, "github": 4.5, "wiki": 4.5, "books": 4.5, "arxiv": 2.5, "se": 2}
    sequences = {name: int(share / 100 * 1.2e12 / 1024) for name, share in shares.items()}
    tracemalloc.start()
    run = order.Order([Interleaving.of(sequences)], sequences, seed=0)
    some = np.random.default_rng(0).integers(0, len(run), 4096)
    domain, index = run.at(some)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert len(run) > 1.1e9
    for k, name in enumerate(run.names):
        assert (index[domain == k] < sequences[name]).all()
        assert abs((domain == k).mean() - sequences[name] / len(run)) < 0.03


stages = st.lists(st.tuples(counts, counts, counts), min_size=1, max_size=4)


@given(stages, st.integers(1, 40), st.integers(0, 5))
@settings(max_examples=100)
def test_stages_continue_each_other_and_each_ends_on_what_was_asked_so_far(values, seq_len, seed):
    asked = [dict(zip("abc", stage, strict=True)) for stage in values]
    assume(all(sum(stage) >= 2 * seq_len for stage in values))
    available = {"a": 7, "b": 500, "c": 10_000}
    whole = order.Order(quotas.interleavings(asked, seq_len), available, seed)
    domain, index = whole.at(np.arange(len(whole)))
    for k, name in enumerate("abc"):
        so_far = np.concatenate([[0], np.cumsum(domain == k)])
        before = 0
        for s, (start, stop) in enumerate(itertools.pairwise(whole.starts)):
            here = asked[s][name] / seq_len
            assert abs(so_far[stop] - before - here) < 1
            assert here or so_far[start] == so_far[stop]
            done = np.arange(stop - start + 1) / (stop - start)
            assert np.abs(so_far[start : stop + 1] - before - done * here).max() < 3
            before += here
        assert quotas.quota(asked, seq_len)[name] == so_far[-1]
        visits, n = index[domain == k], available[name]
        for e in range(0, len(visits), n):
            assert len(set(visits[e : e + n])) == len(visits[e : e + n])
    total = quotas.quota(asked, seq_len)
    one = order.Order(quotas.interleavings(total, 1), available, seed)
    domain1, index1 = one.at(np.arange(len(one)))
    for k in range(3):  # stages do not change what a domain contributes, only when
        assert index1[domain1 == k].tolist() == index[domain == k].tolist()


def test_what_a_stage_cannot_give_the_next_one_does():
    """A third of a sequence in each of six stages is two sequences, not none."""
    stage = {"a": 3, "b": 40}
    found = [turns.sequences for turns in quotas.interleavings([stage] * 6, 9)]
    assert sum(sequences["a"] for sequences in found) == 2
    assert all(sum(sequences.values()) in (4, 5, 6) for sequences in found)
    absent = quotas.interleavings([{"a": 4, "b": 36}, {"a": 0, "b": 36}, {"a": 5, "b": 36}], 9)
    assert [turns.sequences["a"] for turns in absent] == [0, 0, 1]


@given(st.integers(1, 40), st.integers(0, 160), st.integers(0, 5))
@settings(max_examples=60)
def test_a_run_reads_its_pool_and_all_of_it(pool, asked, seed):
    available = {"a": 40, "b": 9}
    turns = [Interleaving.of({"a": asked, "b": 12})]
    run = order.Order(turns, available, seed, pool={"a": pool, "b": 9})
    free = order.Order(turns, available, seed)
    domain, index = run.at(np.arange(len(run)))
    assert domain.tolist() == free.at(np.arange(len(free)))[0].tolist()
    others = free.at(np.arange(len(free)))[1][domain == 1]
    assert index[domain == 1].tolist() == others.tolist()  # all of b is what no limit is
    visits = index[domain == 0].tolist()
    assert len(set(visits)) == min(pool, asked) and all(0 <= i < 40 for i in visits)
    epochs = [visits[e : e + pool] for e in range(0, asked, pool)]
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert all(set(epoch) <= set(visits[:pool]) for epoch in epochs)


def test_a_smaller_pool_is_part_of_a_larger_and_random():
    def pool_of(size, seed=0, **more):
        turns = [Interleaving.of({"a": size})]
        run = order.Order(turns, {"a": 1000}, seed, pool={"a": size} | more)
        return set(run.at(np.arange(size))[1].tolist())

    assert pool_of(30) < pool_of(100) < pool_of(999)
    assert len(pool_of(100) & pool_of(100, seed=1)) < 30  # 10 by chance
    assert 400 < np.mean(list(pool_of(300))) < 600


def test_batches_epochs_and_supply_of_a_pool():
    data, tokens, pool = corpus({"a": 1001, "b": 501}), {"a": 330, "b": 140}, {"a": 119}
    rows = {
        int(row[0])
        for batch in mix.batches(data, tokens, 10, 4, seed=0, pool=pool)
        for row in batch["inputs"][batch["weight"].all(1)]
    }
    free = {
        int(row[0])
        for batch in mix.batches(data, tokens, 10, 4, seed=0)
        for row in batch["inputs"][batch["weight"].all(1)]
    }
    assert len(rows) < len(free)
    assert quotas.supply(data, 10, pool) == {"a": 11, "b": 50}
    assert quotas.supply(data, 10, {"a": 10**6}) == {"a": 100, "b": 50}
    trained, epochs = quotas.realised(data, tokens, 10, pool)
    assert trained == tokens and epochs == {"a": 3.0, "b": 0.28}
    quotas.check_supply(data, tokens, 10, 3.0, pool)
    with pytest.raises(BadInput, match=r"the run's pool has 110 unique .* raise max_epochs to 3,"):
        quotas.check_supply(data, tokens, 10, 2.9, pool)
    with pytest.raises(BadInput, match=r"the run's pool has 9 unique tokens, which fill no"):
        quotas.check_supply(data, tokens, 10, 2.9, {"a": 9})
    with pytest.raises(BadInput, match=r"33 sequences asked and the domain fills none"):
        mix.batches(data, tokens, 10, 4, seed=0, pool={"a": 9})


def test_batches_of_a_curriculum():
    stages = [{"a": 200, "b": 40}, {"a": 20, "b": 300}]
    data = corpus({"a": 1001, "b": 501})
    batches = mix.batches(data, stages, 10, 4, seed=0)
    assert sum(b["weight"].sum() for b in batches) == 560
    assert quotas.realised(data, stages, 10)[0] == {"a": 220, "b": 340}
    with pytest.raises(BadInput, match=r"tokens\['b'\] = 340.*max_epochs = 0.5"):
        quotas.check_supply(data, stages, 10, 0.5)
    with pytest.raises(BadInput, match="a curriculum needs one stage or more"):
        mix.batches(data, [], 10, 4, seed=0)


@pytest.mark.parametrize("objective", mix.OBJECTIVES)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_the_same_global_batches(hosts, objective):
    data, asked = corpus({"a": 250, "b": 201}), {"a": 200, "b": 170}
    whole = mix.batches(data, asked, 10, 8, seed=0, objective=objective)
    parts = [
        mix.batches(data, asked, 10, 8, seed=0, objective=objective, host=h, hosts=hosts)
        for h in range(hosts)
    ]
    for i in range(len(whole)):
        for name, array in whole[i].items():
            assert (np.concatenate([part[i][name] for part in parts]) == array).all()
    with pytest.raises(BadInput, match="batch_size = 8: must be a multiple of the 3 hosts"):
        mix.batches(data, asked, 10, 8, seed=0, hosts=3)


def test_segments_count_documents():
    class Documents(Ramp):
        def read(self, start, out):
            out[:] = np.arange(start, start + len(out)) % 7 + 250  # EOS of bytes is 256

    data = corpus({"a": 1001, "b": 501})
    data = dataclasses.replace(data, train_tokens={n: Documents(1001) for n in "ab"})
    batch = mix.batches(data, {"a": 100, "b": 0}, 10, 4, seed=0, segments=True)[0]
    for inputs, segment in zip(batch["inputs"], batch["segments"], strict=True):
        opens = np.flatnonzero(inputs == 256)
        assert len(opens) and (np.flatnonzero(np.diff(segment)) + 1).tolist() == [
            i for i in opens if i
        ]
    assert batch["segments"].dtype == np.int32
    masked = mix.batches(data, {"a": 100, "b": 0}, 10, 4, 0, "mlm", segments=True)[0]
    for tokens, segment in zip(masked["targets"], masked["segments"], strict=True):
        closes = np.flatnonzero(tokens[:-1] == 256)
        assert (np.flatnonzero(np.diff(segment)) == closes).all() and segment[0] == 0


def test_no_token_is_lost_between_sequences():
    """One epoch predicts every token but the stream's first exactly once, up to the last row."""
    data = corpus({"a": 1001, "b": 501})
    batches = mix.batches(data, {"a": 1000, "b": 500}, 10, 4, seed=3)
    targets = np.concatenate([b["targets"][b["weight"] == 1] for b in batches])
    assert np.array_equal(np.sort(targets), np.sort([*range(1, 1001), *range(1, 501)]))


def test_a_domain_of_zero_tokens_takes_no_part():
    batches = mix.batches(corpus({"a": 101, "b": 3}), {"a": 50, "b": 0}, 10, 4, seed=0)
    assert sum(b["weight"].sum() for b in batches) == 50
    quotas.check_supply(corpus({"a": 101, "b": 3}), {"a": 50, "b": 0}, 10, max_epochs=1)
    assert quotas.realised(corpus({"a": 101, "b": 3}), {"a": 50, "b": 0}, 10)[1]["b"] == 0


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
        quotas.check_supply(corpus({"a": 1001, "b": 501, "c": 5}), tokens, 10, max_epochs)
    assert "\n" not in str(e.value)


def test_supply_may_be_used_up_to_the_last_token():
    data = corpus({"a": 1006, "b": 501})
    quotas.check_supply(data, {"a": 1005, "b": 500}, 10, max_epochs=1)
    quotas.check_supply(data, {"a": 3000, "b": 500}, 10, max_epochs=3)


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
