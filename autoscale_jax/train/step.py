"""The jitted training step, many steps a call so that Python costs nothing beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from autoscale_jax import models
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe, learning_rate, make_optimizer


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    params: Any
    opt_state: Any
    step: jax.Array


Batch = dict[str, jax.Array]  # "inputs", "targets", "weight"
TrainChunk = Callable[..., tuple[TrainState, jax.Array]]


@functools.cache
def make_init(recipe: Recipe, mesh: Mesh) -> Callable[[int], TrainState]:
    """`seed -> fresh state` on the mesh; the same seed gives the same parameters."""

    def init(key: jax.Array) -> TrainState:
        params = models.init(recipe.model, key)
        return TrainState(params, make_optimizer(recipe).init(params), jnp.zeros((), jnp.int32))

    compiled = jax.jit(init, out_shardings=meshes.replicated(mesh))
    return lambda seed: compiled(jax.random.key(seed))


@functools.cache
def make_train_chunk(recipe: Recipe, mesh: Mesh) -> TrainChunk:
    """Jitted `(state, total_steps, batch_SxBxL, n) -> (state, loss_S)`.

    Takes the first `n` of S steps (n and total_steps are traced: one compilation serves runs of
    every length). Positions of weight 0 do not count. Entries of loss_S from n on are 0.
    """
    tx = make_optimizer(recipe)

    def loss_of(params: Any, batch: Batch) -> jax.Array:
        loss_BxL = models.token_losses(recipe.model, params, batch["inputs"], batch["targets"])
        return jnp.sum(loss_BxL * batch["weight"]) / jnp.sum(batch["weight"])

    def chunk(
        state: TrainState,
        total_steps: jax.Array,
        batch_SxBxL: Batch,
        n: jax.Array,
    ) -> tuple[TrainState, jax.Array]:
        def body(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
            (params, opt_state, step), loss_S = carry
            batch_BxL = {name: x_SxBxL[i] for name, x_SxBxL in batch_SxBxL.items()}
            loss, grads = jax.value_and_grad(loss_of)(params, batch_BxL)
            updates, opt_state = tx.update(grads, opt_state, params)
            rate = learning_rate(recipe, step, total_steps)
            params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
            return TrainState(params, opt_state, step + 1), loss_S.at[i].set(loss)

        losses = jnp.zeros(len(batch_SxBxL["weight"]), jnp.float32)
        return jax.lax.fori_loop(0, n, body, (state, losses))

    same, rows = meshes.replicated(mesh), meshes.batch_rows(mesh)
    return jax.jit(
        chunk,
        in_shardings=(same, same, rows, same),
        out_shardings=(same, same),
        donate_argnums=(0,),
    )
