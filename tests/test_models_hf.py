"""Hugging Face's format without torch: what torch computed, there and back, and other models."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from golden import make

from autoscale_jax import models
from autoscale_jax.models import hf
from autoscale_jax.specs import BadInput

GOLDEN = Path(__file__).parent / "golden"


def config_of(name, **changes):
    shape = {"seq_len": make.LENGTH, "num_layers": make.LAYERS, "d_model": make.WIDTH}
    return models.make_config(name, make.VOCAB, num_heads=make.HEADS, **shape | changes)


def random_params(config):
    """As `models.init` would make them: what pads the vocabulary is zero."""
    shapes = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype("f4"), shapes)
    for name in {"wte", "head", "head_bias"} & set(params):
        params[name][config.vocab_size :] = 0
    return params


def write_golden(name, folder):
    """The golden model as a folder in Hugging Face's format; its config."""
    config = config_of(name)
    hf.save(config, random_params(config), folder)
    file = folder / "model.safetensors"
    shapes = {key: value.shape for key, value in safetensors.numpy.load_file(file).items()}
    tensors = {key: make.formula(key, shape) for key, shape in shapes.items()}
    safetensors.numpy.save_file(tensors, file)
    return config, tensors


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_as_torch_computed(name, tmp_path):
    """Logits and loss to 1e-4, gradients to 1e-3 of their largest, in float32."""
    config, _ = write_golden(name, tmp_path)
    params, golden = hf.load(config, tmp_path), np.load(GOLDEN / f"{name}.npz")

    @jax.jit
    def everything(params):
        def mean(params):
            return models.token_losses(config, params, golden["inputs"], golden["targets"]).mean()

        return models.logits(config, params, golden["inputs"]), *jax.value_and_grad(mean)(params)

    logits, loss, gradients = everything(params)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
    assert loss == pytest.approx(float(golden["loss"]), abs=1e-4)
    views = dict(hf._views(config, jax.device_get(gradients)))
    for key in make.GRADIENTS[name]:
        expected = golden[key]
        np.testing.assert_allclose(views[key], expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_there_and_back(name, tmp_path):
    """Every tensor as it was; rows that pad the vocabulary are left out and come back as zeros."""
    config, tensors = write_golden(name, tmp_path)
    params = hf.load(config, tmp_path)
    hf.save(config, params, tmp_path / "again")
    again = safetensors.numpy.load_file(tmp_path / "again" / "model.safetensors")
    assert set(again) == set(tensors)
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(again[key], tensor)
    padded = config_of(name, vocab_size=131)
    assert padded.padded_vocab_size == 132
    params = random_params(padded)
    hf.save(padded, params, tmp_path / "padded")
    jax.tree.map(np.testing.assert_array_equal, params, hf.load(padded, tmp_path / "padded"))


def test_published_names(tmp_path):
    """As on the hub: gpt2 without "transformer." and with masks, BERT with TensorFlow's names."""
    config, tensors = write_golden("gpt2", tmp_path / "gpt2")
    short = {key.removeprefix("transformer."): value for key, value in tensors.items()}
    short["h.0.attn.bias"] = np.ones((1, 1, 12, 12), np.float32)
    safetensors.numpy.save_file(short, tmp_path / "gpt2/model.safetensors")
    assert (hf.load(config, tmp_path / "gpt2")["wte"] == tensors["transformer.wte.weight"]).all()
    config, tensors = write_golden("bert", tmp_path / "bert")
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): value
        for key, value in tensors.items()
    }
    old["bert.pooler.dense.bias"] = np.zeros(16, np.float32)
    safetensors.numpy.save_file(old, tmp_path / "bert/model.safetensors")
    norm = hf.load(config, tmp_path / "bert")["norm_in"]["scale"]
    assert (norm == tensors["bert.embeddings.LayerNorm.weight"]).all()


def edit(folder, change):
    file = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


def other_shape(folder):
    edit(folder, lambda t: t.update({"transformer.wpe.weight": np.zeros((12, 15), "f4")}))


def one_missing(folder):
    edit(folder, lambda t: t.pop("transformer.h.1.mlp.c_fc.bias"))


def one_more(folder):
    edit(folder, lambda t: t.update({"transformer.h.2.ln_1.bias": np.zeros(16, "f4")}))


def architecture(folder):
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"model_type": "llama"}))


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:999])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_shape, r"transformer.wpe.weight has shape \[12, 15\], .* needs \[12, 16\]: give"),
        (one_missing, "no tensor transformer.h.1.mlp.c_fc.bias: not a complete GPT2LMHeadModel"),
        (one_more, "unexpected tensor transformer.h.2.ln_1.bias: not a plain GPT2LMHeadModel"),
        (architecture, "config.json: model_type = 'llama', the config needs 'gpt2'"),
        (cut_short, "model.safetensors: not a safetensors file .*: fetch it again"),
        (lambda folder: (folder / "config.json").unlink(), "no such file: give a folder of"),
        (lambda folder: (folder / "model.safetensors").unlink(), "in it: save the model with"),
    ],
)
def test_other_models_are_refused(spoil, message, tmp_path):
    config, _ = write_golden("gpt2", tmp_path)
    spoil(tmp_path)
    with pytest.raises(BadInput, match=message):
        hf.load(config, tmp_path)
    with pytest.raises(BadInput, match=r"n_layer = 2, the config needs 3|no such|model_type|in it"):
        hf.load(config_of("gpt2", num_layers=3), tmp_path)
