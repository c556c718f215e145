"""A tiny corpus and recipe that trains in a blink, shared by the tests of training and studies."""

import jax
import numpy as np
import pytest

from autoscale_jax.data import prepare
from autoscale_jax.models.gpt2 import GPT2Config
from autoscale_jax.train.recipe import Recipe

jax.config.update("jax_num_cpu_devices", 2)  # for the tests of sharding and slots

WORDS = {
    "birds": "heron wren egret finch swift plover dunlin avocet".split(),
    "metals": "iron tin zinc lead copper nickel cobalt silver gold".split(),
    "rivers": "rhine loire tagus ebro elbe oder volga danube".split(),
}


@pytest.fixture(scope="session")
def text_files(tmp_path_factory):
    """Folder with 80 text files of each of three domains, all different."""
    folder = tmp_path_factory.mktemp("text")
    for name, words in WORDS.items():
        rng = np.random.default_rng(len(name))
        for i in range(80):
            text = " ".join(rng.choice(words, 60))
            (folder / f"{name}_{i:02}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def data_settings(text_files):
    """config.data of the tiny corpus."""
    return {
        "source": "files",
        "domains": {name: str(text_files / f"{name}_*.txt") for name in WORDS},
        "tokenizer": "bytes",
        "eval_tokens": 0,
    }


@pytest.fixture(scope="session")
def corpus(data_settings, tmp_path_factory):
    return prepare(data_settings, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def recipe(corpus):
    model = GPT2Config(
        vocab_size=corpus.vocab_size, seq_len=16, num_layers=1, d_model=16, num_heads=2
    )
    return Recipe(
        model=model,
        batch_size=4,
        peak_lr=1e-2,
        warmup_ratio=0.1,
        weight_decay=0.01,
        b1=0.9,
        b2=0.95,
        clip_norm=1.0,
        eval_every_tokens=4096,
        seed=7,
    )
