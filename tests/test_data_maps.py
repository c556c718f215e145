"""Token stores of many shards: no file stays open, and the number of maps is bounded."""

import gc
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from autoscale_jax.data import maps
from autoscale_jax.data.store import Shard, TokenStore

TOKENS = 50


@pytest.fixture
def store(tmp_path):
    """200 shards that are unpacked already; token i of the store is i."""
    shards = []
    for k in range(200):
        name = f"{k:032x}"
        ids = np.arange(k * TOKENS, (k + 1) * TOKENS, dtype=np.uint16)
        (tmp_path / f"{name}.uint16").write_bytes(ids.tobytes())
        shards.append(Shard("x", 1, TOKENS, name * 2))
    return TokenStore("/none", shards, np.dtype("uint16"), tmp_path)


def mapped(tmp_path) -> int:
    with open("/proc/self/maps") as lines:
        return sum(str(tmp_path) in line for line in lines)


def test_every_shard_is_read_with_no_descriptor_kept(store, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    assert (store[:] == np.arange(200 * TOKENS)).all()
    assert len(os.listdir("/proc/self/fd")) == before
    assert mapped(tmp_path) == 200
    with pytest.raises(ValueError, match="read-only"):
        store._open(0)[0] = 1
    del store


def test_maps_are_bounded_and_opened_again(store, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 8)
    rng = np.random.default_rng(0)
    for start in rng.integers(0, 199 * TOKENS, 500):
        out = np.empty(TOKENS, np.int32)
        store.read(start, out)
        assert (out == np.arange(start, start + TOKENS)).all()
        assert mapped(tmp_path) <= 8 + 1


def test_threads_read_what_one_reads(store, tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 5)
    wrong = []

    def work(seed):
        for start in np.random.default_rng(seed).integers(0, 199 * TOKENS, 300):
            out = np.empty(TOKENS, np.int32)
            store.read(start, out)
            wrong.extend([] if (out == np.arange(start, start + TOKENS)).all() else [start])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and mapped(tmp_path) <= 5 + 8


def test_a_store_that_is_gone_gives_its_maps_back(store, tmp_path):
    copy = TokenStore("/none", store._shards, np.dtype("uint16"), tmp_path)
    copy[:]
    assert mapped(tmp_path) == 200
    del copy
    gc.collect()
    assert mapped(tmp_path) == 0


def test_a_corpus_of_200_shards_trains_within_64_open_files(tmp_path):
    """Prepared from 200 files, each a unit of its own here, then read in the order of training."""
    script = """
import json, pathlib, resource, sys
import numpy as np
from autoscale_jax.data import batches, prepare, sources
from autoscale_jax.data.sources import documents
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
documents.unit_bytes = lambda total: 1 << 10
folder = pathlib.Path(sys.argv[1])
for name in "ab":
    (folder / name).mkdir()
    for i in range(100):
        texts = (f"{name} file {i} line {k} " * 10 for k in range(4))
        lines = "\\n".join(json.dumps({"text": text}) for text in texts)
        (folder / name / f"{i:03}.jsonl").write_text(lines)
domains = {name: str(folder / name / "*.jsonl") for name in "ab"}
data = {"source": "files", "domains": domains, "tokenizer": "bytes"}
corpus = prepare(data, folder / "cache", workers=1)
shards = [len(corpus.train_tokens[name]._shards) for name in "ab"]
tokens = {domain.name: domain.train_tokens for domain in corpus.domains}
data = batches(corpus, tokens, 64, 8, seed=0)
read = sum(int(data[i]["weight"].sum()) for i in range(len(data)))
print(json.dumps([min(shards), read, sum(n // 64 * 64 for n in tokens.values())]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shards, read, tokens = json.loads(done.stdout)
    assert shards >= 100 and read == tokens
