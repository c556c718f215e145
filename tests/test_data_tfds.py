"""TensorFlow Datasets, built here in their own ArrayRecord format, read without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tensorflow_datasets.text

from autoscale_jax.data import prepare, sources
from autoscale_jax.specs import BadInput

SETS = (
    ("scientific_papers", "arxiv"),
    ("wikipedia", "20230601.en"),
    ("c4", "en"),
    ("amazon_us_reviews", "Books_v1_00"),
    ("pg19", None),
    ("lm1b", None),
)
FIELD = {"scientific_papers": "article", "amazon_us_reviews": "review_body", "pg19": "book_text"}


def features_of(name: str, config: str | None, folder) -> tfds.features.FeaturesDict:
    """Those of the real data set, as its builder declares them."""
    chosen = {"config": config} if config else {}
    return tfds.builder_cls(name)(data_dir=str(folder), **chosen).info.features


def text_of(name: str, i: int) -> str:
    return f"{name} document {i}: " + f"{name}{i} " * (i % 7 + 3)


def filled(features: tfds.features.FeaturesDict, wanted: str, text: str) -> dict:
    """One example: `text` in the wanted field, something else in all others."""
    example = {}
    for name, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            example[name] = filled(feature, wanted, text)
        elif np.issubdtype(feature.np_dtype, np.integer):
            example[name] = 1
        else:
            example[name] = text if name == wanted else "not this"
    return example


def build(folder, name: str, config: str | None, n: int, file_format="array_record") -> None:
    features = features_of(name, config, folder / "real")

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []
        pkg_dir_path = folder

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(n):
                yield i, filled(features, FIELD.get(name, "text"), text_of(name, i))

    Tiny.name = name
    Tiny(data_dir=folder, config=config, file_format=file_format).download_and_prepare()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for name, config in SETS:
        build(folder, name, config, 40)
    return folder


def path(name: str, config: str | None) -> str:
    return f"tfds:{name}/{config}:train" if config else f"tfds:{name}:train"


@pytest.mark.parametrize("key", SETS, ids=lambda key: key[0])
def test_each_data_set_gives_its_documents_by_random_access(data_dir, key):
    source = sources.parse("a", {"path": path(*key), "data_dir": str(data_dir)})
    data = sources.dataset("a", source)
    assert sorted(data) == sorted(text_of(key[0], i) for i in range(40))
    assert data[33] == list(data)[33]


def test_ranges_of_records_share_a_split(data_dir):
    source = sources.parse("a", {"path": "tfds:lm1b:train", "data_dir": str(data_dir)})
    units = sources.units_of("a", source, most_bytes=700)
    assert len(units) > 2
    parts = [sources.Documents(unit) for unit in units]
    texts = [part[i] for part in parts for i in range(len(part))]
    assert sorted(texts) == sorted(text_of("lm1b", i) for i in range(40))
    assert len({unit.identity()[2] for unit in units}) == len(units)


def test_a_corpus_of_data_sets_without_tensorflow(data_dir, tmp_path):
    domains = {
        name: {"path": path(name, config), "data_dir": str(data_dir)} for name, config in SETS
    }
    corpus = prepare({"source": "files", "domains": domains, "tokenizer": "bytes"}, tmp_path)
    assert [d.name for d in corpus.domains] == sorted(domains)
    assert all(d.train_documents + d.eval_documents == 40 for d in corpus.domains)
    code = """
import sys
from autoscale_jax.data.sources import tfds
assert tfds.units("tfds:lm1b:train", sys.argv[1], 9)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(data_dir)], check=True)


def test_what_is_not_there_is_named(data_dir, tmp_path):
    for name, message in {
        "tfds:lm1b:test": r"tfds:lm1b:test: no split 'test' in .*lm1b/1\.0\.0; it has train",
        "tfds:c5:train": r"tfds:c5: no prepared data set in .*c5; build it with tfds build",
        "tfds:wikipedia:train": r"tfds:wikipedia: no prepared data set in .*name its config",
    }.items():
        with pytest.raises(BadInput, match=message):
            sources.units_of("a", sources.parse("a", {"path": name, "data_dir": str(data_dir)}))


def test_a_truncated_array_record_is_named(tmp_path):
    build(tmp_path, "lm1b", None, 2000)
    (shard,) = tmp_path.glob("lm1b/1.0.0/*.array_record*")
    whole = shard.read_bytes()
    source = sources.parse("a", {"path": "tfds:lm1b:train", "data_dir": str(tmp_path)})
    for content, message in (
        (whole[: len(whole) // 2], r"lm1b/1\.0\.0: record 0 of .*lm1b-train.*: damaged"),
        (b"", r"lm1b-train\.array_record-00000-of-00001: is missing or empty"),
    ):
        shard.write_bytes(content)
        with pytest.raises(BadInput, match=message):
            sources.Documents(sources.units_of("a", source)[0])[0]
