"""Models to and from Hugging Face's format: a folder of config.json and *.safetensors.

What `save` writes opens in `transformers` (GPT2LMHeadModel, BertForMaskedLM), and `load` reads what
`save_pretrained` writes and what their hub holds. Neither needs torch or transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from autoscale_jax import models
from autoscale_jax.models import layers
from autoscale_jax.specs import BadInput


class Format(NamedTuple):
    """How Hugging Face keeps an architecture."""

    architecture: str
    fields: dict[str, str]  # of config.json, and the field of ours that they hold
    constants: dict[str, Any]  # further fields of config.json that ours imply
    names: dict[str, str]  # our parameters' and modules' paths, and theirs
    untied: dict[str, str]  # names that are others where the output matrix is one of its own
    transposed: bool  # torch's Linear keeps kernels as [out, in]
    ignored: str  # pattern of tensors of theirs that hold nothing to read


GPT2 = Format(
    "GPT2LMHeadModel",
    {
        "vocab_size": "vocab_size",
        "n_positions": "seq_len",
        "n_layer": "num_layers",
        "n_embd": "d_model",
        "n_head": "num_heads",
        "n_inner": "mlp_width",
        "tie_word_embeddings": "tie_embeddings",
    },
    {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    {
        "wte": "transformer.wte.weight",
        "wpe": "transformer.wpe.weight",
        "head": "lm_head.weight",
        "norm_out": "transformer.ln_f",
        "layers/norm_attention": "transformer.h.{layer}.ln_1",
        "layers/attention/qkv": "transformer.h.{layer}.attn.c_attn",
        "layers/attention/out": "transformer.h.{layer}.attn.c_proj",
        "layers/norm_mlp": "transformer.h.{layer}.ln_2",
        "layers/mlp/in": "transformer.h.{layer}.mlp.c_fc",
        "layers/mlp/out": "transformer.h.{layer}.mlp.c_proj",
    },
    untied={},
    transposed=False,
    ignored=r"lm_head\.weight|.*\.attn\.(masked_)?bias",  # a tied matrix, causal masks
)
BERT = Format(
    "BertForMaskedLM",
    {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "seq_len",
        "num_hidden_layers": "num_layers",
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "intermediate_size": "mlp_width",
        "tie_word_embeddings": "tie_embeddings",
    },
    {
        "model_type": "bert",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "pad_token_id": None,
    },
    {
        "wte": "bert.embeddings.word_embeddings.weight",
        "wpe": "bert.embeddings.position_embeddings.weight",
        "segment": "bert.embeddings.token_type_embeddings.weight",
        "head": "cls.predictions.decoder.weight",
        "head_bias": "cls.predictions.bias",
        "norm_in": "bert.embeddings.LayerNorm",
        "transform": "cls.predictions.transform.dense",
        "norm_out": "cls.predictions.transform.LayerNorm",
        "layers/attention/qkv": "bert.encoder.layer.{layer}.attention.self.{part}",
        "layers/attention/out": "bert.encoder.layer.{layer}.attention.output.dense",
        "layers/norm_attention": "bert.encoder.layer.{layer}.attention.output.LayerNorm",
        "layers/mlp/in": "bert.encoder.layer.{layer}.intermediate.dense",
        "layers/mlp/out": "bert.encoder.layer.{layer}.output.dense",
        "layers/norm_mlp": "bert.encoder.layer.{layer}.output.LayerNorm",
    },
    untied={"head_bias": "cls.predictions.decoder.bias"},
    transposed=True,
    ignored=r"cls\.predictions\.(decoder\.(weight|bias)|bias)|cls\.seq_relationship\..*|"
    r"bert\.pooler\..*|bert\.embeddings\.position_ids",
)
# What published weights call otherwise: gpt2's lack the first part, BERT's are TensorFlow's.
RENAMED = ((r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."), (r"gamma$", "weight"), (r"beta$", "bias"))


def save(config: models.ModelConfig, params: Any, path: str | Path) -> None:
    """Write the parameters to `path`, a folder, made if need be; float32."""
    form, folder = _format(config), Path(path)
    views = _views(config, jax.device_get(params))
    tensors = {name: np.ascontiguousarray(view) for name, view in views}
    about = {theirs: getattr(config, ours) for theirs, ours in form.fields.items()}
    about |= form.constants | {"architectures": [form.architecture]}
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(about, indent=2) + "\n")


def load(config: models.ModelConfig, path: str | Path) -> Any:
    """The parameters in a folder, as a pytree of float32 numpy arrays, for `config`.

    Raises `BadInput` when the folder is incomplete or holds another model than the config's.
    """
    form, folder = _format(config), Path(path)
    _check_config(config, form, folder)
    tensors = _read(folder)
    shapes = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    for name, view in _views(config, params):
        if name not in tensors:
            raise BadInput(f"{folder}: no tensor {name}: not a complete {form.architecture}")
        tensor = tensors.pop(name)
        if tensor.shape != view.shape:
            raise BadInput(
                f"{folder}: {name} has shape {list(tensor.shape)}, the config needs "
                f"{list(view.shape)}: give the config of this model"
            )
        view[...] = tensor
    for name in tensors:
        if not re.fullmatch(form.ignored, name):
            raise BadInput(f"{folder}: unexpected tensor {name}: not a plain {form.architecture}")
    return params


def _format(config: models.ModelConfig) -> Format:
    return BERT if isinstance(config, models.BertConfig) else GPT2


def _check_config(config: models.ModelConfig, form: Format, folder: Path) -> None:
    file = folder / "config.json"
    if not file.is_file():
        raise BadInput(f"{file}: no such file: give a folder of config.json and *.safetensors")
    about = json.loads(file.read_text())
    wanted = {theirs: getattr(config, ours) for theirs, ours in form.fields.items()}
    for field, value in (form.constants | wanted).items():
        found = about.get(field)  # null and absent stand for the usual
        of_training = field.endswith(("_pdrop", "_prob", "_token_id"))
        if not of_training and found is not None and found != value:
            raise BadInput(f"{file}: {field} = {found!r}, the config needs {value!r}")


def _read(folder: Path) -> dict[str, np.ndarray]:
    """All tensors in the folder's files, by the name they have today."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BadInput(f"{folder}: no *.safetensors in it: save the model with save_pretrained")
    tensors = {}
    for file in files:
        try:
            found = safetensors.numpy.load_file(file)
        except safetensors.SafetensorError as error:
            raise BadInput(f"{file}: not a safetensors file ({error}): fetch it again") from error
        for name, tensor in found.items():
            for old, new in RENAMED:
                name = re.sub(old, new, name)
            tensors[name] = tensor
    return tensors


def _views(config: models.ModelConfig, params: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and place of each of their tensors: a view of ours in the shape of theirs."""
    form = _format(config)
    names = form.names if config.tie_embeddings else form.names | form.untied
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        at = layers.path_of(path)
        module, _, kind = at.rpartition("/")
        name = names.get(at) or names[module] + (".bias" if kind == "bias" else ".weight")
        parts = ("query", "key", "value") if "{part}" in name else ("",)
        for layer, one in enumerate(leaf) if at.startswith("layers/") else [(0, leaf)]:
            for j, part in enumerate(parts):
                view = _part(config, at, one, j, len(parts))
                transposed = form.transposed and kind == "kernel"
                yield name.format(layer=layer, part=part), view.T if transposed else view


def _part(config: models.ModelConfig, at: str, leaf: np.ndarray, j: int, parts: int) -> np.ndarray:
    """Part j of `parts` that lie side by side in an array of one layer, as a matrix or vector."""
    if at.endswith("kernel"):
        fan_in = config.mlp_width if at.endswith("mlp/out/kernel") else config.d_model
        return leaf.reshape(fan_in, parts, -1)[:, j]
    if at in ("wte", "head", "head_bias"):
        return leaf[: config.vocab_size]
    return leaf if at in ("wpe", "segment") else leaf.reshape(parts, -1)[j]
