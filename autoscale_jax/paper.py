"""The AutoScale paper's settings (arXiv 2407.20177, Tables 3 to 5 and section 5), stated once.

Each function changes a config; `configs/` puts them together. What the paper leaves open follows
the libraries it used: AdamW with b2 = .999 and gradients clipped at norm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from autoscale_jax.data import redpajama as slices
from autoscale_jax.specs import BadInput

# Weights of LLaMA (Touvron et al. 2023), a reference mixture of the paper, by our domains' names.
LLAMA = {
    "commoncrawl": 0.67,
    "c4": 0.15,
    "github": 0.045,
    "wikipedia": 0.045,
    "books": 0.045,
    "arxiv": 0.025,
    "stackexchange": 0.02,
}
BERT_SETS = {
    "amazon": "tfds:amazon_us_reviews/Books_v1_00:train",
    "arxiv": "tfds:scientific_papers/arxiv:train",
    "books": "tfds:pg19:train",
    "openwebtext": "data/openwebtext/*.parquet",
    "wikipedia": "tfds:wikipedia/20230601.en:train",
}


def gpt2_large(c: ConfigDict) -> None:
    """Table 3: GPT-2 Large, 80 sequences of 1,024 a step (1 a device x 8 devices x 10)."""
    _model(c, "gpt2", layers=36, width=1280, heads=20, vocabulary=50_257, length=1024)
    _training(c, batch_size=80, peak_lr=2e-4, warmup_ratio=0.1, epochs=3.0)
    c.train.accumulation = 5  # 16 sequences at once: 1, 2, 4, 8 or 16 devices


def bert_base(c: ConfigDict) -> None:
    """Table 4: BERT base uncased on masked tokens alone, 48 sequences of 300 (12 x 4 devices)."""
    _model(c, "bert", layers=12, width=768, heads=12, vocabulary=30_522, length=300)
    _training(c, batch_size=48, peak_lr=1e-4, warmup_steps=3000, epochs=4.0)


def doremi_120m(c: ConfigDict) -> None:
    """Table 5: the 120M decoder of the paper's DoReMi, 64 sequences of 1,024 (8 x 8 devices)."""
    _model(c, "gpt2", layers=12, width=768, heads=12, vocabulary=50_257, length=1024)
    _training(c, batch_size=64, peak_lr=2e-4, warmup_steps=3000, epochs=1.0)


def _model(
    c: ConfigDict, name: str, *, layers: int, width: int, heads: int, vocabulary: int, length: int
) -> None:
    c.model.update({"name": name, "num_layers": layers, "d_model": width, "num_heads": heads})
    c.model.update({"vocab_size": vocabulary, "seq_len": length})
    c.model.update({"tie_embeddings": True, "embedding_std": 0.02})
    c.model.update({"dtype": "bfloat16", "remat": "dots"})


def _training(
    c: ConfigDict,
    *,
    batch_size: int,
    peak_lr: float,
    warmup_ratio: float = 0.0,
    warmup_steps: int = 0,
    epochs: float,
) -> None:
    c.train.update({"batch_size": batch_size, "peak_lr": peak_lr})
    c.train.update({"warmup_ratio": warmup_ratio, "warmup_steps": warmup_steps})
    c.train.update({"weight_decay": 1e-2, "b1": 0.9, "b2": 0.999, "clip_norm": 1.0})
    c.train.update({"eval_every_tokens": 25_000_000, "checkpoint_seconds": 600.0})
    c.study.max_epochs = epochs


def redpajama(c: ConfigDict) -> None:
    """The seven domains of RedPajama from SlimPajama's files, told apart by the field that names
    them, and LLaMA's weights of them among the mixtures to verify."""
    _llama(c, slices.by_meta("data/slimpajama/train/**/*.jsonl.zst"))


def redpajama_as_published(c: ConfigDict) -> None:
    """The same from RedPajama-Data-1T: a folder a domain, and of Wikipedia the English articles."""
    _llama(c, slices.by_file("data/redpajama"))


def _llama(c: ConfigDict, domains: dict[str, Any]) -> None:
    _samples(c)
    c.verify.extra = {"llama": LLAMA}
    c.data.domains = domains
    c.data.tokenizer = "data/gpt2/tokenizer.json"


def bert_corpora(c: ConfigDict) -> None:
    """The five training domains of BERT: four from TensorFlow Datasets in ArrayRecord files, and
    OpenWebText, which is not among them, from Parquet files."""
    _samples(c)
    c.data.domains = {
        name: {"path": path, "window": "random" if name == "arxiv" else "first"}
        for name, path in BERT_SETS.items()
    }
    c.data.tokenizer = "data/bert/tokenizer.json"


def variant_of(
    c: ConfigDict, variant: str, known: tuple[str, ...], corpora: Callable[[ConfigDict], None]
) -> None:
    """The last step of a config: the paper's corpora, or the small study of variant "smoke".

    Raises `BadInput` for a variant that is not known.
    """
    if variant not in known:
        raise BadInput(f"--config=...:{variant}: no such variant; there are {', '.join(known)}")
    if variant == "smoke":
        smoke(c)
    else:
        corpora(c)


def _samples(c: ConfigDict) -> None:
    """Documents of more than 1,000 characters, 1,000 of each; 10,000 held out from each domain."""
    c.data.update({"source": "files", "eval_tokens": 0})
    c.data.update({name: type(c.data[name])(n) for name, n in slices.PAPER_RULES.items()})


def smoke(c: ConfigDict) -> None:
    """The same study for a laptop's processor: a small model on embedded text, and a ten
    thousandth of the tokens."""
    c.model.update({"vocab_size": None, "num_layers": 1, "d_model": 64, "num_heads": 4})
    c.model.update({"seq_len": 64, "dtype": "float32"})
    c.train.update({"batch_size": 4, "accumulation": min(2, c.train.accumulation)})
    c.train.update({"peak_lr": 3e-3, "warmup_steps": c.train.warmup_steps // 100})
    c.train.update({"eval_every_tokens": 20_000, "checkpoint_seconds": 20.0})
    c.study.budgets = tuple(n // 10_000 for n in c.study.budgets)
    c.study.target_tokens //= 10_000
    c.execute.slots = 2
