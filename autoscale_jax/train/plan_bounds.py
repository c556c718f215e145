"""What a training step needs at least, before anything is compiled: memory and time by arithmetic.

Bounds rule alternatives out and rank the others; the compiled program decides.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from autoscale_jax import models
from autoscale_jax.models import loss
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.plan_targets import Chip
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.sharding import param_shardings
from autoscale_jax.train.step import chunk_steps

# Widths of the model that the backward pass finds saved, by token and layer: whole on every device,
# and split over "tensor". full: the block's input. dots: also queries, keys, values and the outcome
# of attention, its projection, and the MLP's hidden layer. none: also norms and the activation.
SAVED: Mapping[str, tuple[int, int]] = {"full": (1, 0), "dots": (2, 8), "none": (4, 12)}


def least_memory(recipe: Recipe, mesh: Mesh, count: int = 1) -> dict[str, float]:
    """Bytes on each device by what they are, of `count` models in one program.

    Left out: what is gathered, the compiler's buffers, and attention's scores where the
    implementation keeps them.
    """
    model = recipe.model
    parameters = float(count * _own_bytes(recipe, mesh))
    rows = recipe.batch_size // recipe.accumulation // meshes.row_shards(mesh)
    whole, split = SAVED[model.remat]
    width = model.d_model * (whole + split / mesh.shape["tensor"])
    item = 2 if model.dtype == "bfloat16" else 4
    columns = model.padded_vocab_size // mesh.shape["tensor"]
    pieces = loss.pieces(rows, model.seq_len, columns)
    tokens = chunk_steps(recipe) * recipe.step_tokens / meshes.row_shards(mesh)
    return {
        "parameters": parameters,
        "moments": 2 * parameters,
        "gradients": parameters * (1 if recipe.accumulation == 1 else 2),
        "batches": count * tokens * 12.0,  # inputs, targets, weights of all steps of a call
        "activations": count * model.num_layers * rows * model.seq_len * width * item,
        "logits": count * 4.0 * rows * model.seq_len * columns / pieces,
    }


def least_seconds(recipe: Recipe, mesh: Mesh, chip: Chip) -> float:
    """Of a step: products, then the optimiser's memory traffic; all of the communication is hidden
    behind them, if it takes no longer."""
    products = least_flops(recipe) / mesh.size / chip.flops
    work = products + state_traffic(recipe, mesh) / chip.bandwidth
    return max(work, least_exchange(recipe, mesh) / chip.link)


def state_traffic(recipe: Recipe, mesh: Mesh) -> float:
    """Bytes of a device's memory that a step moves for its optimiser: gradients are read,
    parameters and moments read and written; those of each further microbatch are added up."""
    own = _own_bytes(recipe, mesh)
    return own * (7.0 + 3.0 * (recipe.accumulation - 1))


def least_flops(recipe: Recipe) -> float:
    """Products of a step on all devices together, what is computed again included, and of causal
    attention only the half that is seen."""
    model = recipe.model
    square = 4.0 * model.num_layers * model.seq_len * model.d_model  # of a forward pass
    seen = square * (0.5 if isinstance(model, models.GPT2Config) else 1.0)
    dense = _flops_per_token(_plain(recipe)) - 3 * square
    again = 0.0
    if model.remat == "full":  # all of the blocks' forward pass but the MLP's last product
        head = 6.0 * model.vocab_size * model.d_model
        again = (dense - head) / 3 + seen - 8.0 * model.num_layers * model.d_model**2
    return recipe.step_tokens * (dense + 3 * seen + again)


def least_exchange(recipe: Recipe, mesh: Mesh) -> float:
    """Bytes a device takes in, in 16 bits: split parameters are gathered for both passes of each
    microbatch and their gradients summed; whole ones' gradients are summed once a step."""
    own = _own_bytes(recipe, mesh) / 2
    fsdp, data = mesh.shape["fsdp"], mesh.shape["data"]
    gathered = 3.0 * recipe.accumulation * own * (fsdp - 1)
    return gathered + 2.0 * own * (data - 1) / data


def _own_bytes(recipe: Recipe, mesh: Mesh) -> int:
    """What one device holds of one model's parameters."""
    return _bytes_of_parameters(_plain(recipe), mesh)


def _plain(recipe: Recipe) -> models.ModelConfig:
    """The model, whatever is recomputed: a search asks for the same numbers hundreds of times."""
    return dataclasses.replace(recipe.model, remat="none")


@functools.cache
def _flops_per_token(model: models.ModelConfig) -> float:
    return models.flops_per_token(model)


@functools.cache
def _bytes_of_parameters(model: models.ModelConfig, mesh: Mesh) -> int:
    abstract = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))

    def one(leaf: jax.ShapeDtypeStruct, sharding: Any) -> int:
        return leaf.dtype.itemsize * math.prod(sharding.shard_shape((1, *leaf.shape)))

    return sum(jax.tree.leaves(jax.tree.map(one, abstract, param_shardings(model, mesh))))
