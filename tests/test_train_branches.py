"""Warm-up, stable, decay: runs share a trunk, and are what they would have been without."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale_jax.config import default_config, validate
from autoscale_jax.data import Order, batches, quota, realised, trunk_of
from autoscale_jax.execute import TrainHere
from autoscale_jax.methods import DDO
from autoscale_jax.models import flops_per_token
from autoscale_jax.specs import BadInput, RunSpec
from autoscale_jax.train.branches import chains, steps_of, trunk_key, units
from autoscale_jax.train.group import Member
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.recipe import learning_rate

SHORT = RunSpec({"birds": 3000, "metals": 3000, "rivers": 1000}, seed=3, label="short")
LONG = RunSpec({"birds": 9001, "metals": 9000, "rivers": 3000}, seed=3, label="long")
LONGER = RunSpec({"birds": 12000, "metals": 12001, "rivers": 4000}, seed=3, label="longer")


@pytest.fixture(scope="session")
def wsd(recipe):
    return dataclasses.replace(
        recipe, schedule="wsd", warmup_ratio=0.0, warmup_steps=10, eval_every_tokens=2048
    )


def quiet(spec, progress):
    pass


class Killed(Exception):
    pass


def train_here(recipe, corpus, folder, specs, on_progress=quiet, seconds=1e9, **execute):
    """(run by spec, tokens at its reports by spec), in two slots of a device each by default."""
    seen = dict.fromkeys(specs, ())

    def note(spec, progress):
        seen[spec] += (progress.tokens,)
        on_progress(spec, progress)

    execute = {"slots": 2} | execute
    train = TrainHere({"": recipe}, corpus, folder, execute.pop("slots"), seconds, note, **execute)
    return {run.spec: run for run in train(specs)}, seen


def same(runs, alone):
    """But for what the runs cost."""
    assert runs.keys() == alone.keys()
    for spec, run in runs.items():
        free = {"seconds": 0, "flops": 0}
        assert dataclasses.replace(run, **free) == dataclasses.replace(alone[spec], **free)


@pytest.fixture(scope="module")
def alone(wsd, corpus, tmp_path_factory):
    one = Trainer(wsd, corpus, make_mesh(jax.devices()[:1]), tmp_path_factory.mktemp("alone"), 1e9)
    return {spec: one.train([spec], quiet)[0] for spec in (SHORT, LONG, LONGER)}


@given(
    short=st.integers(1, 5000),
    longer=st.integers(0, 5000),
    ratio=st.floats(0.01, 0.99),
    warmup=st.integers(1, 300),
)
def test_the_rate_of_a_trunk_is_that_of_every_longer_run(recipe, short, longer, ratio, warmup):
    """Up to the branch bit for bit; at the end 0, one step before it not."""
    wsd = dataclasses.replace(
        recipe, schedule="wsd", warmup_ratio=0.0, warmup_steps=warmup, decay_ratio=ratio
    )
    step_N = jnp.arange(5001, dtype=jnp.int32)

    def rates(steps):
        return np.asarray(learning_rate(wsd, step_N, jnp.float32(steps)))

    branch, own_N, other_N = wsd.branch_step(short), rates(short), rates(short + longer)
    assert 0 <= branch < short
    np.testing.assert_array_equal(own_N[:branch], other_N[:branch])
    assert np.all(own_N[warmup : max(branch, warmup)] == np.float32(wsd.peak_lr))
    assert own_N[short] == 0 < own_N[short - 1]
    assert np.all(np.diff(own_N[max(branch, warmup) : short + 1]) < 0)


tokens_of_three = st.tuples(*[st.integers(1, 3000)] * 3).filter(lambda n: sum(n) >= 640)


@given(tokens=tokens_of_three, scale=st.integers(2, 6), ratio=st.sampled_from((0.1, 0.2, 0.5)))
def test_runs_of_one_trunk_share_its_sequences_and_end_on_their_own_quotas(tokens, scale, ratio):
    """Tokens that are in proportion, as a larger budget rounds them: a token more or less."""
    available = {"a": 50, "b": 200, "c": 1000}
    small = dict(zip("abc", tokens, strict=True))
    large = {name: scale * n for name, n in small.items()}

    def order(tokens):
        whole = quota(tokens, 16)
        trunk = trunk_of(tokens, 16, int((1 - ratio) * sum(whole.values())))
        if trunk is None:
            return None, None
        found = Order(trunk.stages, available, 1)
        domain_N, index_N = found.at(np.arange(len(found)))
        count_K = np.bincount(domain_N, minlength=len(found.names))
        assert dict(zip(found.names, count_K.tolist(), strict=True)) == whole
        visits = [index_N[domain_N == k][: available[n]] for k, n in enumerate(found.names)]
        assert all(len(set(v.tolist())) == len(v) for v in visits), "repeated within an epoch"
        return trunk, (domain_N, index_N)

    (one, short_N), (other, long_N) = order(small), order(large)
    if one is None or other is None:  # too few sequences of a domain: it is not shared
        assert min(tokens) / sum(tokens) * sum(quota(small, 16).values()) < 20
        return
    assert one.weights == other.weights
    n = len(one.stages[0])
    np.testing.assert_array_equal(np.array(short_N)[:, :n], np.array(long_N)[:, :n])


@pytest.mark.parametrize("domains", [3, 5, 7, 16])
def test_each_run_of_ddo_has_its_twin_at_every_budget(wsd, domains):
    """Although 80,000 / 7 is no whole number, nor a third of it: what is rounded is not lost."""
    names = tuple(f"d{k:02}" for k in range(domains))
    specs = [s for n in (80_000, 320_000, 1_000_000) for s in DDO(names, n).design()]
    found = chains(specs, wsd)
    assert len(found) == 3 + 2 * domains and {len(chain) for chain in found} == {3}
    assert all(len({s.label.split(" ", 1)[1] for s in chain}) == 1 for chain in found)
    linear = dataclasses.replace(wsd, schedule="linear")
    assert chains(specs, linear) == [[spec] for spec in specs]


def test_batches_of_a_trunk_are_those_of_the_longer_run(wsd, corpus):
    """Whole batches up to the branch, also of a run whose tokens are rounded otherwise."""

    def data(spec):
        trunk = wsd.branch_step(steps_of(spec, wsd)) * wsd.batch_size
        return batches(corpus, spec.tokens, wsd.model.seq_len, wsd.batch_size, 1, trunk=trunk)

    branch = wsd.branch_step(steps_of(SHORT, wsd))
    for step in range(branch):
        for name, x in data(SHORT)[step].items():
            np.testing.assert_array_equal(x, data(LONG)[step][name])
    assert branch > 80
    asked, _ = realised(corpus, LONG.tokens, wsd.model.seq_len)
    assert len(data(LONG)) == -(-sum(asked.values()) // wsd.step_tokens)


@pytest.mark.parametrize("order", [(SHORT, LONG, LONGER), (LONGER, SHORT, LONG)])
def test_a_shared_trunk_gives_what_training_alone_gives(wsd, corpus, tmp_path, alone, order):
    """Bit for bit, whatever the order in which they are asked; no step of a trunk runs twice."""
    runs, seen = train_here(wsd, corpus, tmp_path, list(order))
    same(runs, alone)
    for shorter, longer in itertools.pairwise((SHORT, LONG, LONGER)):
        branch = wsd.branch_step(steps_of(shorter, wsd)) * wsd.step_tokens
        assert min(seen[longer]) > branch
        assert branch in seen[shorter]
        spared = flops_per_token(wsd.model) * branch
        assert runs[longer].flops == pytest.approx(alone[longer].flops - spared)
    assert not list(tmp_path.iterdir()), "a study that has ended leaves no checkpoint"


@pytest.mark.parametrize("at", ["trunk", "decay", "twin"])
def test_killed_anywhere_it_ends_as_it_would_have(wsd, corpus, tmp_path, alone, at):
    branch = wsd.branch_step(steps_of(SHORT, wsd)) * wsd.step_tokens

    def interrupt(spec, progress):
        here = {"trunk": progress.tokens < branch, "decay": progress.tokens > branch}
        if here.get(at, False) if spec == SHORT else at == "twin" and progress.tokens > branch:
            raise Killed

    specs = [SHORT, LONG]
    # a save a report, or none but that of the branch
    for seconds in (1e9, 0):
        with pytest.raises(Killed):
            train_here(wsd, corpus, tmp_path, specs, interrupt, seconds)
    rest = specs[1:] if at == "twin" else specs
    runs, seen = train_here(wsd, corpus, tmp_path, rest)
    same(runs, {spec: alone[spec] for spec in rest})
    assert min(seen[LONG]) > branch
    assert not list(tmp_path.iterdir())


def swapped(spec):
    return RunSpec(dict(zip(spec.tokens, reversed(spec.tokens.values()), strict=True)), spec.seed)


PAIRS = [[SHORT, swapped(SHORT)], [LONG, swapped(LONG)]]


def test_chains_of_the_same_steps_go_side_by_side(wsd):
    other = RunSpec({"birds": 2000, "metals": 4000}, seed=3)
    specs = [SHORT, other, LONG, *map(swapped, (LONG, SHORT))]
    found = chains(specs, wsd)
    assert units(found, [], wsd, lambda count: 1) == [
        [[SHORT], [LONG]],
        [[other]],
        [[swapped(SHORT)], [swapped(LONG)]],
    ]
    together = units(found, [], wsd, lambda count: 2)
    assert sorted(together, key=len) == [[[other]], PAIRS]
    # what was begun goes on as it was, in its order, with what branches off it
    begun = [[swapped(LONG), LONG]]
    turned = [group[::-1] for group in PAIRS]
    assert units(found, begun, wsd, lambda count: 8) == [turned, [[other]]]
    assert units(chains(specs[2:4], wsd), begun, wsd, lambda count: 8) == [begun]
    # unless that is no longer of the same steps
    assert units(chains([SHORT, LONG, swapped(LONG)], wsd), begun, wsd, lambda count: 1) == [
        begun,
        [[SHORT]],
    ]


def test_runs_of_other_pools_share_no_trunk(wsd):
    def limited(spec, birds):
        return dataclasses.replace(spec, pool={"birds": birds})

    alike = [limited(SHORT, 800), limited(LONG, 800)]
    apart = [limited(SHORT, 800), limited(LONG, 2400)]
    assert chains(alike, wsd) == [alike]
    assert chains([*apart, SHORT], wsd) == [[spec] for spec in (*apart, SHORT)]
    constant = dataclasses.replace(wsd, schedule="constant")
    specs = [RunSpec({"birds": 1024, "metals": 1024}, pool=p) for p in ({}, {"birds": 64})]
    keys = {trunk_key(spec, constant, "data") for spec in specs}
    assert len(keys) == 2 and "" not in keys


@pytest.mark.parametrize("schedule", ["wsd", "constant"])
def test_curricula_share_no_trunk_and_are_exact(wsd, corpus, schedule):
    recipe = dataclasses.replace(wsd, schedule=schedule)

    def staged(spec):
        half = {name: n // 2 for name, n in spec.tokens.items()}
        rest = {name: n - half[name] for name, n in spec.tokens.items()}
        return dataclasses.replace(spec, stages=(half, rest))

    specs = [staged(SHORT), staged(LONG), SHORT]
    assert chains(specs, recipe) == [[spec] for spec in specs]
    assert trunk_key(staged(SHORT), recipe, "data") == ""
    linear = dataclasses.replace(recipe, schedule="linear")
    for spec in specs[:2]:
        one, other = (Member(spec, r, corpus, 1) for r in (recipe, linear))
        assert steps_of(spec, recipe) == one.grid.steps == len(one.data)
        for a, b in zip(one.data, other.data, strict=True):
            assert (a["inputs"] == b["inputs"]).all()


def test_groups_branch_off_together_and_whole(wsd, corpus, tmp_path, monkeypatch):
    """As groups that did not; a group with a run that diverged is not branched off."""
    execute = {"slots": 1, "population": 2}
    branch = wsd.branch_step(steps_of(SHORT, wsd)) * wsd.step_tokens
    apart, _ = train_here(wsd, corpus, tmp_path, PAIRS[1], **execute)
    shared, seen = train_here(wsd, corpus, tmp_path, [*PAIRS[0], *PAIRS[1]], **execute)
    same({spec: shared[spec] for spec in PAIRS[1]}, apart)
    assert all(min(seen[spec]) > branch for spec in PAIRS[1])

    class Ill:
        def __init__(self, data):
            self.data = data

        def __getitem__(self, i):
            batch = self.data[i]
            return batch | {"weight": batch["weight"] * np.float32(np.nan if i == 40 else 1)}

    def init(self, spec, *rest, init=Member.__init__):
        init(self, spec, *rest)
        if spec in (swapped(SHORT), swapped(LONG)):
            self.data = Ill(self.data)

    monkeypatch.setattr(Member, "__init__", init)
    ill, seen = train_here(wsd, corpus, tmp_path, [*PAIRS[0], *PAIRS[1]], **execute)
    assert ill[LONG].loss == apart[LONG].loss and min(seen[LONG]) < branch
    steps = steps_of(LONG, wsd)
    assert ill[swapped(LONG)].message == f"training loss was not finite by step 64 of {steps}"


def test_keys_of_the_default_schedule_do_not_know_of_another(recipe, wsd):
    assert not {"schedule", "decay_ratio"} & recipe.identity().keys()
    assert wsd.identity()["schedule"] == "wsd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cosine"}, "config.train.schedule = 'cosine': use one of linear, wsd"),
        ({"decay_ratio": 1.0}, "config.train.decay_ratio = 1.0: must be above 0 and below 1"),
        (
            {"schedule": "wsd", "warmup_ratio": 0.0},
            "config.train.warmup_steps = 0: train.schedule = 'wsd' needs a warm-up in steps",
        ),
        (
            {"schedule": "wsd", "warmup_ratio": 0.0, "warmup_steps": 250},
            "config.train.warmup_steps = 250: a base run of 80000 tokens decays from step 250 on",
        ),
    ],
)
def test_bad_fields(change, message):
    config = default_config()
    config.train.update(change)
    with pytest.raises(BadInput) as error:
        validate(config)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_study_may_ask_for_it():
    config = default_config()
    config.train.update({"schedule": "wsd", "warmup_ratio": 0.0, "warmup_steps": 31})
    validate(config)
