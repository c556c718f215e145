"""Every config and variant builds, is valid and states the paper's settings; `:smoke` runs."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow_datasets
import tensorflow_datasets.text
from absl import flags
from ml_collections import config_flags

from autoscale_jax import paper
from autoscale_jax.config import check_domains, default_config, from_flags, validate
from autoscale_jax.data.sources import parse, tfds
from autoscale_jax.models import BertConfig, flops_per_token, num_parameters
from autoscale_jax.specs import BadInput
from autoscale_jax.train.plan import study_tokens, vocabulary
from autoscale_jax.train.recipe import by_size, from_config

ROOT = Path(__file__).parent.parent
VARIANTS = {
    "gpt2_ddo": ("paper", "redpajama", "120m", "smoke", "local"),
    "gpt2_autoscale": ("paper", "10b", "120m", "smoke"),
    "bert_ddo": ("paper", "smoke"),
    "bert_autoscale": ("paper", "36k", "smoke"),
    "gpt2_mfms_bo": ("paper", "smoke"),
}
ALL = [(name, variant) for name, variants in VARIANTS.items() for variant in variants]


def build(name, variant=None):
    """As the command line does it."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    file = str(ROOT / "configs" / f"{name}.py") + (f":{variant}" if variant else "")
    return from_flags(values, ["launch", f"--config={file}"])


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_variant_is_valid_from_config_to_recipe(name, variant):
    config = build(name, variant)
    validate(config)
    if config.data.domains:
        check_domains(config, tuple(config.data.domains))
        for domain, source in config.data.domains.items():
            assert parse(domain, source).paths
    if variant != "local":
        by_size(config, vocabulary(config))


def test_the_data_sets_of_configs_exist_in_tensorflow_datasets():
    paths = {
        path
        for name, variant in ALL
        for domain, source in (build(name, variant).data.domains or {}).items()
        for path in parse(domain, source).paths
        if path.startswith(tfds.PREFIX)
    }
    assert len(paths) == 4
    for path in paths:
        data_set, config = (*tfds.split_name(path)[0].split("/"), "")[:2]
        builder = tensorflow_datasets.builder_cls(data_set)
        assert not config or config in builder.builder_configs
    with pytest.raises(tensorflow_datasets.core.registered.DatasetNotFoundError):
        tensorflow_datasets.builder_cls("openwebtext")


def test_the_papers_wikipedia_is_english_where_the_files_say_so():
    assert build("gpt2_ddo", "redpajama").data.domains["wikipedia"]["where"] == {
        "meta.language": "en"
    }
    domains = (build("gpt2_ddo", variant).data.domains for variant in ("paper", "redpajama"))
    assert len({tuple(sorted(names)) for names in domains}) == 1


@pytest.mark.parametrize("name", VARIANTS)
def test_the_papers_size_is_the_default_and_others_are_named(name):
    assert build(name).to_dict() == build(name, "paper").to_dict()
    with pytest.raises(BadInput, match="no such variant; there are paper"):
        build(name, "enormous")


GPT2_LARGE = {"name": "gpt2", "layers": 36, "width": 1280, "heads": 20, "vocabulary": 50_257}
BERT_BASE = {"name": "bert", "layers": 12, "width": 768, "heads": 12, "vocabulary": 30_522}
DECODER_120M = {"name": "gpt2", "layers": 12, "width": 768, "heads": 12, "vocabulary": 50_257}
# Batches of the paper: rows a device x devices x accumulation.
TABLES = {
    "3": GPT2_LARGE
    | {"length": 1024, "rows": 1 * 8 * 10, "peak_lr": 2e-4, "warmup": (0.1, 0), "epochs": 3},
    "4": BERT_BASE
    | {"length": 300, "rows": 12 * 4, "peak_lr": 1e-4, "warmup": (0.0, 3000), "epochs": 4},
    "5": DECODER_120M
    | {"length": 1024, "rows": 8 * 8, "peak_lr": 2e-4, "warmup": (0.0, 3000), "epochs": 1},
}


@pytest.mark.parametrize(
    ("change", "table", "millions"),
    [
        (paper.gpt2_large, "3", 774.0),
        (paper.bert_base, "4", 109.5),
        (paper.doremi_120m, "5", 124.4),
    ],
)
def test_tables_three_to_five(change, table, millions):
    config = default_config()
    change(config)
    recipe = from_config(config, config.model.vocab_size)
    model = recipe.model
    assert {
        "name": "bert" if isinstance(model, BertConfig) else "gpt2",
        "layers": model.num_layers,
        "width": model.d_model,
        "heads": model.num_heads,
        "vocabulary": model.vocab_size,
        "length": model.seq_len,
        "rows": recipe.batch_size,
        "peak_lr": recipe.peak_lr,
        "warmup": (recipe.warmup_ratio, recipe.warmup_steps),
        "epochs": config.study.max_epochs,
    } == TABLES[table]
    # what the three tables share, and what their libraries do where they say nothing
    assert (recipe.schedule, recipe.weight_decay) == ("linear", 1e-2)
    assert (recipe.b1, recipe.b2, recipe.clip_norm) == (0.9, 0.999, 1.0)
    assert model.tie_embeddings and model.mlp_width == 4 * model.d_model
    assert num_parameters(model) / 1e6 == pytest.approx(millions, rel=0.01)


def test_llamas_weights_are_a_mixture():
    assert sum(paper.LLAMA.values()) == pytest.approx(1.0)


def docstring(name):
    return ast.get_docstring(ast.parse((ROOT / "configs" / f"{name}.py").read_text()))


def test_a_search_states_its_models_and_flops():
    text, config = docstring("gpt2_mfms_bo"), build("gpt2_mfms_bo")
    recipes = by_size(config, vocabulary(config))
    millions = [round(num_parameters(recipe.model) / 1e6) for recipe in recipes.values()]
    assert [f"{n}m" for n in millions[:-1]] == list(recipes)[:-1]
    assert "{}M, {}M and {}M\nparameters and the target itself, {}M".format(*millions) in text
    steps = config.search.steps
    assert f"for {steps[0]:,} to {steps[-1]:,} steps of 80 x 1,024 tokens" in text
    flops = flops_per_token(recipes["target"].model) * sum(study_tokens(config, 7))
    assert f"seven trainings of the target, {flops:.2e} FLOPs".replace("e+", "e") in text
    assert sum(study_tokens(config, 7)) == 7 * config.study.target_tokens


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "gpt2_mfms_bo"])
def test_a_docstring_states_the_size_of_its_study(name):
    """Trainings and tokens in words are those of the config."""
    text, config = docstring(name), build(name)
    proxies, verification = study_tokens(config, len(config.data.domains))
    domains, seeds = len(config.data.domains), config.study.base_seeds
    proxy_runs = len(config.study.budgets) * (seeds + 2 * domains)
    mixtures = len(config.verify.mixtures) + len(config.verify.extra or {})
    found = re.search(r"(\d+)( proxy)? trainings on\s+([\d.]+)B|(\d+) trainings, ([\d.]+)B", text)
    if found.group(1):
        assert (int(found.group(1)), float(found.group(3))) == (proxy_runs, round(proxies / 1e9, 1))
    else:
        total = round((proxies + verification) / 1e9, 1)
        assert (int(found.group(4)), float(found.group(5))) == (proxy_runs + mixtures, total)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_smoke_runs_the_whole_path(name, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "autoscale_jax.launch"),
            *(f"--config=configs/{name}.py:smoke", f"--workdir={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text())
    trained = {row["mixture"] for row in report["verification"] if row["status"] == "ok"}
    assert {"uniform", "predicted"} <= trained
    assert all(run["status"] == "ok" for run in report["runs"])
