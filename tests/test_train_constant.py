"""A constant rate: a longer run continues a shorter one from its end, whenever it is asked for."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale_jax.data import GRID, quota, trunk_of
from autoscale_jax.execute import TrainHere
from autoscale_jax.methods.space import Size, Space, Trial
from autoscale_jax.models import flops_per_token
from autoscale_jax.specs import BadInput
from autoscale_jax.train.checkpoint import TRUNKS, RunCheckpoint
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh

NAMES = ("birds", "metals", "rivers")


@pytest.fixture(scope="module")
def recipes(recipe):
    """Two sizes; `large` takes twice the rows a step."""
    small = dataclasses.replace(
        recipe, schedule="constant", warmup_ratio=0.0, warmup_steps=10, eval_every_tokens=1000
    )
    model = dataclasses.replace(small.model, d_model=32)
    return {"small": small, "large": dataclasses.replace(small, model=model, batch_size=8)}


@pytest.fixture(scope="module")
def space(recipes):
    sizes = [
        Size(name, 1.0, flops_per_token(r.model) * r.step_tokens, r.step_tokens)
        for name, r in recipes.items()
    ]
    return Space(NAMES, tuple(sizes), (32, 64, 160), 160, (0.0,) * 3, (1.0,) * 3, grid=GRID)


def trial(space, steps, size=0, weights=(0.314, 0.5, 0.186)):
    return space.spec(Trial(np.array(weights), size, steps), f"{size} {steps} {weights[0]}")


def train(recipes, corpus, folder, specs, on_progress=lambda spec, at: None, slots=2, **execute):
    """Run by spec, by default in two slots of a device each, as a process of its own would."""
    here = TrainHere(recipes, corpus, folder, slots, 1e9, on_progress, **execute)
    return {run.spec: run for run in here(specs)}


def alone(recipe, corpus, folder, spec):
    folder = folder / "alone" / spec.label  # nothing is kept there that it could continue
    one = Trainer(recipe, corpus, make_mesh(jax.devices()[:1]), folder, 1e9)
    (run,) = one.train([spec], lambda spec, at: None)
    return run


def same(run, whole):
    free = {"seconds": 0, "flops": 0}
    assert dataclasses.replace(run, **free) == dataclasses.replace(whole, **free)


@given(
    weights=st.lists(st.integers(0, GRID), min_size=2, max_size=9).filter(lambda w: sum(w) > 0),
    multiple=st.integers(1, 100_000),
)
def test_a_run_on_the_grid_is_all_trunk(weights, multiple):
    """Its whole quotas are a prefix of the order that any longer run of its weights begins with."""
    names = tuple(f"d{k}" for k in range(len(weights)))
    free = (0.0,) * len(names), (1.0,) * len(names)
    space = Space(names, (Size("", 1.0, 1.0, GRID * 16),), (1,), 1, *free, grid=GRID)
    runs = [space.spec(Trial(np.array(weights, float), 0, n)) for n in (multiple, 3 * multiple)]
    trunks = [trunk_of(run.tokens, 16, run.total // 16) for run in runs]
    assert trunks[0].weights == trunks[1].weights
    for run, trunk in zip(runs, trunks, strict=True):
        (stage,) = trunk.stages
        assert dict.fromkeys(names, 0) | stage.sequences == quota(run.tokens, 16)
        for name, weight in zip(names, weights, strict=True):
            assert abs(run.weights[name] - weight / sum(weights)) < 1 / GRID


def test_continued_is_what_it_would_have_been_at_one_go(recipes, corpus, space, tmp_path):
    """Bit for bit, asked later and by another process; each run costs what it adds."""
    short, middle, long = (trial(space, steps) for steps in (32, 64, 160))
    seen = []
    runs = {}
    for asked in ([short], [middle, long]):  # the second call trains a chain
        runs |= train(recipes, corpus, tmp_path, asked, lambda _, at: seen.append(at.tokens))
    whole = {spec: alone(recipes["small"], corpus, tmp_path, spec) for spec in runs}
    for spec, run in runs.items():
        same(run, whole[spec])
    assert seen == sorted(set(seen)), "no step runs twice"
    at = {point.tokens: point.loss for point in runs[long].curve}
    for spec in runs:  # a point of a curve is the result of a shorter run
        assert at[spec.total] == runs[spec].loss
    done = list(runs)
    for i, spec in enumerate(done):
        assert runs[spec].flops == pytest.approx(space.cost(spec, done[:i]))
    assert sum(run.flops for run in runs.values()) == pytest.approx(whole[long].flops)
    # all of this from another seed, mixture or size begins anew
    other = trial(space, 64, weights=(0.3, 0.5, 0.2))
    found = train(recipes, corpus, tmp_path, [other, trial(space, 32, size=1)])
    assert found[other].flops == pytest.approx(space.cost(other))
    here = TrainHere(recipes, corpus, tmp_path, 1, 1e9, lambda spec, at: None)
    here.release()
    assert not (tmp_path / TRUNKS).exists()


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", ["middle", "end kept", "end not kept"])
def test_killed_anywhere_it_costs_and_ends_the_same(
    recipes, corpus, space, tmp_path, monkeypatch, at
):
    short, long = trial(space, 32), trial(space, 160)
    first = train(recipes, corpus, tmp_path, [short])[short]

    def interrupt(spec, progress):
        if at == "middle" and progress.tokens > 100 * space.sizes[0].step_tokens:
            raise Killed

    def kill(self, *args, save=RunCheckpoint.save, close=RunCheckpoint.close, **kwargs):
        if at == "end not kept" and "trunks" in str(self._folder):
            raise Killed
        if at == "end kept" and kwargs == {"delete": True}:
            raise Killed
        (save if args else close)(self, *args, **kwargs)

    monkeypatch.setattr(RunCheckpoint, "save", kill)
    monkeypatch.setattr(RunCheckpoint, "close", kill)
    with pytest.raises(Killed):
        train(recipes, corpus, tmp_path, [long], interrupt)
    monkeypatch.undo()
    seen = []
    again = train(recipes, corpus, tmp_path, [long], lambda _, at: seen.append(at.tokens))[long]
    assert (seen == []) == (at == "end kept")
    whole = alone(recipes["small"], corpus, tmp_path, long)
    same(again, whole)
    assert first.flops + again.flops == pytest.approx(whole.flops)


def test_a_group_keeps_the_end_of_each_of_its_runs(recipes, corpus, space, tmp_path):
    mixtures = [(0.25, 0.5, 0.25), (0.5, 0.25, 0.25)]
    short, long = ([trial(space, steps, 0, w) for w in mixtures] for steps in (32, 64))
    execute = {"slots": 1, "population": 2}
    runs = train(recipes, corpus, tmp_path, short, **execute)
    runs |= train(recipes, corpus, tmp_path, long, **execute)
    for one, other in zip(short, long, strict=True):
        assert runs[other].flops == pytest.approx(runs[one].flops)
        whole = alone(recipes["small"], corpus, tmp_path, other)
        assert [p.tokens for p in runs[other].curve] == [p.tokens for p in whole.curve]
        assert runs[other].loss == pytest.approx(dict(whole.loss), abs=2e-3)


def test_a_size_without_a_recipe_is_refused(recipes, corpus, space, tmp_path):
    here = TrainHere({"small": recipes["small"]}, corpus, tmp_path, 1, 1e9, lambda s, at: None)
    message = r"run '1 32 0.*: model size 'large' is not known; there are 'small'"
    with pytest.raises(BadInput, match=message):
        list(here([trial(space, 32, size=1)]))
