"""The nouns of a mixture study: domains, runs, proposals. Domains go by name, never position."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

# Seeds from here on belong to verification: no proxy uses them, so no fit has seen their noise.
VERIFICATION_SEED = 1000

Status = Literal["ok", "diverged", "failed"]


class BadInput(ValueError):
    """A mistake in the user's input: one line that names the field, the value and the remedy."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """One source of text. Tokens are counted once each (unique), by the study's tokeniser."""

    name: str
    train_tokens: int
    eval_tokens: int
    train_documents: int
    eval_documents: int


@dataclasses.dataclass(frozen=True, eq=False)
class RunSpec:
    """One training to do: integer tokens from each domain, and the seed of everything random in it.

    The seed fixes the initialisation and each domain's order of sequences, so two specs with the
    same seed share both (common random numbers). `label` is for people and no part of the identity.
    `size` names the model's size in a study of several; "" is the study's only one. `pool` limits
    how many unique tokens of a domain the run draws on; of a domain without one it may read all.
    `stages` are the mixtures of a curriculum in their order, tokens by domain, of which `tokens` is
    the sum; () for a run of one mixture.
    """

    tokens: Mapping[str, int]
    seed: int = 0
    label: str = ""
    size: str = ""
    pool: Mapping[str, int] = dataclasses.field(default_factory=dict)
    stages: tuple[Mapping[str, int], ...] = ()

    def __post_init__(self) -> None:
        for field in ("tokens", "pool"):
            object.__setattr__(self, field, _counts(field, getattr(self, field)))
        object.__setattr__(self, "stages", _stages(self.stages, self.tokens))
        for name, n in self.pool.items():
            if name not in self.tokens:
                raise BadInput(f"pool[{name!r}] = {n}: tokens names no such domain; leave it out")
        if sum(self.tokens.values()) <= 0:
            raise BadInput(
                f"tokens = {dict(self.tokens)}: a run needs tokens of at least one domain"
            )

    @property
    def mixtures(self) -> tuple[Mapping[str, int], ...]:
        """What is trained on, one mixture after the other: one, or the stages of a curriculum."""
        return self.stages or (self.tokens,)

    @property
    def total(self) -> int:
        """Tokens of all domains together."""
        return sum(self.tokens.values())

    @property
    def weights(self) -> dict[str, float]:
        """Domain weights: each domain's share of the tokens."""
        return {name: n / self.total for name, n in self.tokens.items()}

    def identity(self) -> dict[str, Any]:
        """What makes this run this run, as plain JSON."""
        size = {"size": self.size} if self.size else {}
        pool = {"pool": dict(self.pool)} if self.pool else {}
        stages = {"stages": [dict(stage) for stage in self.stages]} if self.stages else {}
        return {"tokens": dict(self.tokens), "seed": self.seed} | size | pool | stages

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunSpec) and self.identity() == other.identity()

    def __hash__(self) -> int:
        tokens, pool, *stages = (
            tuple(counts.items()) for counts in (self.tokens, self.pool, *self.stages)
        )
        return hash((tokens, self.seed, self.size, pool, *stages))


def _counts(field: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers of tokens by domain, in the order of the names. Raises `BadInput`."""
    for name, n in counts.items():
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
            raise BadInput(f"{field}[{name!r}] = {n!r}: give a whole number of tokens, 0 or more")
    return {name: int(n) for name, n in sorted(counts.items())}


def _stages(
    stages: Sequence[Mapping[str, int]], tokens: Mapping[str, int]
) -> tuple[dict[str, int], ...]:
    """The stages of a curriculum, each with all domains of `tokens`. Raises `BadInput`."""
    none = dict.fromkeys(tokens, 0)
    found = [none | _counts(f"stages[{i}]", stage) for i, stage in enumerate(stages)]
    if len(found) == 1:
        raise BadInput(f"stages = {found}: a curriculum has two or more; leave it out")
    for i, stage in enumerate(found):
        if not any(stage.values()):
            raise BadInput(f"stages[{i}] = {stage}: has no tokens; leave the stage out")
    names = dict.fromkeys(name for stage in found for name in stage)
    total = {name: sum(stage.get(name, 0) for stage in found) for name in names}
    if found and total != tokens:
        raise BadInput(f"stages sum to {total} and tokens = {dict(tokens)}: make them agree")
    return tuple(found)


class CurvePoint(NamedTuple):
    """Held-out loss (nats per token) of each evaluation domain after so many training tokens."""

    tokens: int
    loss: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training that was done. `loss` is the final one, nats per token, by evaluation domain.

    `realised` and `curve` are the whole run's. `flops` and `seconds` are those spent on it alone:
    what it shares with a shorter run that it continued counts there. Of a run that diverged,
    `realised`, `epochs` and `flops` are those of its whole length, though it stopped before.
    `data` tells by domain which text it was trained and evaluated on (`Corpus.data_of`); {} where
    nobody wrote that down.
    """

    spec: RunSpec
    key: str
    status: Status
    loss: Mapping[str, float]
    realised: Mapping[str, int]
    epochs: Mapping[str, float]
    curve: tuple[CurvePoint, ...] = ()
    flops: float = 0.0
    seconds: float = 0.0
    message: str = ""
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def perplexity(self) -> dict[str, float]:
        return {name: math.exp(loss) for name, loss in self.loss.items()}


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A mixture for `tokens` training tokens, with 90% intervals and what speaks against it.

    `p_beats` holds the probability that the mixture's objective is below that of a named reference
    mixture; `predicted_*` are objective values at `tokens`.
    """

    method: str
    tokens: int
    weights: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    predicted_objective: float
    predicted_low: float
    predicted_high: float
    p_beats: Mapping[str, float] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunArrays:
    """Runs as arrays, what laws are fitted to: R runs, K training domains, E evaluation domains.

    `unique_RxK` are the unique tokens that each run drew on, infinite where no limit is known; None
    where none is of any run.
    """

    domains: tuple[str, ...]
    eval_domains: tuple[str, ...]
    names_R: tuple[str, ...]
    tokens_RxK: np.ndarray
    loss_RxE: np.ndarray
    seed_R: np.ndarray
    unique_RxK: np.ndarray | None = None


def run_key(spec: RunSpec, recipe: Mapping[str, Any], data_fingerprint: str) -> str:
    """Identity of a run in a ledger: 16 hex digits of a hash of (spec, recipe, data)."""
    text = json.dumps([spec.identity(), recipe, data_fingerprint], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def split_tokens(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """Integer tokens per domain that sum to `total` exactly, by largest remainder.

    Raises `BadInput` when a weight is negative or not finite, or the weights do not sum to 1.
    """
    for name, w in weights.items():
        if not math.isfinite(w) or w < 0:
            raise BadInput(f"weights[{name!r}] = {w}: weights are 0 or more")
    if abs(sum(weights.values()) - 1) > 1e-6:
        raise BadInput(
            f"weights sum to {sum(weights.values()):.6g}: divide them so that they sum to 1"
        )
    exact = {name: w * total for name, w in weights.items()}
    tokens = {name: math.floor(x) for name, x in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (tokens[name] - exact[name], name))
    short = total - sum(tokens.values())
    for name in by_remainder[:short]:
        tokens[name] += 1
    return tokens
