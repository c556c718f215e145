"""The jitted training step, many steps a call so that Python costs nothing beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from autoscale_jax.models.gpt2 import GPT2
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe, learning_rate, make_optimizer


class TrainState(NamedTuple):
    """All that a run carries from step to step."""

    params: Any
    opt_state: Any
    step: jax.Array


TrainChunk = Callable[..., tuple[TrainState, jax.Array]]


def token_losses(model: GPT2, params: Any, tokens_BxL1: jax.Array) -> jax.Array:
    """Cross-entropy of each predicted token, [B, L] nats, float32."""
    logits_BxLxV = model.apply(params, tokens_BxL1[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, tokens_BxL1[:, 1:])


@functools.cache
def make_init(recipe: Recipe, mesh: Mesh) -> Callable[[int], TrainState]:
    """`seed -> fresh state` on the mesh; the same seed gives the same parameters."""
    model = GPT2(recipe.model)
    dummy = jnp.zeros((1, recipe.model.seq_len), jnp.int32)

    def init(key: jax.Array) -> TrainState:
        params = model.init(key, dummy)
        return TrainState(params, make_optimizer(recipe).init(params), jnp.zeros((), jnp.int32))

    compiled = jax.jit(init, out_shardings=meshes.replicated(mesh))
    return lambda seed: compiled(jax.random.key(seed))


@functools.cache
def make_train_chunk(recipe: Recipe, mesh: Mesh) -> TrainChunk:
    """Jitted `(state, total_steps, tokens_SxBxL1, weight_SxB, n) -> (state, loss_S)`.

    Takes the first `n` of S steps (n and total_steps are traced: one compilation serves runs of
    every length). Rows of weight 0 are padding. Entries of loss_S from n on are 0.
    """
    model, tx = GPT2(recipe.model), make_optimizer(recipe)

    def loss_of(params: Any, tokens_BxL1: jax.Array, weight_B: jax.Array) -> jax.Array:
        loss_BxL = token_losses(model, params, tokens_BxL1)
        return jnp.sum(loss_BxL.mean(1) * weight_B) / jnp.sum(weight_B)

    def chunk(
        state: TrainState,
        total_steps: jax.Array,
        tokens_SxBxL1: jax.Array,
        weight_SxB: jax.Array,
        n: jax.Array,
    ) -> tuple[TrainState, jax.Array]:
        def body(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
            (params, opt_state, step), loss_S = carry
            loss, grads = jax.value_and_grad(loss_of)(params, tokens_SxBxL1[i], weight_SxB[i])
            updates, opt_state = tx.update(grads, opt_state, params)
            rate = learning_rate(recipe, step, total_steps)
            params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
            return TrainState(params, opt_state, step + 1), loss_S.at[i].set(loss)

        losses = jnp.zeros(tokens_SxBxL1.shape[0], jnp.float32)
        return jax.lax.fori_loop(0, n, body, (state, losses))

    same, rows = meshes.replicated(mesh), meshes.batch_rows(mesh)
    return jax.jit(
        chunk,
        in_shardings=(same, same, rows, rows, same),
        out_shardings=(same, same),
        donate_argnums=(0,),
    )
