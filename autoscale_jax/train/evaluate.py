"""Held-out loss of each evaluation domain, over every held-out token, weighted by tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from autoscale_jax import models
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.step import Batch


@functools.cache
def _make_total_losses(
    config: models.ModelConfig, mesh: Mesh, domains: int
) -> Callable[..., jax.Array]:
    """Jitted `(params, batch_NxBxL, domain_N) -> total_E`, nats."""

    def total_losses(params: Any, batch_NxBxL: Batch, domain_N: jax.Array) -> jax.Array:
        def one(batch: Batch) -> jax.Array:
            loss_BxL = models.token_losses(config, params, batch["inputs"], batch["targets"])
            return jnp.sum(loss_BxL * batch["weight"])

        loss_N = jax.lax.map(one, batch_NxBxL)
        return jnp.zeros(domains, jnp.float32).at[domain_N].add(loss_N)

    same, rows = meshes.replicated(mesh), meshes.batch_rows(mesh)
    return jax.jit(total_losses, in_shardings=(same, rows, same), out_shardings=same)


class Evaluate:
    """`params -> {evaluation domain: nats per token}`; domains in the order of `names`.

    `batches` holds, by domain, "inputs", "targets" and "weight", each [N, B, L]. All domains go
    through one compiled loop, and the held-out tokens stay on the devices.
    """

    def __init__(
        self,
        config: models.ModelConfig,
        mesh: Mesh,
        batches: Mapping[str, Mapping[str, np.ndarray]],
    ) -> None:
        self.names = tuple(batches)
        parts = [batches[name] for name in self.names]
        self._count_E = np.array([part["weight"].sum() for part in parts], np.float64)
        domain_N = np.repeat(np.arange(len(parts)), [len(part["weight"]) for part in parts])
        same, rows = meshes.replicated(mesh), meshes.batch_rows(mesh)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._held_out = (jax.device_put(whole, rows), jax.device_put(domain_N, same))
        self._total_losses = _make_total_losses(config, mesh, len(parts))

    def __call__(self, params: Any) -> dict[str, float]:
        total_E = np.asarray(self._total_losses(params, *self._held_out), np.float64)
        return dict(zip(self.names, (total_E / self._count_E).tolist(), strict=True))
