"""What is the same for every run of a study: model shape, optimiser, schedule, evaluation grid."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from autoscale_jax import models
from autoscale_jax.config.search import TARGET, TRAINING
from autoscale_jax.specs import BadInput


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW with linear warm-up and linear decay to zero (the AutoScale paper's Tables 3 to 5).

    schedule: "linear" decays from the warm-up on; "wsd" (warm-up, stable, decay) keeps the peak
        rate up to the last `decay_ratio` of the steps; "constant" keeps it to the end. Until a
        decay, a run trains as any longer one of its weights and seed.
    batch_size: rows of an optimiser step, over all devices and microbatches.
    warmup_ratio, warmup_steps: length of the warm-up, as a share of the steps or in steps.
    accumulation: microbatches of a step; they save memory and change nothing but rounding.
    """

    model: models.ModelConfig
    batch_size: int
    peak_lr: float
    warmup_ratio: float
    weight_decay: float
    b1: float
    b2: float
    clip_norm: float
    eval_every_tokens: int
    seed: int
    warmup_steps: int = 0
    accumulation: int = 1
    schedule: str = "linear"
    decay_ratio: float = 0.2

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimiser step."""
        return self.batch_size * self.model.seq_len

    @property
    def objective(self) -> str:
        """What the data prepare: the next token, or the masked ones."""
        return "mlm" if isinstance(self.model, models.BertConfig) else "causal"

    def identity(self) -> dict[str, Any]:
        """Everything that changes a run's numbers by more than rounding, as plain JSON: part of
        the run's key."""
        fields = dataclasses.asdict(self)
        del fields["accumulation"], fields["model"]["remat"], fields["model"]["attention"]
        if self.schedule != "wsd":
            del fields["decay_ratio"]
        if self.schedule == "linear":
            del fields["schedule"]
        return fields

    def branch_step(self, steps: int) -> int:
        """Steps of a run of `steps` that a longer one may share: those before its decay."""
        decay = {"linear": steps, "wsd": max(1, math.ceil(self.decay_ratio * steps)), "constant": 0}
        return steps - decay[self.schedule]


def from_config(config: ConfigDict, tokens: int) -> Recipe:
    """The recipe of a study whose tokeniser has `tokens` tokens. Raises `BadInput`."""
    train = config.train.to_dict()
    del train["checkpoint_seconds"]
    model = models.make_config(tokens=tokens, **config.model.to_dict())
    return Recipe(model=model, seed=config.seed, **train)


def by_size(config: ConfigDict, tokens: int) -> dict[str, Recipe]:
    """The recipe of each model size of a study, the cheapest first and the target's last.

    A study of one size calls it "". Raises `BadInput` for a size no cheaper than the target.
    """
    target = from_config(config, tokens)
    if config.study.method != "mfms_bo":
        return {"": target}
    found = {}
    for name, size in dict(config.search.sizes or {}).items():
        fields = dict(size)
        training = {part: fields.pop(part) for part in TRAINING if part in fields}
        model = dataclasses.replace(target.model, **fields)
        found[name] = dataclasses.replace(target, model=model, **training)
        if models.flops_per_token(model) >= models.flops_per_token(target.model):
            remedy = "costs as much a token as the target, config.model; make it smaller"
            raise BadInput(f"config.search.sizes.{name} = {dict(size)}: {remedy}")
    cheapest_first = sorted(found, key=lambda name: models.flops_per_token(found[name].model))
    return {name: found[name] for name in cheapest_first} | {TARGET: target}


def learning_rate(recipe: Recipe, step: jax.Array, total_steps: jax.Array) -> jax.Array:
    """Rate of 0-based `step`: linear up over the warm-up, then linear down to 0 at the end.

    Under "wsd" it stays at its peak in between and goes down over the last `decay_ratio` of steps,
    under "constant" it stays there. From `total_steps` on it is 0, so that further steps leave the
    parameters as they are.
    """
    warmup = jnp.maximum(1.0, recipe.warmup_ratio * total_steps + recipe.warmup_steps)
    up = (step + 1) / warmup
    decay = {
        "linear": total_steps - warmup,
        "wsd": recipe.decay_ratio * total_steps,
        "constant": jnp.zeros_like(total_steps),
    }[recipe.schedule]
    down = (total_steps - step) / jnp.maximum(1.0, decay)
    return recipe.peak_lr * jnp.clip(jnp.minimum(up, down), 0.0, 1.0)


def make_optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW without its rate, which depends on the run's length: `learning_rate` scales updates.

    Weight decay acts on matrices only, embeddings included: not on biases nor norms.
    """
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip_norm),
        optax.scale_by_adam(recipe.b1, recipe.b2),
        optax.add_decayed_weights(recipe.weight_decay, mask=models.matrices(recipe.model)),
    )
