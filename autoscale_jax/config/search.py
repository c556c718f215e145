"""The checks of `config.search`: model sizes, steps and budget of a search over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from autoscale_jax.config.refusal import refuse

TARGET = "target"  # the size of the config's own model
SHAPE = ("num_layers", "d_model", "num_heads")
TRAINING = ("batch_size", "peak_lr")  # by default those of `config.train`
ACQUISITIONS = ("value", "paper")


def check_search(c: ConfigDict) -> None:
    """Raises `BadInput` for the first field of `config.search` that cannot be right."""
    if c.train.schedule != "constant":
        remedy = "study.method = 'mfms_bo' continues its runs: use 'constant' (see config.search)"
        refuse("train.schedule", c.train.schedule, remedy)
    s, steps = c.search, tuple(c.search.steps)
    for name, fields in dict(s.sizes or {}).items():
        _check_size(name, dict(fields))
    if not steps or not all(isinstance(n, int) and n > 0 for n in steps):
        refuse("search.steps", steps, "give whole numbers of steps above 0")
    if list(steps) != sorted(set(steps)):
        refuse("search.steps", steps, "give each once, in increasing order")
    if c.study.target_tokens < c.train.batch_size * c.model.seq_len:
        remedy = f"less than one batch of {c.train.batch_size} x {c.model.seq_len}; raise it"
        refuse("study.target_tokens", c.study.target_tokens, remedy)
    for field in ("budget", "batch"):
        if not s[field] > 0:
            refuse(f"search.{field}", s[field], "must be above 0")
    if s.acquisition not in ACQUISITIONS:
        refuse("search.acquisition", s.acquisition, f"use one of {', '.join(ACQUISITIONS)}")


def _check_size(name: str, fields: Mapping[str, Any]) -> None:
    field = f"search.sizes.{name}"
    if name == TARGET:
        refuse(field, dict(fields), f"{TARGET!r} is the config's own model; give another name")
    if missing := [part for part in SHAPE if part not in fields]:
        refuse(field, dict(fields), f"lacks {', '.join(missing)}")
    for part, value in fields.items():
        if part not in SHAPE + TRAINING:
            known = ", ".join(SHAPE + TRAINING)
            refuse(f"{field}.{part}", value, f"no part of a size; there are {known}")
        if not (isinstance(value, int) or part == "peak_lr") or not value > 0:
            kind = "number" if part == "peak_lr" else "whole number"
            refuse(f"{field}.{part}", value, f"must be a {kind} above 0")
    if fields["d_model"] % fields["num_heads"]:
        remedy = f"must divide d_model = {fields['d_model']}"
        refuse(f"{field}.num_heads", fields["num_heads"], remedy)
