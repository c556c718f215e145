"""Defaults of every field, and the checks that need no data. Configs in `configs/` change these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from absl import flags
from ml_collections import ConfigDict, config_dict

from autoscale_jax.specs import BadInput

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
METHODS = ("auto", "autoscale", "ddo")
SCHEDULES = ("linear", "wsd")


def default_config() -> ConfigDict:
    """A study of a small GPT-2 on the embedded corpus; every field that a flag can override."""
    c = ConfigDict()
    c.seed = 0  # everything random follows from it
    c.data = _data()
    c.model = _model()
    c.train = _train()
    c.study = _study()
    c.verify = _verify()
    c.execute = _execute()
    c.mesh = _mesh()
    return c


def _data() -> ConfigDict:
    c = ConfigDict()
    c.source = "embedded"  # or "files"
    # embedded: names of its domains; files: {domain: path, glob, tfds:NAME:SPLIT, or a dict}
    c.domains = config_dict.placeholder(object)
    c.tokenizer = "bpe"  # "bpe" is trained on the corpus; "bytes"; or a path to tokenizer.json
    c.vocab_size = 1024  # of a trained tokeniser
    c.held_out = 0.1  # share of documents kept for evaluation; from 1 on, their number
    c.eval_tokens = 16_384  # most held-out tokens a domain, 0 = all
    c.min_chars = 0  # only documents of more characters are used
    c.window_chars = 0  # so many characters of each document are used, 0 = all
    c.window = "first"  # or "random": which of them
    c.max_document_bytes = 8192  # longer documents are cut into pieces
    c.max_train_tokens = 0  # most training tokens a domain, 0 = all
    c.seed = 0  # which documents are held out
    c.on_bad_line = "refuse"  # or "skip", which counts them
    return c


def _model() -> ConfigDict:
    c = ConfigDict()
    c.name = "gpt2"  # or "bert"
    c.vocab_size = config_dict.placeholder(int)  # by default the tokeniser's
    c.num_layers = 1
    c.d_model = 64
    c.num_heads = 4
    c.seq_len = 64
    c.tie_embeddings = False
    c.embedding_std = 0.1
    c.dtype = "float32"  # of matrix products, or "bfloat16"; parameters are float32
    c.remat = "none"  # what the backward pass recomputes to save memory: or "dots", "full"
    c.attention = "auto"  # by the device; or "xla", "cudnn", "splash"
    # attention stops at the ends of documents; False: it sees the whole row, as in the paper
    c.document_attention = False
    return c


def _train() -> ConfigDict:
    c = ConfigDict()
    c.batch_size = 4
    c.peak_lr = 3e-3
    c.accumulation = 1  # microbatches of a step: less memory, the same losses
    c.warmup_ratio = 0.1  # length of the warm-up as a share of a run's steps,
    c.warmup_steps = 0  # or in steps (then warmup_ratio is 0)
    # linear: decays from the warm-up on, as the papers' runs; wsd: warm-up, stable, decay, so that
    # a run at a larger budget continues from one at a smaller
    c.schedule = "linear"
    c.decay_ratio = 0.2  # share of a run's steps in its decay, under "wsd"
    c.weight_decay = 1e-2
    c.b1 = 0.9
    c.b2 = 0.95
    c.clip_norm = 1.0
    c.eval_every_tokens = 160_000
    c.checkpoint_seconds = 20.0
    return c


def _study() -> ConfigDict:
    c = ConfigDict()
    c.budgets = (80_000, 320_000)  # tokens of the base run of each proxy scale
    c.target_tokens = 1_280_000
    c.factor = 3.0  # a domain's tokens are multiplied and divided by this
    c.base_seeds = 3  # replicates of each base run: they measure the noise
    c.perturbed_seeds = 1
    c.extra_runs = 0  # then so many more runs, each the one worth most
    c.objective = "mean_perplexity"  # or "mean_loss"
    # {evaluation domain: weight}; None weighs all alike
    c.eval_weights = config_dict.placeholder(object)
    c.max_epochs = 4.0  # no run repeats a domain more often; caps its weight at the target
    c.floor = 0.02  # least weight of any domain
    # auto: laws over all budgets, chosen by held-out error; autoscale: the paper's extrapolation;
    # ddo: the paper's optimum at one budget, which is the target
    c.method = "auto"
    c.samples = 200  # resamples that intervals are read from
    return c


def _verify() -> ConfigDict:
    c = ConfigDict()
    c.mixtures = ("uniform", "natural", "keep", "predicted")  # of MIXTURES
    # further ones, {name: {domain: weight}}
    c.extra = config_dict.placeholder(object)
    c.seeds = 2  # 0 leaves verification out
    return c


def _execute() -> ConfigDict:
    c = ConfigDict()
    c.slots = 1  # groups of runs trained at once; the devices are split among them
    c.population = 0  # runs a group, in one program; 0 = as many as measured to be fastest
    return c


def _mesh() -> ConfigDict:
    c = ConfigDict()
    # of the devices of a slot; what is left splits batches ("data")
    c.fsdp = 1  # devices that split batches and parameters
    c.tensor = 1  # devices that split heads, MLPs and vocabulary
    return c


def from_flags(values: flags.FlagValues, argv: Sequence[str]) -> ConfigDict:
    """The config that the flag "config" of `values` gives, locked.

    Raises `BadInput` for anything that absl or the config file refuses.
    """
    try:
        rest = values(argv)[1:]
        config = values.config
        config.lock()  # a file that did not load fails at its first use: here
    except BadInput:
        raise
    except (flags.Error, AttributeError, KeyError, OSError, ValueError, TypeError) as error:
        raise BadInput(f"--config: {error}") from error
    if rest:
        raise BadInput(f"argument {rest[0]!r}: not a flag; overrides look like --config.seed=1")
    return config


def _refuse(field: str, value: object, remedy: str) -> None:
    raise BadInput(f"config.{field} = {value!r}: {remedy}")


def validate(c: ConfigDict) -> None:
    """Raise `BadInput` for the first field that cannot be right, before anything is read.

    The fields of `config.data` are checked by `data.prepare`.
    """
    _check_numbers(c)
    _check_study(c)
    _check_model(c)
    _check_schedule(c)


def _check_schedule(c: ConfigDict) -> None:
    if c.train.warmup_ratio and c.train.warmup_steps:
        remedy = f"give one warm-up: set it or warmup_ratio = {c.train.warmup_ratio} to 0"
        _refuse("train.warmup_steps", c.train.warmup_steps, remedy)
    if c.train.schedule not in SCHEDULES:
        _refuse("train.schedule", c.train.schedule, f"use one of {', '.join(SCHEDULES)}")
    if c.train.schedule == "linear":
        return
    if not c.train.warmup_steps:
        remedy = "train.schedule = 'wsd' needs a warm-up in steps, the same for every budget"
        _refuse("train.warmup_steps", c.train.warmup_steps, f"{remedy} (and warmup_ratio = 0)")
    steps = c.study.budgets[0] / (c.train.batch_size * c.model.seq_len)
    stable = int((1 - c.train.decay_ratio) * steps)
    if c.train.warmup_steps >= stable:
        remedy = f"a base run of {c.study.budgets[0]} tokens decays from step {stable} on; lower it"
        _refuse("train.warmup_steps", c.train.warmup_steps, remedy)


def _check_model(c: ConfigDict) -> None:
    for field, values in MODEL.items():
        if c.model[field] not in values:
            _refuse(f"model.{field}", c.model[field], f"use one of {', '.join(map(str, values))}")
    if c.model.d_model % c.model.num_heads:
        _refuse("model.num_heads", c.model.num_heads, f"must divide d_model = {c.model.d_model}")
    if c.model.attention == "cudnn" and c.model.dtype != "bfloat16":
        remedy = f"needs model.dtype = 'bfloat16', not {c.model.dtype!r}; or use 'auto'"
        _refuse("model.attention", c.model.attention, remedy)


def _check_numbers(c: ConfigDict) -> None:
    positive = (
        "model.num_layers model.d_model model.num_heads model.seq_len model.embedding_std "
        "train.batch_size train.peak_lr train.clip_norm train.eval_every_tokens "
        "study.base_seeds study.perturbed_seeds study.samples execute.slots "
        "study.max_epochs mesh.fsdp mesh.tensor train.accumulation"
    )
    for field in positive.split():
        if not _value(c, field) > 0:
            _refuse(field, _value(c, field), "must be above 0")
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
            _refuse(field, _value(c, field), remedy)


def _check_study(c: ConfigDict) -> None:
    budgets = tuple(c.study.budgets)
    if c.study.method == "ddo" and budgets != (c.study.target_tokens,):
        remedy = f"study.method = 'ddo' takes one, the target: ({c.study.target_tokens},)"
        _refuse("study.budgets", budgets, f"{remedy}; or use 'auto' or 'autoscale'")
    if c.study.method != "ddo" and len(budgets) < 2:
        remedy = "give at least two: extrapolation needs two scales (study.method = 'ddo' one)"
        _refuse("study.budgets", budgets, remedy)
    if len(set(budgets)) < len(budgets):
        _refuse("study.budgets", budgets, "two are equal: the scales must differ")
    if list(budgets) != sorted(budgets):
        _refuse("study.budgets", budgets, "give them in increasing order")
    if not all(isinstance(n, int) and n > 0 for n in budgets):
        _refuse("study.budgets", budgets, "each must be a whole number of tokens above 0")
    rows, length = c.train.batch_size, c.model.seq_len
    if budgets[0] < rows * length:
        remedy = f"a base run of {budgets[0]} tokens does not fill one batch of {rows} x {length}"
        _refuse("train.batch_size", rows, f"{remedy}; lower it or raise study.budgets")
    if c.study.target_tokens < budgets[-1]:
        remedy = f"must be at least the largest proxy budget, {budgets[-1]}"
        _refuse("study.target_tokens", c.study.target_tokens, remedy)
    if c.study.objective not in OBJECTIVES:
        _refuse("study.objective", c.study.objective, f"use one of {', '.join(OBJECTIVES)}")
    if c.study.method not in METHODS:
        _refuse("study.method", c.study.method, f"use one of {', '.join(METHODS)}")
    for name in c.verify.mixtures:
        if name not in MIXTURES:
            _refuse("verify.mixtures", name, f"use some of {', '.join(MIXTURES)}")
    for name, weights in dict(c.verify.extra or {}).items():
        _check_mixture(name, dict(weights))
    if c.study.eval_weights is not None:
        weights = dict(c.study.eval_weights)
        if not all(isinstance(w, int | float) and w >= 0 for w in weights.values()):
            _refuse("study.eval_weights", weights, "weights must be numbers, 0 or more")
        if not sum(weights.values()) > 0:
            _refuse("study.eval_weights", weights, "at least one must be above 0")


def _check_mixture(name: str, weights: dict[str, float]) -> None:
    """One of `verify.extra`."""
    if name in MIXTURES:
        _refuse(f"verify.extra.{name}", weights, "the name is taken; give another")
    if not all(isinstance(w, int | float) and w >= 0 for w in weights.values()):
        _refuse(f"verify.extra.{name}", weights, "weights must be numbers, 0 or more")
    if abs(sum(weights.values()) - 1) > 1e-6:
        _refuse(f"verify.extra.{name}", weights, f"sums to {sum(weights.values()):.6g}, not to 1")


def _value(c: ConfigDict, field: str) -> float:
    group, name = field.split(".")
    return c[group][name]


def check_domains(c: ConfigDict, domains: tuple[str, ...]) -> None:
    """The checks that need the domains' names. Raises `BadInput`."""
    for name in dict(c.study.eval_weights or {}):
        if name not in domains:
            remedy = f"no such evaluation domain; there are {', '.join(domains)}"
            _refuse("study.eval_weights", name, remedy)
    for name, weights in dict(c.verify.extra or {}).items():
        if set(weights) != set(domains):
            remedy = f"give a weight to each of {', '.join(domains)} and to no other"
            _refuse(f"verify.extra.{name}", dict(weights), remedy)
    if not 0 <= c.study.floor * len(domains) < 1:
        remedy = f"must be at least 0 and below 1/{len(domains)}, one over the number of domains"
        _refuse("study.floor", c.study.floor, remedy)
