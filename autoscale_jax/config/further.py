"""The checks of `verify.extra`: further mixtures and curricula for verification to train."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ml_collections import ConfigDict

from autoscale_jax.config.refusal import refuse

SHAPES = (
    "give {domain: weight}, or the stages of a curriculum: "
    "({'share': 0.8, 'weights': {...}}, {'share': 0.2, 'weights': {...}})"
)


def check_further(c: ConfigDict, taken: Collection[str]) -> None:
    """The checks without the domains; no mixture may have a name that is `taken`."""
    further = c.verify.to_dict()["extra"]
    if not isinstance(further, Mapping | None):
        refuse("verify.extra", further, "give {name: {domain: weight}}")
    for name, mixture in (further or {}).items():
        field = f"verify.extra.{name}"
        if name in taken:
            refuse(field, mixture, "the name is taken; give another")
        if isinstance(mixture, Mapping):
            _check_weights(field, mixture)
        elif isinstance(mixture, Sequence) and not isinstance(mixture, str):
            _check_stages(c, field, mixture)
        else:
            refuse(field, mixture, SHAPES)


def check_further_domains(c: ConfigDict, domains: Collection[str]) -> None:
    """Every mixture and every stage must weigh each of the domains and no other."""
    remedy = f"give a weight to each of {', '.join(domains)} and to no other"
    for name, mixture in (c.verify.to_dict()["extra"] or {}).items():
        if isinstance(mixture, Mapping):
            weighed = {f"verify.extra.{name}": mixture}
        else:
            stages = enumerate(mixture)
            weighed = {f"verify.extra.{name}[{i}].weights": s["weights"] for i, s in stages}
        for field, weights in weighed.items():
            if set(weights) != set(domains):
                refuse(field, dict(weights), remedy)


def _check_stages(c: ConfigDict, field: str, stages: Sequence[object]) -> None:
    if len(stages) < 2:
        refuse(field, stages, "a curriculum has two stages or more; else give {domain: weight}")
    shares = []
    for i, stage in enumerate(stages):
        if not isinstance(stage, Mapping) or set(stage) != {"share", "weights"}:
            refuse(f"{field}[{i}]", stage, "a stage is {'share': 0.2, 'weights': {...}}")
        share = stage["share"]
        if not isinstance(share, int | float) or not share > 0:
            refuse(f"{field}[{i}].share", share, "must be a number above 0")
        if not isinstance(stage["weights"], Mapping):
            refuse(f"{field}[{i}].weights", stage["weights"], "give {domain: weight}")
        _check_weights(f"{field}[{i}].weights", stage["weights"])
        shares.append(share)
    if abs(sum(shares) - 1) > 1e-6:
        refuse(field, stages, f"its shares sum to {sum(shares):.6g}, not to 1")
    for i, share in enumerate(shares):
        tokens = int(share * c.study.target_tokens)
        if tokens < c.model.seq_len:
            remedy = f"is {tokens} tokens, less than one sequence of {c.model.seq_len}; raise it"
            refuse(f"{field}[{i}].share", share, remedy)


def _check_weights(field: str, weights: Mapping[str, object]) -> None:
    numbers = [w for w in weights.values() if isinstance(w, int | float) and w >= 0]
    if len(numbers) < len(weights):
        refuse(field, dict(weights), "weights must be numbers, 0 or more")
    if abs(sum(numbers) - 1) > 1e-6:
        refuse(field, dict(weights), f"sums to {sum(numbers):.6g}, not to 1")
