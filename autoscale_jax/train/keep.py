"""Trained models beside a study's results: a folder a run, in Hugging Face's format."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import safetensors

from autoscale_jax.data import Corpus
from autoscale_jax.data.tokenize import HFTokenizer
from autoscale_jax.models import ModelConfig, hf
from autoscale_jax.specs import VERIFICATION_SEED
from autoscale_jax.train import processes
from autoscale_jax.train.group import Member


def keep_models(
    folder: Path, group: Sequence[Member], config: ModelConfig, params: Any, corpus: Corpus
) -> None:
    """Writes FOLDER/<run key>/ for each of K runs that belongs to verification and did not diverge.

    `params` are those of K stacked models [K, ...]; all processes call this, the first one writes.
    A folder is there whole or not at all, and is not written again. Proxies are left out: they are
    many, and means to an end. Raises `OSError` when the disk is full.
    """
    for k, member in enumerate(group):
        if member.problem or member.spec.seed < VERIFICATION_SEED:
            continue
        target = folder / member.key
        if processes.from_leader(target.exists()):
            continue
        own = processes.whole(jax.tree.map(lambda x, k=k: x[k], params))
        if processes.leads():
            _write(target, config, own, corpus)


def _write(target: Path, config: ModelConfig, params: Any, corpus: Corpus) -> None:
    unfinished = target.with_suffix(".tmp")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    try:
        hf.save(config, params, unfinished)
    except safetensors.SafetensorError as error:
        raise OSError(f"{target}: saving the model failed: {error}") from error
    if isinstance(corpus.tokenizer, HFTokenizer):
        (unfinished / "tokenizer.json").write_text(corpus.tokenizer.to_json(), "utf-8")
    unfinished.rename(target)
