"""Speed and memory of the data side, beside Hugging Face datasets and torch in the same process.

    pip install -e '.[train,peers]'
    python benchmarks/data_speed.py [--json FILE] [--corpus DIR] [--tokenizer DIR] [--batches 1500]

Loader: batches of 32 x 1,024 tokens, shuffled, from five domains in fixed shares; the peer is
datasets.interleave_datasets behind a torch DataLoader, on the same sequences, with the number of
workers that suits it best. Preparation: from compressed JSON lines to tokens; the peer is
datasets.map with the same tokeniser, which neither splits nor de-duplicates. Memory: anonymous
memory of a process that reads from 2, 20 and 200 domains. Index: a synthetic manifest of 1.2
trillion tokens in 343 and in 60,000 shards a domain; --index-only measures nothing else. CPU
seconds are of this process and its children.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import gzip
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_peers import LENGTH, ROWS, SHARES, consume, loader_peer, peer_sequences, prepare_peer

from autoscale_jax.data import batches, manifest, open_corpus, prepare
from autoscale_jax.data.store import Shard, write_shard
from autoscale_jax.data.tokenize import ByteTokenizer

MOST_SECONDS, MOST_MB = 10, 1000  # for the index of 420,000 shards
SHARED = Path(__file__).parents[1] / "../shared/data"


class Clock:
    """CPU seconds (children included) and wall seconds since it was made."""

    def __init__(self) -> None:
        self._start = _cpu(), time.monotonic()

    def read(self) -> tuple[float, float]:
        return _cpu() - self._start[0], time.monotonic() - self._start[1]

    def rate(self, amount: float) -> dict[str, float]:
        cpu, wall = self.read()
        return {"per_cpu_s": amount / cpu, "per_wall_s": amount / wall}


def _cpu() -> float:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, who))


def prepare_ours(files: dict[str, str], tokenizer: str, cache: Path, workers: int) -> Any:
    data = {"source": "files", "domains": files, "tokenizer": tokenizer, "max_document_bytes": 0}
    return prepare(data, cache, workers)


def loader_ours(corpus: Any, most: int) -> int:
    tokens = {name: int(share * most * ROWS * LENGTH) for name, share in SHARES.items()}
    data = batches(corpus, tokens, LENGTH, ROWS, seed=0)
    return consume((data[i] for i in range(len(data))), "inputs", most)


def model_consumption(corpus: Any) -> dict[str, float]:
    """Tokens/s of the gradient of a GPT-2 of 2 layers and 128 dimensions on this machine."""
    import jax

    from autoscale_jax import models

    config = models.GPT2Config(
        vocab_size=corpus.vocab_size,
        seq_len=LENGTH,
        num_layers=2,
        d_model=128,
        num_heads=4,
        tie_embeddings=True,
        embedding_std=0.02,
    )
    batch = batches(corpus, dict.fromkeys(SHARES, LENGTH), LENGTH, 4, seed=0)[0]
    params = models.init(config, jax.random.key(0))

    def loss(params: Any) -> Any:
        return models.token_losses(config, params, batch["inputs"], batch["targets"]).mean()

    step = jax.jit(jax.grad(loss))
    jax.block_until_ready(step(params))
    clock = Clock()
    jax.block_until_ready(step(params))
    return clock.rate(4 * LENGTH)


def memory_of(folder: str) -> float:
    """In a process of its own: anonymous memory that opening and 300 batches take, in MB."""
    before = _anonymous_mb()
    corpus = open_corpus(Path(folder))
    tokens = {domain.name: domain.train_tokens for domain in corpus.domains}
    data = batches(corpus, tokens, LENGTH, ROWS, seed=0)
    consume((data[i] for i in range(300)), "inputs", 300)
    return _anonymous_mb() - before


def index_of(folder: str) -> dict[str, float]:
    """In a process of its own: time and memory to where any sequence of a corpus lies."""
    before, clock = _anonymous_mb(), Clock()
    corpus = open_corpus(Path(folder))
    tokens = {domain.name: domain.train_tokens for domain in corpus.domains}
    from autoscale_jax.data.mix import order_of

    order = order_of(corpus, tokens, LENGTH, seed=0)
    order.at(np.random.default_rng(0).integers(0, len(order), 100_000))
    cpu, wall = clock.read()
    return {
        "tokens": sum(tokens.values()),
        "sequences": len(order),
        "cpu_s": cpu,
        "wall_s": wall,
        "mb": _anonymous_mb() - before,
        "mb_whole_process": _anonymous_mb(),
    }


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def alone(function: Callable[[str], Any], folder: Path) -> Any:
    """What `function` returns, run in a fresh process. Raises what it raised, or that it died."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, str(folder)).result()


def synthetic(cache: Path, domains: int, shards: int, shard_tokens: int, real: bool) -> Path:
    """A corpus of equal domains; without `real` its shards are holes of the right size."""
    dtype, rng = np.dtype("uint16"), np.random.default_rng(0)
    hashed = {"tokenizer_sha256": ByteTokenizer.sha256}
    for k in range(domains):
        folder = cache / f"domain-d{k}"
        folder.mkdir(parents=True)
        found = []
        for s in range(shards):
            path = folder / f"train-{s:05}.array_record"
            if real:
                found.append(write_shard(path, [rng.integers(0, 256, shard_tokens)], dtype))
            else:
                with path.open("wb") as file:
                    file.truncate(shard_tokens)
                found.append(Shard(path.name, shard_tokens, shard_tokens, f"{k:08x}{s:08x}" * 4))
        one = write_shard(folder / "eval-00000.array_record", [np.zeros(9, dtype)], dtype)
        sides = {
            name: {
                "documents": 1,
                "fingerprint": str(k),
                "tokens": sum(s.tokens for s in side) - 1,
                "shards": [dataclasses.asdict(s) for s in side],
            }
            for name, side in (("train", found), ("eval", [one]))
        }
        content = {"kind": "domain", "name": f"d{k}", "dtype": "uint16", "warnings": []}
        content |= {"rules": {}, "files": []}
        manifest.write(folder, {**content, **hashed, **sides})
    corpus = cache / "corpus"
    corpus.mkdir()
    (corpus / manifest.TOKENIZER).write_text(ByteTokenizer().to_json())
    named = [{"name": f"d{k}", "folder": f"domain-d{k}"} for k in range(domains)]
    content = {"kind": "corpus", "eval_limit": 0, "warnings": [], "domains": named}
    content |= {"settings": {}}
    manifest.write(corpus, {**content, **hashed})
    return corpus


def measure_loader(corpus: Any, most: int, scratch: Path) -> dict[str, Any]:
    loader_ours(corpus, 8)  # unpacks the shards
    clock = Clock()
    found = {"loader, ours": clock.rate(loader_ours(corpus, most))}
    sequences = peer_sequences(corpus, scratch / "arrow")
    loader_peer(sequences, 8, 0)
    for workers in (0, 2):
        clock = Clock()
        found[f"loader, peer, {workers} workers"] = clock.rate(
            loader_peer(sequences, most // 3, workers)
        )
    found["gradient of a GPT-2 of 2 x 128"] = model_consumption(corpus)
    return found


def measure_preparation(files: dict[str, str], tokenizer: str, scratch: Path) -> dict[str, Any]:
    size = sum(len(gzip.decompress(Path(file).read_bytes())) for file in files.values())
    found = {}
    for workers in (1, 2):
        for name, function in (("ours", prepare_ours), ("peer", prepare_peer)):
            clock = Clock()
            function(files, tokenizer, scratch / f"{name}{workers}", workers)
            found[f"preparation, {name}, {workers} processes"] = clock.rate(size)
    return found


def measure_memory(scratch: Path) -> dict[int, float]:
    found = {}
    for n in (2, 20, 200):
        folder = synthetic(scratch / f"memory{n}", n, 1, 20_000_000 // n, True)
        found[n] = alone(memory_of, folder)
        print(f"memory of the loader, {n} domains: {found[n]:.1f} MB", flush=True)
    return found


def measure_index(scratch: Path) -> dict[int, dict[str, float]]:
    """1.2 trillion tokens in few shards and in many, by shards a domain."""
    out = {}
    for shards in (343, 60_000):
        whole = 1_200_500_000_000 // 7 // shards
        folder = synthetic(scratch / f"index{shards}", 7, shards, whole, False)
        found = out[shards] = alone(index_of, folder)
        shutil.rmtree(folder.parent)
        print(
            f"index of {found['tokens'] / 1e12:.2f}T tokens, 7 domains of {shards:,} shards,"
            f" {found['sequences']:,} sequences: {found['wall_s']:.2f} s"
            f" ({found['cpu_s']:.2f} CPU s), {found['mb']:.0f} MB"
            f" ({found['mb_whole_process']:.0f} MB the whole process)",
            flush=True,
        )
    many = out[60_000]
    if many["wall_s"] > MOST_SECONDS or many["mb"] > MOST_MB:
        raise SystemExit(f"index: more than {MOST_SECONDS} s or {MOST_MB} MB")
    return out


def show(found: dict[str, Any], unit: str) -> dict[str, Any]:
    """Prints millions of `unit` by CPU and wall second."""
    for name, rates in found.items():
        cpu, wall = (rates[key] / 1e6 for key in ("per_cpu_s", "per_wall_s"))
        print(f"{name:<36}{cpu:>9.4g} M {unit}/CPU s {wall:>9.4g} M {unit}/s", flush=True)
    return found


def ratio(found: dict[str, Any], ours: str, peer: str) -> dict[str, float]:
    """Ours over the best of the peers, by CPU and by wall second."""
    peers = [rates for name, rates in found.items() if name.startswith(peer)]
    out = {k: found[ours][k] / max(p[k] for p in peers) for k in ("per_cpu_s", "per_wall_s")}
    print(f"{ours}: {out['per_cpu_s']:.1f} x the peer by CPU s, {out['per_wall_s']:.1f} x by s")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpus")
    parser.add_argument("--tokenizer", type=Path, default=SHARED / "tokenizers/gpt2")
    parser.add_argument("--batches", type=int, default=1500)
    parser.add_argument("--index-only", action="store_true")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    files = {name: str((args.corpus / f"{name}.jsonl.gz").resolve()) for name in SHARES}
    tokenizer = str(args.tokenizer.resolve())
    scratch = Path(tempfile.mkdtemp(prefix="data_speed-"))
    try:
        index = measure_index(scratch)
        if args.index_only:
            return
        memory = measure_memory(scratch)
        prepared = show(measure_preparation(files, tokenizer, scratch), "bytes")
        corpus = prepare_ours(files, tokenizer, scratch / "ours1", 1)
        loaded = show(measure_loader(corpus, args.batches, scratch), "tokens")
        ratios = {
            "loader": ratio(loaded, "loader, ours", "loader, peer"),
            "preparation": ratio(prepared, "preparation, ours, 1 processes", "preparation, peer"),
        }
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if args.json:
        result = {"memory_mb": memory, "index": index, **prepared, **loaded, "ratios": ratios}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
