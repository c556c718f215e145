"""Held-out loss of each evaluation domain, over every held-out token, weighted by tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from autoscale_jax import models
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import Batch, losses_of, over_models, state_shardings

MOST_ROWS = 32  # of a batch, on each device
MOST_LOGITS = 2**28  # of a batch, on each device: 1 GiB
MOST_TOKENS = 2**22  # on the devices at once


def eval_rows(config: models.ModelConfig, mesh: Mesh) -> int:
    """Rows of an evaluation batch: the same few on every device that has its own."""
    logits_of_a_row = config.seq_len * config.vocab_size
    return meshes.row_shards(mesh) * max(1, min(MOST_ROWS, MOST_LOGITS // logits_of_a_row))


@functools.cache
def _make_total_losses(
    recipe: Recipe, mesh: Mesh, count: int, domains: int
) -> Callable[..., jax.Array]:
    """Jitted `(params of K models, batch_NxBxL, domain_N) -> total_KxE`, nats."""

    def total_losses(params: Any, batch_NxBxL: Batch, domain_N: jax.Array) -> jax.Array:
        def one(batch: Batch) -> jax.Array:
            loss_BxL = losses_of(recipe, params, batch)
            return jnp.sum(loss_BxL * batch["weight"])

        loss_N = jax.lax.map(one, batch_NxBxL)
        return jnp.zeros(domains, jnp.float32).at[domain_N].add(loss_N)

    def of_all(params: Any, batch_NxBxL: Batch, domain_N: jax.Array) -> jax.Array:
        one = functools.partial(total_losses, batch_NxBxL=batch_NxBxL, domain_N=domain_N)
        return over_models(one, count)(params)

    same = meshes.replicated(mesh)
    shardings = (state_shardings(recipe, mesh).params, meshes.rows(mesh, 1), same)
    return jax.jit(of_all, in_shardings=shardings, out_shardings=same)


class Evaluate:
    """`params of K models -> loss_KxE`, nats per token; evaluation domains in the order of `names`.

    `batches` holds, by domain, "inputs", "targets", "weight" and perhaps "segments", each
    [N, B, L]. They stay in the host's memory and stream through the devices, all domains through
    one compiled loop.
    """

    def __init__(
        self, recipe: Recipe, mesh: Mesh, batches: Mapping[str, Mapping[str, np.ndarray]]
    ) -> None:
        self.names = tuple(batches)
        self._recipe, self._mesh = recipe, mesh
        parts = [batches[name] for name in self.names]
        self._count_E = np.array([part["weight"].sum() for part in parts], np.float64)
        self._domain_N = np.repeat(np.arange(len(parts)), [len(part["weight"]) for part in parts])
        self._batch_NxBxL = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0]
        }

    def __call__(self, params: Any) -> np.ndarray:
        count = len(jax.tree.leaves(params)[0])
        total_losses = _make_total_losses(self._recipe, self._mesh, count, len(self.names))
        with jax.set_mesh(self._mesh):  # which the models ask for
            totals = [total_losses(params, *held_out) for held_out in self._stream()]
        return np.sum([np.asarray(total, np.float64) for total in totals], 0) / self._count_E

    def _stream(self) -> Iterator[tuple[Batch, jax.Array]]:
        """The held-out batches in equal pieces, the last one filled up with weight 0."""
        weight_NxBxL = self._batch_NxBxL["weight"]
        length = max(1, min(len(weight_NxBxL), MOST_TOKENS // weight_NxBxL[0].size))
        for start in range(0, len(weight_NxBxL), length):
            piece = {n: x[start : start + length] for n, x in self._batch_NxBxL.items()}
            domain = self._domain_N[start : start + length]
            missing = length - len(domain)
            if missing:
                piece = {n: np.pad(x, ((0, missing), (0, 0), (0, 0))) for n, x in piece.items()}
                domain = np.pad(domain, (0, missing))
            rows = meshes.put(piece, meshes.rows(self._mesh, 1))
            yield rows, meshes.put(domain, meshes.replicated(self._mesh))
