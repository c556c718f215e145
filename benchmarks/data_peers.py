"""The same work done by Hugging Face datasets and torch, and what both sides are given."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROWS, LENGTH = 32, 1024
SHARES = {"arxiv": 0.2, "books": 0.25, "docs": 0.05, "github": 0.4, "wikipedia": 0.1}


def consume(source: Iterable[Any], field: str, most: int) -> int:
    """Tokens read, in `most` batches or fewer."""
    total = 0
    for n, batch in enumerate(source, start=1):
        total += batch[field].shape[0] * batch[field].shape[1]
        if n == most:
            break
    return total


def prepare_peer(files: dict[str, str], tokenizer: str, cache: Path, workers: int) -> None:
    import datasets
    import tokenizers

    hf = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")

    def encode(rows: dict[str, Any]) -> dict[str, Any]:
        return {"ids": [e.ids for e in hf.encode_batch(rows["text"])]}

    for file in files.values():
        raw = datasets.load_dataset("json", data_files=file, split="train", cache_dir=str(cache))
        raw.map(encode, batched=True, remove_columns=raw.column_names, num_proc=workers)


def peer_sequences(corpus: Any, folder: Path) -> dict[str, Any]:
    """The training sequences of our corpus as Arrow data sets on disk, for an equal start."""
    import datasets

    kind = datasets.Features({"ids": datasets.Sequence(datasets.Value("int32"), length=LENGTH)})
    for name, stream in corpus.train_tokens.items():
        n = (len(stream) - 1) // LENGTH
        rows = stream[: n * LENGTH].reshape(n, LENGTH)
        datasets.Dataset.from_dict({"ids": list(rows)}, kind).save_to_disk(str(folder / name))
    return {name: datasets.load_from_disk(str(folder / name)) for name in SHARES}


def loader_peer(sequences: dict[str, Any], most: int, workers: int) -> int:
    import datasets
    import torch

    parts = [sequences[name].shuffle(seed=0) for name in SHARES]
    mixed = datasets.interleave_datasets(
        parts, probabilities=list(SHARES.values()), seed=0, stopping_strategy="all_exhausted"
    ).with_format("torch")
    loader = torch.utils.data.DataLoader(mixed, batch_size=ROWS, num_workers=workers)
    total = 0
    while (left := most - total // (ROWS * LENGTH)) > 0:
        total += consume(loader, "ids", left)
    return total
