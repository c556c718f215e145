"""The jitted training step: many steps a call, so that Python costs nothing beside it, and K
models of one shape a program, each on its own data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from autoscale_jax import models
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe, learning_rate, make_optimizer
from autoscale_jax.train.sharding import optimizer_shardings, param_shardings

MOST_STEPS = 128  # of one compiled call, and so how finely progress is seen
MOST_TOKENS = 2**19  # of one compiled call, of one model


class TrainState(NamedTuple):
    """All that K runs carry from step to step: every leaf is [K, ...]."""

    params: Any
    opt_state: Any
    step: jax.Array


Batch = dict[str, jax.Array]  # "inputs", "targets", "weight" and, where they matter, "segments"


def chunk_steps(recipe: Recipe) -> int:
    """S, the most steps of one compiled call."""
    return max(1, min(MOST_STEPS, MOST_TOKENS // recipe.step_tokens))


def losses_of(recipe: Recipe, params: Any, batch_BxL: Batch) -> jax.Array:
    """Cross-entropy of each position of a batch, [B, L] nats."""
    inputs_BxL, targets_BxL = batch_BxL["inputs"], batch_BxL["targets"]
    segments_BxL = batch_BxL.get("segments")
    return models.token_losses(recipe.model, params, inputs_BxL, targets_BxL, segments_BxL)


def over_models(one: Callable[..., Any], count: int) -> Callable[..., Any]:
    """`one` for K stacked models. A single one is unstacked: no batched products, no cost."""
    if count > 1:
        return jax.vmap(one)

    def single(*stacked: Any) -> Any:
        result = one(*jax.tree.map(lambda x: x[0], stacked))
        return jax.tree.map(lambda x: x[None], result)

    return single


@functools.cache
def state_shardings(recipe: Recipe, mesh: Mesh) -> Any:
    """Where the state of K models lies: a TrainState of shardings."""
    place: Any = TrainState
    return place(
        param_shardings(recipe.model, mesh),
        optimizer_shardings(make_optimizer(recipe), recipe.model, mesh),
        meshes.replicated(mesh),
    )


def _init_one(recipe: Recipe, seed: jax.Array) -> TrainState:
    params = models.init(recipe.model, jax.random.key(seed))
    return TrainState(params, make_optimizer(recipe).init(params), jnp.zeros((), jnp.int32))


@functools.cache
def make_init(recipe: Recipe, mesh: Mesh, count: int = 1) -> Callable[[Sequence[int]], TrainState]:
    """`seed_K -> fresh state` on the mesh; the same seed gives the same parameters."""
    init = over_models(functools.partial(_init_one, recipe), count)
    compiled = jax.jit(init, out_shardings=state_shardings(recipe, mesh))

    def start(seed_K: Sequence[int]) -> TrainState:
        with jax.set_mesh(mesh):
            return compiled(np.asarray(seed_K, np.uint32))

    return start


def lower_train_chunk(recipe: Recipe, mesh: Mesh, count: int = 1) -> jax.stages.Lowered:
    """The training program of K = `count` models, not yet compiled; allocates nothing.

    `(state, total_steps_K, batch_SxKxMxBxL, n) -> (state, loss_SxK)`: takes the first `n` of S
    steps (n and total_steps are traced: one compilation serves runs of every length), each over M
    microbatches of B rows. The state is donated. Positions of weight 0 do not count. Entries of
    loss_SxK from n on are 0. A model past its last step stays as it is, whatever its batch.
    """
    steps, rows = chunk_steps(recipe), recipe.batch_size // recipe.accumulation
    train_step = over_models(functools.partial(_train_step, recipe), count)

    def chunk(
        state: TrainState, total_steps_K: jax.Array, batch_SxKxMxBxL: Batch, n: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        def body(i: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
            state, loss_SxK = carry
            batch_KxMxBxL = {name: x[i] for name, x in batch_SxKxMxBxL.items()}
            state, loss_K = train_step(state, total_steps_K, batch_KxMxBxL)
            return state, loss_SxK.at[i].set(loss_K)

        return jax.lax.fori_loop(0, n, body, (state, jnp.zeros((steps, count), jnp.float32)))

    same, shardings = meshes.replicated(mesh), state_shardings(recipe, mesh)
    jitted = jax.jit(
        chunk,
        in_shardings=(shardings, same, meshes.rows(mesh, 3), same),
        out_shardings=(shardings, same),
        donate_argnums=(0,),
    )
    init = over_models(functools.partial(_init_one, recipe), count)
    state = jax.eval_shape(init, jax.ShapeDtypeStruct((count,), jnp.uint32))
    shape = (steps, count, recipe.accumulation, rows, recipe.model.seq_len)
    kinds = {"inputs": jnp.int32, "targets": jnp.int32, "weight": jnp.float32}
    if recipe.model.document_attention:
        kinds["segments"] = jnp.int32
    with jax.set_mesh(mesh):  # which the models ask for
        return jitted.lower(
            state,
            jax.ShapeDtypeStruct((count,), jnp.float32),
            {name: jax.ShapeDtypeStruct(shape, kind) for name, kind in kinds.items()},
            jax.ShapeDtypeStruct((), jnp.int32),
        )


@functools.cache
def make_train_chunk(recipe: Recipe, mesh: Mesh, count: int = 1) -> jax.stages.Compiled:
    """The compiled program of `lower_train_chunk`."""
    return lower_train_chunk(recipe, mesh, count).compile()


def _train_step(
    recipe: Recipe, state: TrainState, total_steps: jax.Array, batch_MxBxL: Batch
) -> tuple[TrainState, jax.Array]:
    params, opt_state, step = state
    loss, grads = _mean_loss_and_grads(recipe, params, batch_MxBxL)
    with jax.named_scope("optimizer"):  # as profiles show it
        updates, opt_state = make_optimizer(recipe).update(grads, opt_state, params)
        rate = learning_rate(recipe, step, total_steps)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
    return TrainState(params, opt_state, step + 1), loss


def _mean_loss_and_grads(recipe: Recipe, params: Any, batch_MxBxL: Batch) -> tuple[jax.Array, Any]:
    """Mean over the tokens of all microbatches, each divided by the weight of them all."""
    weight = jnp.maximum(jnp.sum(batch_MxBxL["weight"]), 1.0)

    def share(params: Any, batch: Batch) -> jax.Array:
        loss_BxL = losses_of(recipe, params, batch)
        return jnp.sum(loss_BxL * batch["weight"]) / weight

    loss_and_grads = jax.value_and_grad(share)
    if recipe.accumulation == 1:
        return loss_and_grads(params, jax.tree.map(lambda x: x[0], batch_MxBxL))

    def add(total: Any, batch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, loss_and_grads(params, batch)), None

    none = jax.tree.map(jnp.zeros_like, (weight, params))
    return jax.lax.scan(add, none, batch_MxBxL)[0]
