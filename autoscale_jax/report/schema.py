"""The shape of a study as the report takes it.

Units: tokens are counts; losses are nats per token on held-out text; weights, relative changes,
savings and probabilities are fractions (0.041 is 4.1%); intervals are 90%. Every key may be
missing, every number None and every list empty: that is a study that is not finished.
"""

from __future__ import annotations

from typing import Any, TypedDict

Number = float | None


class Objective(TypedDict, total=False):
    """What is minimised.

    `kind` is "mean_perplexity", "mean_loss", "worst_perplexity", "worst_loss", or another, which is
    then called by its name; `label` replaces the words that the report would use for it. `weights`
    are those of the evaluation domains.
    """

    kind: str
    label: str
    weights: dict[str, float]


class DomainRow(TypedDict, total=False):
    """One domain's text: unique tokens and documents, and how often it may be repeated."""

    name: str
    train_tokens: int | None
    eval_tokens: int | None
    train_documents: int | None
    eval_documents: int | None
    max_epochs: Number


class ProposalRow(TypedDict, total=False):
    """A mixture for `tokens` tokens; `p_beats[mixture]` is the probability of a lower objective.

    Of a curriculum `stages` is 2 or more and `weights` are those over all of them.
    """

    method: str
    tokens: int | None
    weights: dict[str, float]
    stages: int
    low: dict[str, Number]
    high: dict[str, Number]
    predicted_objective: Number
    predicted_low: Number
    predicted_high: Number
    p_beats: dict[str, Number]
    warnings: list[str]


class TrajectoryPoint(TypedDict, total=False):
    """The best mixture at one scale; `kind` is "measured optimum" or "extrapolated"."""

    tokens: int
    weights: dict[str, float]
    low: dict[str, Number]
    high: dict[str, Number]
    kind: str


class Point(TypedDict, total=False):
    """One run's objective against one domain's tokens in it."""

    tokens: float
    objective: Number
    seed: int


class LawRow(TypedDict, total=False):
    """One domain's fitted law at one budget.

    `ok` is False when the fit failed, `decided` is False when the data leave it open.
    """

    budget: int
    domain: str
    points: list[Point]
    curve: list[Point]
    formula: str
    params: dict[str, Number]
    ok: bool
    decided: bool
    note: str


class Effects(TypedDict, total=False):
    """`change[i][e]`: change of evaluation domain e's loss when domain i's tokens are tripled."""

    domains: list[str]
    eval_domains: list[str]
    change: list[list[Number] | None]
    caption: str


class CurveRow(TypedDict, total=False):
    """Held-out objective and losses after `tokens` training tokens."""

    tokens: float
    objective: Number
    loss: dict[str, Number]


class VerificationRow(TypedDict, total=False):
    """One run at the target; `mixture` is "uniform", "natural", "keep", "predicted" or another's
    name."""

    mixture: str
    seed: int
    tokens: int
    weights: dict[str, float]
    requested: dict[str, int]
    realised: dict[str, int]
    epochs: dict[str, float]
    loss: dict[str, Number]
    mean_perplexity: Number
    worst_perplexity: Number
    objective: Number
    status: str
    curve: list[CurveRow]


class Gain(TypedDict, total=False):
    """Relative change of the objective, paired by seed; negative is better."""

    relative: Number
    low: Number
    high: Number
    pairs: int | None
    wins: int | None
    text: str


class TokensSaved(TypedDict, total=False):
    """Fractions of the other mixture's tokens; `low` and `high` have the keys `vs_...` too."""

    vs_uniform: Number
    vs_natural: Number
    vs_keep: Number
    low: dict[str, Number]
    high: dict[str, Number]
    definition: str


class Cost(TypedDict, total=False):
    """What the study has cost so far."""

    runs: int | None
    proxy_runs: int | None
    verification_runs: int | None
    tokens: Number
    flops: Number
    seconds: Number


class Noise(TypedDict, total=False):
    """Spread of the objective over seeds.

    `objective_sd` and `paired_sd` are in the objective's unit, `relative_sd` is a fraction of it;
    `paired_sd` is that of the difference of two runs that share a seed.
    """

    objective_sd: Number
    relative_sd: Number
    paired_sd: Number
    replicates: int | None


class NextRun(TypedDict, total=False):
    """The run that would tell most."""

    label: str
    reason: str


class Size(TypedDict):
    """One model size: its parameters, and the FLOPs and tokens of one training step."""

    name: str
    parameters: int
    step_flops: float
    step_tokens: int


class TrialRow(TypedDict, total=False):
    """A run of a search, in the order asked for; FLOPs are those that it added to the others'."""

    order: int
    size: str
    steps: int
    flops: Number
    objective: Number
    initial: bool
    status: str


Slice = TypedDict(
    "Slice",
    {
        "from": str,
        "to": str,
        "share": list[float],
        "mean": list[float],
        "low": list[float],
        "high": list[float],
    },
    total=False,
)
Slice.__doc__ = """Predicted objective at the target while weight moves between two domains.

`share` is what the domain `to` has of the weight that may move, `from` having the rest.
"""


class PathPoint(TypedDict, total=False):
    """Predicted objective at the target of what a search recommended after so many FLOPs."""

    flops: Number
    objective: Number
    low: Number
    high: Number


class Search(TypedDict, total=False):
    """What a search over model sizes and steps could try, and what it tried; {} if there was none.

    `sizes` has the target's last; FLOPs are those of the proxies.
    """

    sizes: list[Size]
    steps: list[int]
    target_steps: int
    budget_flops: float
    spent_flops: float
    trials: list[TrialRow]
    slices: list[Slice]
    path: list[PathPoint]


class RunRow(TypedDict, total=False):
    """One row of the ledger; `size` names the model's where there are several, else it is ""."""

    key: str
    label: str
    size: str
    seed: int
    status: str
    total: int
    tokens: dict[str, int]
    realised: dict[str, int]
    epochs: dict[str, float]
    objective: Number
    loss: dict[str, Number]
    flops: Number
    seconds: Number
    message: str


class Study(TypedDict):
    """Everything the report knows. `recommended` is the `method` of one of `proposals`."""

    title: str
    created: str | None
    config: dict[str, Any]
    objective: Objective
    domains: list[DomainRow]
    target_tokens: int | None
    budgets: list[int]
    reference: str
    recommended: str | None
    proposals: list[ProposalRow]
    trajectory: list[TrajectoryPoint]
    laws: list[LawRow]
    effects: Effects
    verification: list[VerificationRow]
    gain: dict[str, Gain]
    tokens_saved: TokensSaved
    cost: Cost
    noise: Noise
    next_run: NextRun | None
    search: Search
    warnings: list[str]
    runs: list[RunRow]
