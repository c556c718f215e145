"""The checks of a config that need no data."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from autoscale_jax.config.further import check_further, check_further_domains
from autoscale_jax.config.refusal import multiples_near, refuse
from autoscale_jax.config.search import check_search

# natural: by unique tokens; keep: the paper's optimum at the largest budget; autoscale: the paper's
# extrapolation; predicted: the proposal
MIXTURES = ("uniform", "natural", "keep", "autoscale", "predicted")
OBJECTIVES = ("mean_perplexity", "mean_loss")
MODEL: dict[str, tuple[object, ...]] = {
    "name": ("gpt2", "bert"),
    "dtype": ("float32", "bfloat16"),
    "remat": ("none", "dots", "full"),
    "attention": ("auto", "xla", "cudnn", "splash"),
    "document_attention": (False, True),
}
METHODS = ("auto", "autoscale", "ddo", "mfms_bo")
SCHEDULES = ("linear", "wsd", "constant")


def validate(c: ConfigDict) -> None:
    """Raise `BadInput` for the first field that cannot be right, before anything is read.

    The fields of `config.data` are checked by `data.prepare`.
    """
    _check_numbers(c)
    _check_study(c)
    if c.study.method == "mfms_bo":
        check_search(c)
    else:
        _check_budgets(c)
    _check_model(c)
    _check_execution(c)
    _check_schedule(c)


def _check_schedule(c: ConfigDict) -> None:
    if c.train.warmup_ratio and c.train.warmup_steps:
        remedy = f"give one warm-up: set it or warmup_ratio = {c.train.warmup_ratio} to 0"
        refuse("train.warmup_steps", c.train.warmup_steps, remedy)
    if c.train.schedule not in SCHEDULES:
        refuse("train.schedule", c.train.schedule, f"use one of {', '.join(SCHEDULES)}")
    if c.train.schedule == "linear":
        return
    if not c.train.warmup_steps:
        remedy = f"train.schedule = {c.train.schedule!r} needs a warm-up in steps, the same for"
        refuse("train.warmup_steps", 0, f"{remedy} every budget (and warmup_ratio = 0)")
    if c.study.method == "mfms_bo":
        run, steps = "the shortest run", c.search.steps[0]
    else:
        run = f"a base run of {c.study.budgets[0]} tokens"
        steps = c.study.budgets[0] / (c.train.batch_size * c.model.seq_len)
    wsd = c.train.schedule == "wsd"
    stable = int((1 - c.train.decay_ratio if wsd else 1) * steps)
    if c.train.warmup_steps >= stable:
        end = f"decays from step {stable} on" if wsd else f"ends at step {stable}"
        refuse("train.warmup_steps", c.train.warmup_steps, f"{run} {end}; lower it")


def _check_execution(c: ConfigDict) -> None:
    """What holds on any number of devices; `execute.check_devices` knows how many there are."""
    if c.execute.keep_models not in (False, True):
        refuse("execute.keep_models", c.execute.keep_models, "use one of False, True")
    heads, tensor, fsdp = c.model.num_heads, c.mesh.tensor, c.mesh.fsdp
    if heads % tensor:
        refuse("mesh.tensor", tensor, f"must divide config.model.num_heads = {heads}")
    rows, least = c.train.batch_size, c.train.accumulation * fsdp
    if rows % least:
        remedy = f"must be a multiple of {c.train.accumulation} x {fsdp}, train.accumulation times"
        refuse("train.batch_size", rows, f"{remedy} mesh.fsdp; {multiples_near(rows, least)}")


def _check_model(c: ConfigDict) -> None:
    for field, values in MODEL.items():
        if c.model[field] not in values:
            refuse(f"model.{field}", c.model[field], f"use one of {', '.join(map(str, values))}")
    if c.model.d_model % c.model.num_heads:
        refuse("model.num_heads", c.model.num_heads, f"must divide d_model = {c.model.d_model}")
    if c.model.attention == "cudnn" and c.model.dtype != "bfloat16":
        remedy = f"needs model.dtype = 'bfloat16', not {c.model.dtype!r}; or use 'auto'"
        refuse("model.attention", c.model.attention, remedy)


def _check_numbers(c: ConfigDict) -> None:
    positive = (
        "model.num_layers model.d_model model.num_heads model.seq_len model.embedding_std "
        "train.batch_size train.peak_lr train.clip_norm train.eval_every_tokens "
        "study.base_seeds study.perturbed_seeds study.samples execute.slots "
        "study.max_epochs mesh.fsdp mesh.tensor train.accumulation"
    )
    for field in positive.split():
        if not _value(c, field) > 0:
            refuse(field, _value(c, field), "must be above 0")
    bounds: dict[str, tuple[Callable[[float], bool], str]] = {
        "train.warmup_ratio": (lambda x: 0 <= x < 1, "must be at least 0 and below 1"),
        "train.warmup_steps": (lambda x: x >= 0, "must be 0 or more"),
        "train.decay_ratio": (lambda x: 0 < x < 1, "must be above 0 and below 1"),
        "execute.population": (lambda x: x >= 0, "must be 0 (measured) or more"),
        "train.weight_decay": (lambda x: x >= 0, "must be 0 or more"),
        "train.checkpoint_seconds": (lambda x: x >= 0, "must be 0 or more"),
        "study.factor": (lambda x: x > 1, "must be above 1"),
        "study.extra_runs": (lambda x: x >= 0, "must be 0 or more"),
        "verify.seeds": (lambda x: x >= 0, "must be 0 (no verification) or more"),
    }
    for field, (holds, remedy) in bounds.items():
        if not holds(_value(c, field)):
            refuse(field, _value(c, field), remedy)


def _check_budgets(c: ConfigDict) -> None:
    """Those of the proxies of DDO and AutoScale."""
    budgets = tuple(c.study.budgets)
    if c.study.method == "ddo" and budgets != (c.study.target_tokens,):
        remedy = f"study.method = 'ddo' takes one, the target: ({c.study.target_tokens},)"
        refuse("study.budgets", budgets, f"{remedy}; or use 'auto' or 'autoscale'")
    if c.study.method != "ddo" and len(budgets) < 2:
        remedy = "give at least two: extrapolation needs two scales (study.method = 'ddo' one)"
        refuse("study.budgets", budgets, remedy)
    if len(set(budgets)) < len(budgets):
        refuse("study.budgets", budgets, "two are equal: the scales must differ")
    if list(budgets) != sorted(budgets):
        refuse("study.budgets", budgets, "give them in increasing order")
    if not all(isinstance(n, int) and n > 0 for n in budgets):
        refuse("study.budgets", budgets, "each must be a whole number of tokens above 0")
    rows, length = c.train.batch_size, c.model.seq_len
    if budgets[0] < rows * length:
        remedy = f"a base run of {budgets[0]} tokens does not fill one batch of {rows} x {length}"
        refuse("train.batch_size", rows, f"{remedy}; lower it or raise study.budgets")
    if c.study.target_tokens < budgets[-1]:
        remedy = f"must be at least the largest proxy budget, {budgets[-1]}"
        refuse("study.target_tokens", c.study.target_tokens, remedy)


def _check_study(c: ConfigDict) -> None:
    if c.study.objective not in OBJECTIVES:
        refuse("study.objective", c.study.objective, f"use one of {', '.join(OBJECTIVES)}")
    if c.study.method not in METHODS:
        refuse("study.method", c.study.method, f"use one of {', '.join(METHODS)}")
    for name in c.verify.mixtures:
        if name not in MIXTURES:
            refuse("verify.mixtures", name, f"use some of {', '.join(MIXTURES)}")
    check_further(c, MIXTURES)
    if c.study.match_repetition not in (False, True):
        refuse("study.match_repetition", c.study.match_repetition, "use one of False, True")
    if c.study.match_repetition and c.study.method == "mfms_bo":
        remedy = "study.method = 'mfms_bo' continues its runs, which read all data; set it to False"
        refuse("study.match_repetition", True, remedy)
    if c.study.eval_weights is not None:
        weights = dict(c.study.eval_weights)
        if not all(isinstance(w, int | float) and w >= 0 for w in weights.values()):
            refuse("study.eval_weights", weights, "weights must be numbers, 0 or more")
        if not sum(weights.values()) > 0:
            refuse("study.eval_weights", weights, "at least one must be above 0")


def _value(c: ConfigDict, field: str) -> float:
    group, name = field.split(".")
    return c[group][name]


def check_domains(c: ConfigDict, domains: tuple[str, ...]) -> None:
    """The checks that need the domains' names. Raises `BadInput`."""
    for name in dict(c.study.eval_weights or {}):
        if name not in domains:
            remedy = f"no such evaluation domain; there are {', '.join(domains)}"
            refuse("study.eval_weights", name, remedy)
    check_further_domains(c, domains)
    if not 0 <= c.study.floor * len(domains) < 1:
        remedy = f"must be at least 0 and below 1/{len(domains)}, one over the number of domains"
        refuse("study.floor", c.study.floor, remedy)
