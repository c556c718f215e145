"""The prepared corpus: no document on both sides, nothing counted twice, a cache that is whole."""

import concurrent.futures
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from autoscale_jax.data import (
    build,
    embedded,
    encode,
    manifest,
    prepare,
    samples,
    settings,
    sources,
    tokenize,
    window,
)
from autoscale_jax.specs import BadInput, Run, RunSpec


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


def texts(corpus, stream) -> list[str]:
    """Documents of a token stream, which EOS opens, separates and closes."""
    tokens = stream[:]
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
    pieces = window.pieces(document, most)
    assert "".join(pieces) == document
    assert all(len(p.encode()) <= most for p in pieces)
    assert window.pieces(document, 0) == [document]


def test_caps(config, tmp_path):
    full = prepare(config, tmp_path / "cache")
    capped = prepare({**config, "max_train_tokens": 1000, "eval_tokens": 99}, tmp_path / "cache")
    for domain in capped.domains:
        assert domain.train_tokens == 1000
        assert (
            capped.train_tokens[domain.name][:] == full.train_tokens[domain.name][:1001]
        ).all()  # nested
    assert capped.eval_limit == 99
    assert any("max_train_tokens = 1000 keeps" in w for w in capped.warnings)
    other = prepare({**config, "max_train_tokens": 1000, "eval_tokens": 98}, tmp_path / "cache")
    assert other.fingerprint != capped.fingerprint


def test_a_cap_takes_an_even_share_of_all_units(config, tmp_path, monkeypatch):
    """Twelve units or so: each gives its part, in any process, and the sum is exact."""
    monkeypatch.setattr(sources.documents, "unit_bytes", lambda total: 3000)
    capped = {**config, "max_train_tokens": 2000, "held_out": 10}
    corpus = prepare(capped, tmp_path / "cache", workers=2)
    again = prepare(capped, tmp_path / "again", workers=1)
    assert corpus.fingerprint == again.fingerprint
    (folder,) = (tmp_path / "cache").glob("domain-news-*")
    shards = manifest.read(folder)["train"]["shards"]
    assert len(shards) > 3
    given = [shard["tokens"] - (k == 0) for k, shard in enumerate(shards)]
    assert sum(given) == 2000 and max(given) < 1.5 * 2000 / len(given)
    assert min(given[:-1]) > 0.5 * 2000 / len(given)
    assert {d.train_tokens for d in corpus.domains} == {2000}


def test_what_was_left_out_is_counted_and_shown(config, tmp_path):
    write(tmp_path / "in", "news", ["a b", *documents("news", 120), *documents("news", 3), " ", ""])
    write(tmp_path / "in", "poems", [*documents("poem", 60), *documents("news", 4)])
    corpus = prepare({**config, "min_chars": 5}, tmp_path / "cache")
    assert corpus.records["news"]["duplicates"] == 3  # the domain first in the alphabet keeps its
    assert corpus.records["poems"]["duplicates"] == 4
    head, news, poems, *warnings = corpus.summary().splitlines()
    assert head.split()[-3:] == ["duplicates", "empty", "short"]
    assert news.split()[-3:] == ["3", "2", "1"] and poems.split()[-3:] == ["4", "0", "0"]
    first = f"left out 2 empty documents; the first is {tmp_path / 'in/news.jsonl'}:125"
    assert any(first in warning for warning in warnings)


def test_trained_bpe_sees_training_documents_only(config, tmp_path, monkeypatch):
    config = {**config, "tokenizer": "bpe", "vocab_size": 300}
    seen: list[str] = []
    with monkeypatch.context() as patch:
        really = tokenize.train_bpe
        patch.setattr(
            tokenize, "train_bpe", lambda sample, size: seen.extend(sample) or really(sample, size)
        )
        corpus = prepare(config, tmp_path / "cache")
    assert corpus.vocab_size == 300
    assert "news document" in corpus.tokenizer.decode(corpus.train_tokens["news"][:20])
    held_out = [t for n in ("news", "poems") for t in texts(corpus, corpus.eval_tokens[n])]
    train = [t for n in ("news", "poems") for t in texts(corpus, corpus.train_tokens[n])]
    assert seen and held_out and not set(held_out) & set(seen)
    assert set(seen) == set(train)  # all of it, since it is so little
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
    monkeypatch.setattr(build, "scan", lambda *_: pytest.fail("scanned twice"))
    again = prepare(ConfigDict(config), tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert (again.train_tokens["news"][:] == first.train_tokens["news"][:]).all()
    assert again.domains == first.domains and again.warnings == first.warnings
    monkeypatch.undo()
    write(tmp_path / "in", "news", documents("news", 121))
    assert prepare(config, tmp_path / "cache").fingerprint != first.fingerprint


def test_a_changed_domain_invalidates_that_domain_alone(config, tmp_path, monkeypatch):
    first = prepare(config, tmp_path / "cache")
    write(tmp_path / "in", "news", [*documents("news", 120), *documents("more", 3)])
    encoded = []
    monkeypatch.setattr(
        build,
        "encode",
        lambda task, report: encoded.append(task.folder.name) or encode.encode(task, report),
    )
    second = prepare(config, tmp_path / "cache")
    assert len(encoded) == 1 and encoded[0].startswith("domain-news-")
    changed = {n for n in ("news", "poems") if first.fingerprints[n] != second.fingerprints[n]}
    assert changed == {"news"} and first.fingerprint != second.fingerprint
    # by chance none of the three is held out: a run on poems alone is still valid
    assert first.fingerprints["news"][1] == second.fingerprints["news"][1]
    assert first.fingerprint_of({"poems": 9, "news": 0}) == second.fingerprint_of(
        {"poems": 9, "news": 0}
    )
    assert first.fingerprint_of({"news": 9}) != second.fingerprint_of({"news": 9})
    run = Run(RunSpec({"news": 9}), "k", "ok", {}, {}, {}, data=first.data_of({"news": 9}))
    assert (first.changed_since(run), second.changed_since(run)) == ([], ["news"])
    without = dataclasses.replace(run, spec=RunSpec({"poems": 9}), data=first.data_of({"poems": 9}))
    assert second.changed_since(without) == []
    assert second.changed_since(dataclasses.replace(run, data={})) == []
    write(tmp_path / "in", "news", documents("news", 121) + documents("poem", 20)[:1])
    prepare(config, tmp_path / "cache")  # poems loses the document that it shares
    assert sorted(name.split("-")[1] for name in encoded[1:]) == ["news", "poems"]


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
    (folder,) = cache.glob("corpus-*")
    (news,) = cache.glob("domain-news-*")
    shard = news / "train-00000.array_record"
    (folder / "manifest.json").unlink()  # as a copy that stopped half-way
    assert prepare(config, cache).fingerprint == first.fingerprint
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    shutil.rmtree(cache / "flat", ignore_errors=True)
    with pytest.raises(BadInput, match=r"train-00000\.array_record: \d+ bytes and the manifest"):
        texts(first, prepare(config, cache).train_tokens["news"])
    shard.write_bytes(whole[:300] + bytes(255 - b for b in whole[300:320]) + whole[320:])
    with pytest.raises(
        BadInput, match=r"train-00000\.array_record: record 0: damaged .*delete its"
    ):
        texts(first, prepare(config, cache).train_tokens["news"])
    shard.unlink()
    with pytest.raises(
        BadInput, match=r"train-00000\.array_record: is missing; restore .*delete its folder"
    ):
        prepare(config, cache)
    shutil.rmtree(news)
    with pytest.raises(BadInput, match=r"domain 'news' is gone; delete the corpus-\* folders"):
        prepare(config, cache)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text('{"format"')
    with pytest.raises(BadInput, match=r"manifest\.json: unreadable .* delete its folder"):
        prepare(config, cache)
    (folder / "manifest.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(BadInput, match=r"manifest\.json: format 1 and this version reads 2"):
        prepare(config, cache)


def test_tokens_that_are_not_the_manifests_are_named(config, tmp_path):
    cache = tmp_path / "cache"
    corpus = prepare(config, cache)
    (news,) = cache.glob("domain-news-*")
    (poems,) = cache.glob("domain-poems-*")
    (news / "eval-00000.array_record").write_bytes((poems / "eval-00000.array_record").read_bytes())
    with pytest.raises(BadInput, match=r"eval-00000\.array_record: its tokens are not those of"):
        corpus.eval_tokens["news"][:]


def test_a_prepared_domain_is_a_source(config, tmp_path):
    first = prepare(config, tmp_path / "cache")
    (news,) = (tmp_path / "cache").glob("domain-news-*")
    moved = shutil.copytree(news, tmp_path / "moved")
    domains = {"papers": str(moved), "poems": config["domains"]["poems"]}
    again = prepare({**config, "domains": domains}, tmp_path / "other")
    assert (again.train_tokens["papers"][:] == first.train_tokens["news"][:]).all()
    assert again.fingerprints["papers"] == first.fingerprints["news"]
    assert again.fingerprints["poems"] == first.fingerprints["poems"]
    with pytest.raises(BadInput, match=r"papers = .*moved': was tokenised with another tokeniser"):
        prepare({**config, "domains": domains, "tokenizer": "bpe"}, tmp_path / "other")
    (corpus,) = (tmp_path / "cache").glob("corpus-*")
    with pytest.raises(BadInput, match=r"holds a whole corpus; give one of its domain-\* folders"):
        prepare({**config, "domains": {**domains, "papers": str(corpus)}}, tmp_path / "other")


def test_two_domains_with_the_same_files_are_refused(config, tmp_path):
    (tmp_path / "in/link.jsonl").symlink_to(tmp_path / "in/news.jsonl")
    for second in ("news.jsonl", "link.jsonl", "*.jsonl"):
        domains = {**config["domains"], "more": str(tmp_path / "in" / second)}
        with pytest.raises(BadInput, match=r"news\.jsonl is also in domain '(more|news)'"):
            prepare({**config, "domains": domains}, tmp_path / "cache")


def test_one_set_of_files_makes_domains_by_their_meta(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    names = {"c4": "RedPajamaC4", "book": "RedPajamaBook"}
    lines = [
        json.dumps({"text": f"{n} text {i}", "meta": {"redpajama_set_name": s}})
        for i in range(40)
        for n, s in names.items()
    ]
    (tmp_path / "in/all.jsonl").write_text("\n".join(lines))
    key = "meta.redpajama_set_name"
    domains = {
        n: {"path": str(tmp_path / "in/all.jsonl"), "where": {key: s}} for n, s in names.items()
    }
    data = {"source": "files", "domains": domains, "tokenizer": "bytes"}
    corpus = prepare(data, tmp_path / "cache")
    for name in names:
        found = texts(corpus, corpus.train_tokens[name]) + texts(corpus, corpus.eval_tokens[name])
        assert sorted(found) == sorted(f"{name} text {i}" for i in range(40))
    opened = []
    monkeypatch.setattr(
        samples, "Documents", lambda unit: opened.append(unit) or sources.Documents(unit)
    )
    again = prepare(data, tmp_path / "other")
    assert again.fingerprint == corpus.fingerprint
    assert len(opened) == 1 + 2  # one scan for both; each tokenises its own records
    domains["book"]["where"] = {}
    with pytest.raises(BadInput, match=r"is also in domain .*or tell them apart by 'where'"):
        prepare(data, tmp_path / "cache")


def test_the_papers_rules(tmp_path):
    """Over 1,000 characters, a window of 1,000, so many samples held out, none on both sides."""
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(5000)]

    def document(chars: int) -> str:
        return " ".join(rng.choice(words, chars // 4))[:chars].strip().ljust(chars, "x")

    long = [document(int(n)) for n in rng.integers(1001, 4000, 60)]
    write(tmp_path / "in", "c4", [*long, *long[:5], document(1000), document(7), " ", ""])
    write(tmp_path / "in", "arxiv", [document(int(n)) for n in rng.integers(1001, 9000, 50)])
    path = str(tmp_path / "in/{}.jsonl")
    data = {
        "source": "files",
        "domains": {
            "c4": path.format("c4"),
            "arxiv": {"path": path.format("arxiv"), "window": "random"},
        },
        "tokenizer": "bytes",
        "min_chars": 1000,
        "window_chars": 1000,
        "held_out": 20,
    }
    corpus = prepare(data, tmp_path / "cache")
    sides = {}
    for domain in corpus.domains:
        train = texts(corpus, corpus.train_tokens[domain.name])
        held_out = texts(corpus, corpus.eval_tokens[domain.name])
        assert len(held_out) == domain.eval_documents == 20 and not set(train) & set(held_out)
        assert all(len(t) > 990 for t in train + held_out)  # 1,000 less blanks at the ends
        sides[domain.name] = train + held_out
    assert sorted(sides["c4"]) == sorted(t[:1000].strip() for t in long)
    lines = (tmp_path / "in/arxiv.jsonl").read_text().splitlines()
    arxiv = [json.loads(line)["text"] for line in lines]
    starts = [next(t.index(s) for t in arxiv if s in t) for s in sides["arxiv"]]
    assert len(starts) == 50 and np.mean([s > 0 for s in starts]) > 0.9
    records = manifest.read(next((tmp_path / "cache").glob("domain-c4-*")))["records"]
    assert records == {
        **{"read": 69, "left_out": 0, "empty": 2, "short": 2, "bad": 0, "duplicates": 5},
        **{"first_bad": "", "first_empty": str(tmp_path / "in/c4.jsonl:68")},
    }
    with pytest.raises(
        BadInput, match=r"domain 'arxiv': 50 distinct .* it needs 51 or more, 50 to"
    ):
        prepare({**data, "held_out": 50}, tmp_path / "cache")


def test_a_domain_emptied_by_the_rules_is_named(config, tmp_path):
    write(tmp_path / "in", "news", ["short", " ", ""])
    with pytest.raises(BadInput) as e:
        prepare({**config, "min_chars": 20}, tmp_path / "cache")
    assert (
        "data.domains.news: no text is left of 3 records" in str(e.value)
        and "0 not selected by 'where' or blank, 2 empty, 1 of 20 characters or fewer"
        in str(e.value)
        and "news.jsonl" in str(e.value)
    )


@pytest.mark.parametrize("at", ["scan", "encode", "manifest"])
def test_a_killed_preparation_continues(config, tmp_path, monkeypatch, at):
    """Killed with units done: what is whole stays, nothing half-written counts."""
    cache = tmp_path / "cache"
    config = {**config, "held_out": 20}
    for i in range(3):
        write(tmp_path / "in", f"news{i}", documents(f"n{i}-", 50))
    config["domains"]["news"] = str(tmp_path / "in/news*.jsonl")
    monkeypatch.setattr(sources.documents, "unit_bytes", lambda total: 3000)
    script = f"""
import json, os, signal, sys
from autoscale_jax.data import build, encode, manifest, prepare, sources, store
sources.documents.unit_bytes = lambda total: 3000
real, calls = store._appearing.__exit__, []
def dying(self, *args):
    calls.append(self._path)
    name = self._path.name
    if {{"scan": len(calls) == 3, "encode": name.startswith("eval-00001"),
         "manifest": name == "manifest.json"}}["{at}"]:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, *args)
store._appearing.__exit__ = dying
prepare(json.loads(sys.argv[1]), sys.argv[2])
"""
    process = subprocess.run([sys.executable, "-c", script, json.dumps(config), str(cache)])
    assert process.returncode == -signal.SIGKILL
    assert not list(cache.glob("corpus-*/manifest.json"))
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*") if p.is_file()}
    whole = {p: t for p, t in before.items() if not p.name.startswith("tmp-")}
    assert whole or at == "scan"
    corpus = prepare(config, cache)
    done = [p for p in whole if p.suffix in (".npz",) or p.name.startswith("part-")]
    assert done and all(p.stat().st_mtime_ns == whole[p] for p in done)
    assert corpus.fingerprint == prepare(config, tmp_path / "other").fingerprint


def test_processes_give_what_one_gives(config, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.documents, "unit_bytes", lambda total: 3000)
    for i in range(3):
        write(tmp_path / "in", f"news{i}", documents(f"n{i}-", 50))
    config["domains"]["news"] = str(tmp_path / "in/news*.jsonl")
    lines = []
    two = prepare(config, tmp_path / "two", workers=2, say=lines.append)
    assert two.fingerprint == prepare(config, tmp_path / "one", workers=1).fingerprint
    assert any(line.startswith("scan: ") and "12/12 parts" in line for line in lines)
    assert any(line.startswith("tokenise: ") and " left" in line for line in lines)


def test_two_that_prepare_the_same_corpus_do_not_mind(config, tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: prepare(config, tmp_path / "cache"), range(2)))
    assert both[0].fingerprint == both[1].fingerprint
    assert (both[0].train_tokens["news"][:] == both[1].train_tokens["news"][:]).all()
    assert not list((tmp_path / "cache").rglob("tmp-*"))


def test_a_cache_that_cannot_be_written_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"cache_dir = .*saving the corpus failed"):
        prepare(config, tmp_path / "file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoscale_jax.data.store.os.fsync", full)
    with pytest.raises(BadInput, match=r"saving the corpus failed .*No space left.*; make room"):
        prepare(config, tmp_path / "cache")
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": "files"}, "data.sources: no such setting; did you mean 'source'?"),
        ({"zzz": 1}, "data.zzz: no such setting; known: source, domains"),
        ({"source": "web"}, "data.source = 'web': choose one of embedded, files"),
        ({"on_bad_line": "x"}, "data.on_bad_line = 'x': choose one of refuse, skip"),
        ({"held_out": 0}, "data.held_out = 0: give a fraction between 0 and 1"),
        ({"held_out": 2.5}, "data.held_out = 2.5: give a fraction between 0 and 1, or a whole"),
        ({"window": "last"}, "data.window = 'last': choose one of first, random"),
        ({"min_chars": -1}, "data.min_chars = -1: give 0 (no limit) or more"),
        ({"eval_tokens": -1}, "data.eval_tokens = -1: give 0 (no limit) or more"),
        ({"max_document_bytes": 3}, "data.max_document_bytes = 3: give 16 or more, or 0"),
        ({"domains": {}}, "data.domains = {}: a mixture needs two domains or more"),
        ({"domains": {"a": "x"}}, "a mixture needs two domains or more"),
        ({"domains": ["a", "b"]}, "source 'files' takes name: path or glob"),
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
    assert settings.check({"domains": None})["domains"] == list(embedded.DEFAULT)
