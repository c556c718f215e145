"""The training program of a recipe, compiled for devices that need not be there, and measured."""

from __future__ import annotations

import dataclasses

import jax
from jax.sharding import Mesh

from autoscale_jax.train import hlo, plan_bounds
from autoscale_jax.train.plan_cost import Cost, cost
from autoscale_jax.train.plan_targets import Target
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.sharding import check_batch, check_mesh
from autoscale_jax.train.step import lower_train_chunk


@dataclasses.dataclass(frozen=True)
class Plan:
    """One compiled alternative: a program of `count` models.

    Bytes are those of one device; `needs` is infinite, and `cost` and `memory` are None, where the
    compiler itself found no room.
    """

    recipe: Recipe
    mesh: Mesh
    target: Target
    count: int
    needs: float
    memory: dict[str, int] | None
    cost: Cost | None

    @property
    def step_tokens(self) -> int:
        """Tokens of a step of all models of the program."""
        return self.count * self.recipe.step_tokens

    @property
    def least(self) -> dict[str, float]:
        """`least_memory` of what was compiled."""
        return plan_bounds.least_memory(self.recipe, self.mesh, self.count)

    @property
    def seconds(self) -> float:
        """Of an optimiser step at best: arithmetic and memory, communication hidden behind them."""
        assert self.cost is not None and self.target.chip is not None
        chip = self.target.chip
        if self.target.simulated:  # the CPU's memory traffic says nothing about a card's
            moved = self.count * plan_bounds.state_traffic(self.recipe, self.mesh)
            work = self.cost.flops / chip.flops + moved / chip.bandwidth
        else:
            work = self.cost.seconds(chip.flops, chip.bandwidth)
        return max(work, self.exchanged / chip.link)

    @property
    def exchanged(self) -> float:
        """Bytes that a device takes in from others in a step."""
        assert self.cost is not None
        return sum(collective.bytes for collective in self.cost.collectives)

    @property
    def verdict(self) -> str:
        """ "fits", "may fit" or "does not fit" ("" without a chip to fit).

        A simulated card's temporaries are an estimate, the CPU compiler's: where they are too many,
        only the least possible memory rules the card out.
        """
        if self.target.chip is None:
            return ""
        if self.needs <= self.target.chip.memory:
            return "fits"
        possible = self.target.simulated and sum(self.least.values()) <= self.target.chip.memory
        return "may fit" if possible else "does not fit"


def make_plan(recipe: Recipe, mesh: Mesh, target: Target, count: int = 1) -> Plan:
    """Compile the training program of `count` models for the mesh's devices and take its measure.

    Raises `BadInput` when mesh, heads and batch do not go together.
    """
    check_mesh(recipe.model, mesh)
    check_batch(recipe, mesh)
    lowered = lower_train_chunk(recipe, mesh, count)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Plan(recipe, mesh, target, count, float("inf"), None, None)
    stats, text = compiled.memory_analysis(), compiled.as_text()
    assert stats is not None and text is not None  # as they are for CPUs and TPUs
    memory = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes,
        "donated": stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    needs = float(sum(memory.values()) - 2 * memory["donated"])
    return Plan(recipe, mesh, target, count, needs, memory, cost(hlo.parse(text)))
