"""How a field is refused."""

from __future__ import annotations

from typing import NoReturn

from autoscale_jax.specs import BadInput


def refuse(field: str, value: object, remedy: str) -> NoReturn:
    """Raises `BadInput` that names field, value and remedy."""
    raise BadInput(f"config.{field} = {value!r}: {remedy}")


def multiples_near(value: int, of: int) -> str:
    """The multiples of a number around a value, as the end of a refusal."""
    below = value // of * of
    return f"use {below} or {below + of}" if below else f"use {of}"
