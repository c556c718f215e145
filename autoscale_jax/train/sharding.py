"""Which mesh axis splits which axis of a parameter: one table of rules, applied outside the models.

K models of one program are stacked along a first axis that is never split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from autoscale_jax import models
from autoscale_jax.config.refusal import multiples_near
from autoscale_jax.specs import BadInput
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe

# Logical axes that are not named here are not split.
RULES: Mapping[str, str] = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "mlp": "tensor"}


def partition(axes: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How an array with these logical axes lies on the mesh.

    An axis whose length the mesh axis does not divide is kept whole.
    """
    wanted = [RULES.get(axis) for axis in axes]
    return PartitionSpec(
        *(
            name if name and length % mesh.shape[name] == 0 else None
            for name, length in zip(wanted, shape, strict=True)
        )
    )


def param_shardings(config: models.ModelConfig, mesh: Mesh) -> Any:
    """A NamedSharding for each parameter of K stacked models [K, ...]."""
    abstract = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))

    def one(leaf: jax.ShapeDtypeStruct, axes: tuple[str, ...]) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(None, *partition(axes, leaf.shape, mesh)))

    return jax.tree.map(one, abstract, models.logical_axes(config))


def optimizer_shardings(
    tx: optax.GradientTransformation, config: models.ModelConfig, mesh: Mesh
) -> Any:
    """The same for the optimiser's state: moments lie as their parameters do, counts everywhere."""
    abstract = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    return optax.tree_utils.tree_map_params(
        tx,
        lambda _, sharding: sharding,
        jax.eval_shape(tx.init, abstract),
        param_shardings(config, mesh),
        transform_non_params=lambda _: meshes.replicated(mesh),
    )


def check_mesh(config: models.ModelConfig, mesh: Mesh) -> None:
    """Raises `BadInput` when the mesh would cut through an attention head."""
    tensor = mesh.shape["tensor"]
    if config.num_heads % tensor:
        raise BadInput(
            f"config.mesh.tensor = {tensor}: must divide config.model.num_heads = "
            f"{config.num_heads}"
        )


def check_batch(recipe: Recipe, mesh: Mesh) -> None:
    """Raises `BadInput` when microbatches do not divide among the devices."""
    rows, shards, micro = recipe.batch_size, meshes.row_shards(mesh), recipe.accumulation
    if rows % (micro * shards):
        raise BadInput(
            f"config.train.batch_size = {rows}: must be a multiple of {micro} x {shards}, "
            "microbatches (config.train.accumulation) times devices that share the rows; "
            f"{multiples_near(rows, micro * shards)}"
        )
