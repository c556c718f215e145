"""The prepared corpus: no document on both sides, nothing counted twice, a cache that is whole."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from autoscale_jax.data import corpus as corpus_module
from autoscale_jax.data import embedded, prepare, store, tokenize
from autoscale_jax.specs import BadInput


def documents(kind: str, n: int) -> list[str]:
    return [f"{kind} document number {i}: " + f"{kind}{i} " * (i % 7 + 3) for i in range(n)]


def write(folder, name: str, texts: list[str]) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    lines = (json.dumps({"text": t}) for t in texts)
    (folder / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")


@pytest.fixture
def config(tmp_path) -> dict:
    write(tmp_path / "in", "news", documents("news", 120))
    write(tmp_path / "in", "poems", documents("poem", 60))
    return {
        "source": "files",
        "domains": {n: str(tmp_path / f"in/{n}.jsonl") for n in ("poems", "news")},
        "tokenizer": "bytes",
    }


def texts(corpus, tokens) -> list[str]:
    """Documents of a token stream, which EOS opens, separates and closes."""
    assert tokens[0] == tokens[-1] == corpus.tokenizer.eos_id
    ends = np.flatnonzero(tokens == corpus.tokenizer.eos_id)
    return [corpus.tokenizer.decode(tokens[a + 1 : b]) for a, b in pairwise(ends)]


def test_documents_come_through_whole_and_on_one_side(config, tmp_path):
    corpus = prepare(config, tmp_path / "cache")
    assert [d.name for d in corpus.domains] == ["news", "poems"]
    for domain, kind, n in zip(corpus.domains, ("news", "poem"), (120, 60), strict=True):
        train = texts(corpus, corpus.train_tokens[domain.name])
        held_out = texts(corpus, corpus.eval_tokens[domain.name])
        assert sorted(train + held_out) == sorted(t.strip() for t in documents(kind, n))
        assert (domain.train_documents, domain.eval_documents) == (len(train), len(held_out))
        assert domain.train_tokens == len(corpus.train_tokens[domain.name]) - 1
        assert 0.02 * n < len(held_out) < 0.25 * n
        assert corpus.train_tokens[domain.name].dtype == np.uint16
        assert train != sorted(train)  # shuffled by hash
    assert (
        "news" in corpus.summary() and "warning: domain 'poems': its held-out" in corpus.summary()
    )


def test_duplicates_are_counted_once_everywhere(config, tmp_path):
    before = prepare(config, tmp_path / "cache")
    write(tmp_path / "in", "poems", documents("poem", 60) + documents("news", 20))
    write(tmp_path / "in", "news", [*documents("news", 120), f" {documents('news', 9)[8]}\n"])
    after = prepare(config, tmp_path / "cache")
    assert after.fingerprint == before.fingerprint
    write(tmp_path / "in", "poems", documents("news", 20))
    with pytest.raises(BadInput, match=r"domain 'poems': 0 distinct documents of 20 remain"):
        prepare(config, tmp_path / "cache")


def test_adding_documents_moves_none_across_the_split(config, tmp_path):
    before = prepare(config, tmp_path / "cache")
    write(tmp_path / "in", "news", documents("news", 200))
    after = prepare(config, tmp_path / "cache")
    assert set(texts(before, before.eval_tokens["news"])) < set(
        texts(after, after.eval_tokens["news"])
    )
    assert after.fingerprint != before.fingerprint


def test_at_least_one_document_is_held_out_and_one_kept(config, tmp_path):
    few = prepare({**config, "held_out": 1e-9}, tmp_path / "cache")
    most = prepare({**config, "held_out": 1 - 1e-9}, tmp_path / "cache")
    assert [d.eval_documents for d in few.domains] == [1, 1]
    assert [d.train_documents for d in most.domains] == [1, 1]
    write(tmp_path / "in", "news", ["only one"])
    with pytest.raises(BadInput, match="'news': 1 distinct documents of 1 remain"):
        prepare(config, tmp_path / "cache")


def test_the_seed_draws_another_split(config, tmp_path):
    one, two = (prepare({**config, "seed": s}, tmp_path / "cache") for s in (0, 1))
    assert texts(one, one.eval_tokens["news"]) != texts(two, two.eval_tokens["news"])


def test_pieces_of_a_long_document_stay_on_one_side(config, tmp_path):
    lines = [f"document {d} line {i}\n" for d in range(40) for i in range(30)]
    write(tmp_path / "in", "news", ["".join(lines[d * 30 : d * 30 + 30]) for d in range(40)])
    corpus = prepare({**config, "max_document_bytes": 100}, tmp_path / "cache")

    def sources_of(side):
        return {
            int(line.split()[1]) for t in texts(corpus, side["news"]) for line in t.splitlines()
        }

    train, held_out = sources_of(corpus.train_tokens), sources_of(corpus.eval_tokens)
    assert not train & held_out and len(train | held_out) == 40
    assert max(len(t) for t in texts(corpus, corpus.train_tokens["news"])) <= 100
    news = corpus.domains[0]
    assert (news.train_documents, news.eval_documents) == (len(train), len(held_out))


@given(st.text(max_size=200), st.integers(16, 64))
def test_pieces_are_small_and_lose_nothing(document, most):
    pieces = corpus_module._pieces(document, most)
    assert "".join(pieces) == document
    assert all(len(p.encode()) <= most for p in pieces)
    assert corpus_module._pieces(document, 0) == [document]


def test_caps(config, tmp_path):
    full = prepare(config, tmp_path / "cache")
    capped = prepare({**config, "max_train_tokens": 1000, "eval_tokens": 99}, tmp_path / "cache")
    for domain in capped.domains:
        assert domain.train_tokens == 1000
        assert (
            capped.train_tokens[domain.name] == full.train_tokens[domain.name][:1001]
        ).all()  # nested
    assert capped.eval_limit == 99
    assert any("max_train_tokens = 1000 keeps" in w for w in capped.warnings)
    other = prepare({**config, "max_train_tokens": 1000, "eval_tokens": 98}, tmp_path / "cache")
    assert other.fingerprint != capped.fingerprint


def test_trained_bpe_sees_training_documents_only(config, tmp_path, monkeypatch):
    config = {**config, "tokenizer": "bpe", "vocab_size": 300}
    corpus = prepare(config, tmp_path / "cache")
    assert corpus.vocab_size == 300
    assert "news document" in corpus.tokenizer.decode(corpus.train_tokens["news"][:20])
    seen: list[str] = []
    splits = corpus_module._split(
        {n: documents(n, 50) for n in "ab"}, {"seed": 0, "held_out": 0.1, "max_document_bytes": 0}
    )
    with monkeypatch.context() as patch:
        patch.setattr(tokenize, "train_bpe", lambda sample, size: seen.extend(sample))
        corpus_module._tokenizer({"tokenizer": "bpe", "vocab_size": 300}, splits)
    held_out = {p for s in splits.values() for d in s.held_out for p in d}
    assert seen and held_out and not held_out & set(seen)
    big = prepare({**config, "vocab_size": 60_000}, tmp_path / "cache")
    assert big.vocab_size < 60_000
    assert any("data.vocab_size = 60000: the text yields" in w for w in big.warnings)


def test_skipped_lines_are_in_the_warnings(config, tmp_path):
    with (tmp_path / "in/news.jsonl").open("a") as f:
        f.write("\n{broken\n")
    with pytest.raises(BadInput, match=r"news\.jsonl:121: not JSON"):
        prepare(config, tmp_path / "cache")
    corpus = prepare({**config, "on_bad_line": "skip"}, tmp_path / "cache")
    assert any("skipped 1 bad lines" in w for w in corpus.warnings)
    assert "skipped 1 bad lines" in corpus.summary()


def test_the_cache_is_used_and_noticed_to_be_old(config, tmp_path, monkeypatch):
    first = prepare(config, tmp_path / "cache")
    monkeypatch.setattr(corpus_module, "_build", lambda *_: pytest.fail("built twice"))
    again = prepare(ConfigDict(config), tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert (again.train_tokens["news"] == first.train_tokens["news"]).all()
    assert again.domains == first.domains and again.warnings == first.warnings
    assert not again.train_tokens["news"].flags.writeable
    monkeypatch.undo()
    write(tmp_path / "in", "news", documents("news", 121))
    assert prepare(config, tmp_path / "cache").fingerprint != first.fingerprint


def test_the_fingerprint_is_of_the_content_alone(config, tmp_path):
    first = prepare(config, tmp_path / "one")
    moved = {n: str(tmp_path / f"moved/{n}.jsonl") for n in ("news", "poems")}
    write(tmp_path / "moved", "news", documents("news", 120)[::-1])
    write(tmp_path / "moved", "poems", documents("poem", 60))
    second = prepare({**config, "domains": moved}, tmp_path / "two")
    assert second.fingerprint == first.fingerprint


def test_damaged_caches_are_rebuilt_or_named(config, tmp_path):
    cache = tmp_path / "cache"
    first = prepare(config, cache)
    (folder,) = cache.iterdir()
    (folder / "manifest.json").unlink()  # as a copy that stopped half-way
    assert prepare(config, cache).fingerprint == first.fingerprint
    np.save(folder / "0.train.npy", np.zeros(3, np.uint16))
    with pytest.raises(BadInput, match=r"0\.train\.npy: 3 tokens and the manifest says .* delete"):
        prepare(config, cache)
    (folder / "0.train.npy").write_bytes(b"")
    with pytest.raises(BadInput, match=r"0\.train\.npy: unreadable .* delete its folder"):
        prepare(config, cache)
    (folder / "manifest.json").write_text('{"format"')
    with pytest.raises(BadInput, match=r"manifest\.json: unreadable .* delete its folder"):
        prepare(config, cache)


@pytest.mark.parametrize("at", ["tokenizer", "domain", "finish"])
def test_a_process_killed_while_writing_leaves_nothing_that_counts(config, tmp_path, at):
    cache = tmp_path / "cache"
    script = f"""
import json, sys, time
from autoscale_jax.data import prepare, store
real = store.Writer.{at}
def stuck(self, *args):
    if "{at}" != "finish":
        real(self, *args)
    print("stuck", flush=True)
    time.sleep(60)
store.Writer.{at} = stuck
prepare(json.loads(sys.argv[1]), sys.argv[2])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, json.dumps(config), str(cache)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"stuck\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (left,) = cache.iterdir()
    assert left.name.startswith("tmp-")
    old = time.time() - 2 * store._STALE_SECONDS
    os.utime(left, (old, old))
    corpus = prepare(config, cache)
    assert not left.exists() and len(list(cache.iterdir())) == 1
    assert corpus.fingerprint == prepare(config, tmp_path / "other").fingerprint


def test_of_two_processes_that_prepare_the_same_corpus_either_wins(config, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    real = store.Writer.finish

    def late(self, rest):
        monkeypatch.setattr(store.Writer, "finish", real)
        prepare(config, cache)  # the other process is done first
        return real(self, rest)

    monkeypatch.setattr(store.Writer, "finish", late)
    assert prepare(config, cache).fingerprint == prepare(config, tmp_path / "x").fingerprint
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cache_dir = .*not writable"):
        prepare(config, tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.np, "save", full)
    with pytest.raises(BadInput, match=r"saving the corpus failed .*No space left.*; make room"):
        prepare(config, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": "files"}, "data.sources: no such setting; did you mean 'source'?"),
        ({"zzz": 1}, "data.zzz: no such setting; known: source, domains"),
        ({"source": "web"}, "data.source = 'web': choose one of embedded, files"),
        ({"on_bad_line": "x"}, "data.on_bad_line = 'x': choose one of refuse, skip"),
        ({"held_out": 0}, "data.held_out = 0: give a fraction between 0 and 1"),
        ({"eval_tokens": -1}, "data.eval_tokens = -1: give 0 (no limit) or more"),
        ({"max_document_bytes": 3}, "data.max_document_bytes = 3: give 16 or more, or 0"),
        ({"domains": {}}, "data.domains = {}: a mixture needs two domains or more"),
        ({"domains": {"a": "x"}}, "a mixture needs two domains or more"),
        ({"domains": ["a", "b"]}, "source 'files' takes name: glob pairs"),
        ({"tokenizer": "missing/path"}, "tokenizer = 'missing/path': no such file"),
        ({"source": "embedded"}, "source 'embedded' takes names; or set 'files'"),
        ({"source": "embedded", "domains": ["code", "coed"]}, "data.domains: no 'coed'; there are"),
        ({"source": "embedded", "domains": ["code", "code"]}, "name each domain once"),
    ],
)
def test_bad_settings_are_named(config, tmp_path, change, message):
    with pytest.raises(BadInput) as e:
        prepare({**config, **change}, tmp_path / "cache")
    assert message in str(e.value) and "\n" not in str(e.value)


def test_default_settings_name_the_default_domains():
    settings = corpus_module._settings({"domains": None})
    assert settings["domains"] == list(embedded.DEFAULT)
