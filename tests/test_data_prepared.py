"""Prepared stores as domains: whose text they hold, what they are not asked, and their damage."""

import json
import re
import shutil

import numpy as np
import pytest

from autoscale_jax.data import leaks, manifest, prepare
from autoscale_jax.specs import BadInput


def write(path, kind: str, numbers) -> str:
    lines = (json.dumps({"text": f"{kind} text {i} " + f"{kind}{i} " * 9}) for i in numbers)
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def world(tmp_path):
    """Two files, the settings to prepare them with, and the stores of both."""
    news = write(tmp_path / "news.jsonl", "news", range(80))
    poems = write(tmp_path / "poems.jsonl", "poem", range(60))
    data = {"source": "files", "tokenizer": "bytes", "domains": {"news": news, "poems": poems}}
    prepare(data, tmp_path / "first")
    (store,) = (tmp_path / "first").glob("domain-news-*")
    return tmp_path, data, str(shutil.move(store, tmp_path / "store"))


def refused(world, domains, **changes) -> str:
    folder, data, _ = world
    with pytest.raises(BadInput) as error:
        prepare({**data, **changes, "domains": domains}, folder / "second")
    assert "\n" not in str(error.value)
    assert not list((folder / "second").glob("corpus-*/manifest.json"))
    return str(error.value)


def test_a_store_is_one_domains(world):
    folder, data, store = world
    copy = str(shutil.copytree(store, folder / "copy"))
    for other in (store, copy):
        message = refused(world, {"a": store, "b": other})
        assert message.startswith(
            f"data.domains.b = {other!r}: holds the same tokens as domain 'a'"
        )
    for domains in (
        {"a": store, "b": f"{folder}/news.jsonl"},
        {"b": store, "a": f"{folder}/*.jso*"},
    ):
        assert re.search(
            r"news\.jsonl is also in domain '[ab]'; give each", refused(world, domains)
        )
    assert prepare({**data, "domains": {"a": store, "b": data["domains"]["poems"]}}, folder / "ok")


def test_stores_of_one_file_are_told_apart_by_what_they_keep(tmp_path):
    lines = [
        json.dumps({"text": f"{k} {i} " + f"{k}{i} " * 9, "of": k})
        for i in range(40)
        for k in "xyz"
    ]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    domains = {k: {"path": str(tmp_path / "all.jsonl"), "where": {"of": k}} for k in "xyz"}
    data = {"source": "files", "tokenizer": "bytes", "domains": domains}
    whole = prepare(data, tmp_path / "first")
    stores = {k: str(next((tmp_path / "first").glob(f"domain-{k}-*"))) for k in "xy"}
    mixed = prepare({**data, "domains": {**domains, **stores}}, tmp_path / "second")
    assert mixed.fingerprints == whole.fingerprints and mixed.warnings == whole.warnings
    domains["z"]["where"] = {"of": "y"}
    with pytest.raises(BadInput, match=r"all\.jsonl is also in domain 'z'"):
        prepare({**data, "domains": {**domains, **stores}}, tmp_path / "third")


def test_a_document_on_both_sides_of_the_split_is_refused(world):
    """A copy of the store's text in another file, split by another seed."""
    folder, data, store = world
    copy = write(folder / "copy.jsonl", "news", range(80))
    message = refused(world, {"a": store, "b": copy}, seed=3)
    assert re.match(
        r"data\.domains\.a: \d+ of its \d+ training documents are held out, the first in "
        r"domain 'b'; .*name the text of both domains",
        message,
    )
    other = write(folder / "other.jsonl", "news", range(80, 160))
    assert prepare({**data, "seed": 3, "domains": {"a": store, "b": other}}, folder / "ok")


def test_rules_that_do_not_reach_a_store_are_told(world):
    folder, data, store = world
    domains = {"papers": store, "poems": data["domains"]["poems"]}
    (few,) = prepare({**data, "domains": domains}, folder / "same").warnings[:1]
    assert few.startswith("domain 'papers': its held-out loss rests on")
    rules = {"held_out": 12, "seed": 1, "window_chars": 90, "window": "random"}
    warnings = prepare({**data, **rules, "domains": domains}, folder / "other").warnings
    assert warnings[0] == (
        "domain 'papers': its prepared store was made with window_chars = 0, window = 'first', "
        "seed = 0, held_out = 0.1; window_chars = 90, window = 'random', seed = 1, held_out = 12 "
        "is ignored for it"
    )
    own = {"path": store, "min_chars": 7, "where": {"of": "x"}}
    warnings = prepare({**data, "domains": {**domains, "papers": own}}, folder / "own").warnings
    assert warnings[0].endswith("min_chars = 7, where = {'of': 'x'} is ignored for it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"kind": "domain"}, "lacks dtype, eval, files, name, rules, tokenizer_sha256"),
        (lambda c: {}, "lacks a kind (corpus or domain); restore it from a copy"),
        (
            lambda c: c | {"train": {"tokens": 3}},
            "lacks train.documents, train.fingerprint, train.s",
        ),
        (
            lambda c: c | {"eval": c["eval"] | {"shards": [{"file": "x"}]}},
            "lacks eval.shards.bytes",
        ),
    ],
)
def test_a_manifest_that_lacks_something_is_named(world, change, message):
    folder, data, store = world
    manifest.write(folder / "store", change(manifest.read(store)))
    said = refused(world, {"a": store, "b": data["domains"]["poems"]})
    assert said.startswith(f"{store}/manifest.json: ") and message in said


@pytest.mark.parametrize("side", ["train", "eval"])
def test_a_damaged_store_leaves_no_corpus_behind(world, side):
    """Cut short is seen before anything is read, the rest when the store is taken over."""
    folder, data, store = world
    domains = {"a": store, "b": data["domains"]["poems"]}
    shard = folder / f"store/{side}-00000.array_record"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    message = refused(world, domains)
    assert "the file was cut short or changed: restore it from a copy or, if the study" in message
    assert not (folder / "second").exists()
    middle = len(whole) // 2
    shard.write_bytes(
        whole[:middle] + bytes(255 - b for b in whole[middle : middle + 9]) + whole[middle + 9 :]
    )
    assert re.search(
        rf"{side}-00000\.array_record: .*; restore it from a copy", refused(world, domains)
    )
    shard.write_bytes(whole)
    ends = folder / f"store/{side}-00000.ends.npy"
    ends.rename(folder / "ends")
    assert f"{ends}: cannot be read" in refused(world, domains)
    (folder / "ends").rename(ends)
    lines = []
    assert prepare({**data, "domains": domains}, folder / "second", say=lines.append)
    assert any(line.startswith("check the stores: ") and "2/2 parts" in line for line in lines)


def test_documents_are_cut_alike_however_their_shard_is_read():
    rng = np.random.default_rng(0)
    stream = rng.integers(0, 9, 500).astype("uint16")
    ends = sorted({*rng.integers(2, 500, 40).tolist(), 500})
    whole = list(leaks._cut([stream], ends, 1))
    for size in (1, 7, 64, 499):
        parts = [stream[i : i + size] for i in range(0, 500, size)]
        assert list(leaks._cut(parts, ends, 1)) == whole
    assert len(whole) == len(ends)
