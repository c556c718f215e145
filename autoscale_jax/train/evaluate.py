"""Held-out loss of each evaluation domain, over every held-out token, weighted by tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from autoscale_jax.models.gpt2 import GPT2, GPT2Config
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.step import token_losses


@functools.cache
def _make_total_losses(config: GPT2Config, mesh: Mesh, domains: int) -> Callable[..., jax.Array]:
    """Jitted `(params, tokens_NxBxL1, weight_NxBxL, domain_N) -> total_E`, nats."""
    model = GPT2(config)

    def total_losses(
        params: Any, tokens_NxBxL1: jax.Array, weight_NxBxL: jax.Array, domain_N: jax.Array
    ) -> jax.Array:
        def one(batch: tuple[jax.Array, jax.Array]) -> jax.Array:
            tokens_BxL1, weight_BxL = batch
            return jnp.sum(token_losses(model, params, tokens_BxL1) * weight_BxL)

        loss_N = jax.lax.map(one, (tokens_NxBxL1, weight_NxBxL))
        return jnp.zeros(domains, jnp.float32).at[domain_N].add(loss_N)

    same, rows = meshes.replicated(mesh), meshes.batch_rows(mesh)
    return jax.jit(total_losses, in_shardings=(same, rows, rows, same), out_shardings=same)


class Evaluate:
    """`params -> {evaluation domain: nats per token}`; domains in the order of `names`.

    `batches` holds, by domain, "tokens" [N, B, L+1] int32 and their "weight" [N, B, L]. All
    domains go through one compiled loop, and the held-out tokens stay on the devices.
    """

    def __init__(
        self, config: GPT2Config, mesh: Mesh, batches: Mapping[str, Mapping[str, np.ndarray]]
    ) -> None:
        self.names = tuple(batches)
        parts = [batches[name] for name in self.names]
        self._count_E = np.array([part["weight"].sum() for part in parts], np.float64)
        domain_N = np.repeat(np.arange(len(parts)), [len(part["tokens"]) for part in parts])
        same, rows = meshes.replicated(mesh), meshes.batch_rows(mesh)
        self._held_out = (
            jax.device_put(np.concatenate([part["tokens"] for part in parts]), rows),
            jax.device_put(np.concatenate([part["weight"] for part in parts]), rows),
            jax.device_put(domain_N, same),
        )
        self._total_losses = _make_total_losses(config, mesh, len(parts))

    def __call__(self, params: Any) -> dict[str, float]:
        total_E = np.asarray(self._total_losses(params, *self._held_out), np.float64)
        return dict(zip(self.names, (total_E / self._count_E).tolist(), strict=True))
