"""What a mixture is judged by: one number from the losses of the evaluation domains."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from autoscale_jax.specs import BadInput

Objective = Literal["mean_perplexity", "mean_loss", "worst_loss", "worst_perplexity"]
# Smooth maximum: logsumexp(SHARPNESS * loss) / SHARPNESS, at most log(E)/SHARPNESS too high.
SHARPNESS = 50.0


def objective_value(
    loss: Any, objective: Objective = "mean_perplexity", eval_weights_E: Any = None
) -> Any:
    """Objective of losses in nats per token, shape (..., E) -> (...).

    mean_perplexity: sum_e v_e exp(loss_e) (the paper's); mean_loss: sum_e v_e loss_e; worst_loss
    and worst_perplexity: a smooth maximum over the domains with v_e > 0. `eval_weights_E` (v) sums
    to 1 and defaults to equal weights. All four are convex in N when every loss is.
    """
    if objective not in get_args(Objective):
        raise BadInput(f"objective = {objective!r}: give one of {', '.join(get_args(Objective))}")
    xp = jnp if isinstance(loss, jax.Array) else np
    e = loss.shape[-1]
    v_E = xp.full(e, 1 / e) if eval_weights_E is None else xp.asarray(eval_weights_E)
    if objective == "mean_perplexity":
        return (xp.exp(loss) * v_E).sum(-1)
    if objective == "mean_loss":
        return (loss * v_E).sum(-1)
    top = xp.where(v_E > 0, loss, -xp.inf).max(-1, keepdims=True)
    smooth = (
        top[..., 0]
        + xp.log(xp.where(v_E > 0, xp.exp(SHARPNESS * (loss - top)), 0.0).sum(-1)) / SHARPNESS
    )
    return smooth if objective == "worst_loss" else xp.exp(smooth)


def eval_weights_of(weights: Any, eval_domains: tuple[str, ...]) -> np.ndarray:
    """Evaluation weights by name (a mapping) or in order (a sequence) as an array that sums to 1.

    Raises:
      BadInput: unknown names, a wrong count, negative or no positive weights.
    """
    if weights is None:
        return np.full(len(eval_domains), 1 / len(eval_domains))
    if hasattr(weights, "items"):
        for name in weights:
            if name not in eval_domains:
                raise BadInput(
                    f"eval_weights[{name!r}]: no such evaluation domain; "
                    f"there are {', '.join(eval_domains)}"
                )
        weights = [weights.get(name, 0.0) for name in eval_domains]
    v_E = np.asarray(weights, dtype=np.float64)
    if v_E.shape != (len(eval_domains),):
        raise BadInput(f"eval_weights: {v_E.size} given for {len(eval_domains)} evaluation domains")
    if not np.all(np.isfinite(v_E)) or np.any(v_E < 0) or v_E.sum() <= 0:
        raise BadInput(f"eval_weights = {v_E.tolist()}: give 0 or more each, and one above 0")
    return v_E / v_E.sum()
