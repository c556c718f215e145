"""A tiny corpus and recipe that trains in a blink, shared by the tests of training and studies."""

import jax
import numpy as np
import pytest
from hypothesis import settings

from autoscale_jax.data import prepare
from autoscale_jax.models import GPT2Config
from autoscale_jax.pipeline import run_study
from autoscale_jax.train.recipe import Recipe

jax.config.update("jax_num_cpu_devices", 2)  # for the tests of sharding and slots

# The same examples every time; --hypothesis-profile=search looks at more of them, at random.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("same")

WORDS = {
    "birds": ["heron", "wren", "egret", "finch", "swift", "plover", "dunlin", "avocet"],
    "metals": ["iron", "tin", "zinc", "lead", "copper", "nickel", "cobalt", "silver", "gold"],
    "rivers": ["rhine", "loire", "tagus", "ebro", "elbe", "oder", "volga", "danube"],
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
        vocab_size=corpus.vocab_size,
        seq_len=16,
        num_layers=1,
        d_model=16,
        num_heads=2,
        tie_embeddings=False,
        embedding_std=0.1,
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


TINY_STUDY = """
from autoscale_jax.config import default_config


def get_config():
    config = default_config()
    config.data.update({data!r})
    config.model.update(dict(seq_len=16, d_model=16, num_heads=2))
    config.train.update(dict(peak_lr=1e-2, eval_every_tokens=6000, checkpoint_seconds=0.0))
    config.study.update(dict(budgets=(6000, 18000), target_tokens=36000, samples=20))
    config.execute.slots = 2
    return config
"""


@pytest.fixture(scope="session")
def tiny_file(data_settings, tmp_path_factory):
    """A config file of a whole study in seconds: three domains, two budgets, verification."""
    file = tmp_path_factory.mktemp("config") / "tiny.py"
    file.write_text(TINY_STUDY.format(data=data_settings))
    return file


@pytest.fixture
def tiny_config(tiny_file):
    names = {}
    exec(tiny_file.read_text(), names)
    return names["get_config"]()


@pytest.fixture(scope="session")
def whole_study(tiny_file, tmp_path_factory):
    """(folder, report.json) of the tiny study, run in this process without interruption."""
    names = {}
    exec(tiny_file.read_text(), names)
    folder = tmp_path_factory.mktemp("study")
    return folder, run_study(names["get_config"](), folder)
