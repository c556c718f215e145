"""Defaults of every field. Configs in `configs/` change these."""

from __future__ import annotations

from ml_collections import ConfigDict, config_dict


def default_config() -> ConfigDict:
    """A study of a small GPT-2 on the embedded corpus; every field that a flag can override."""
    c = ConfigDict()
    c.seed = 0  # everything random follows from it
    c.data = _data()
    c.model = _model()
    c.train = _train()
    c.study = _study()
    c.search = _search()
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
    c.max_train_tokens = 0  # most training tokens a domain, an even share of its files; 0 = all
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
    # a run at a larger budget continues from one at a smaller; constant: no decay, so that it
    # continues from the end of the smaller
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
    # proxies draw on budget / target of each domain, so that they repeat it as the target would
    c.match_repetition = False
    c.floor = 0.02  # least weight of any domain
    # auto: laws over all budgets, chosen by held-out error; autoscale: the paper's extrapolation;
    # ddo: the paper's optimum at one budget, which is the target; mfms_bo: a search over mixtures,
    # model sizes and steps (config.search), which has no budgets, base runs nor changed runs
    c.method = "auto"
    c.samples = 200  # resamples that intervals are read from
    return c


def _search() -> ConfigDict:
    """Of study.method = "mfms_bo", under train.schedule = "constant".

    A constant rate makes every point of a run's curve the result of a shorter run, and proxies and
    target alike. The decay of a production run comes on top of all that the study compares.
    """
    c = ConfigDict()
    # models smaller than config.model, {name: {num_layers, d_model, num_heads}}, and batch_size and
    # peak_lr where they are not the target's
    c.sizes = config_dict.placeholder(object)
    # at which a run may end; a longer run continues the shorter where those are whole multiples of
    # 128 sequences
    c.steps = (160, 480, 1440)
    c.budget = 4.0  # FLOPs of all runs, in trainings of the target
    c.batch = 1  # runs asked for at once
    c.acquisition = "value"  # of information about the target; paper: improvement where it is tried
    return c


def _verify() -> ConfigDict:
    c = ConfigDict()
    c.mixtures = ("uniform", "natural", "keep", "predicted")  # of MIXTURES
    # further ones, {name: {domain: weight}}, and curricula, whose shares of the target sum to 1:
    # {name: ({"share": 0.8, "weights": {domain: weight}}, {"share": 0.2, "weights": ...})}
    c.extra = config_dict.placeholder(object)
    c.seeds = 2  # 0 leaves verification out
    return c


def _execute() -> ConfigDict:
    c = ConfigDict()
    c.slots = 1  # groups of runs trained at once; the devices are split among them
    c.population = 0  # runs a group, in one program; 0 = as many as measured to be fastest
    c.keep_models = False  # True: verification's models, in Hugging Face's format, in models/
    return c


def _mesh() -> ConfigDict:
    c = ConfigDict()
    # of the devices of a slot; what is left splits batches ("data")
    c.fsdp = 1  # devices that split batches and parameters
    c.tensor = 1  # devices that split heads, MLPs and vocabulary
    return c
