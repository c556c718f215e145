"""Several runs in one program: as one by one, through kills, whatever becomes of the others."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from autoscale_jax.execute import TrainHere
from autoscale_jax.specs import RunSpec
from autoscale_jax.train import population
from autoscale_jax.train.group import Member
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh

SPECS = [
    RunSpec({"birds": 6000, "metals": 3000, "rivers": 3001}, seed=3),
    RunSpec({"birds": 2000, "metals": 3000, "rivers": 3001}, seed=3),
    RunSpec({"birds": 2000, "metals": 9000, "rivers": 3001}, seed=4),
]


def quiet(spec, progress):
    pass


def train_here(recipe, corpus, folder, population=3, on_progress=quiet, seconds=1e9, slots=1):
    return TrainHere(
        {"": recipe}, corpus, folder, slots, seconds, on_progress, population=population
    )


def by_spec(runs):
    return {run.spec: run for run in runs}


@pytest.fixture(scope="module")
def one_by_one(recipe, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    one = Trainer(recipe, corpus, make_mesh(jax.devices()[:1]), folder, 1e9)
    return by_spec(run for spec in SPECS for run in one.train([spec], quiet))


@pytest.fixture(scope="module")
def together(recipe, corpus, tmp_path_factory):
    return by_spec(train_here(recipe, corpus, tmp_path_factory.mktemp("group"))(SPECS))


def test_a_group_gives_what_one_by_one_gives(one_by_one, together):
    """The same sums in another order: float32 curves drift by a little as training amplifies it."""
    assert together.keys() == one_by_one.keys()
    for spec, alone in one_by_one.items():
        run = together[spec]
        assert (run.key, run.realised, run.flops) == (alone.key, alone.realised, alone.flops)
        assert [point.tokens for point in run.curve] == [point.tokens for point in alone.curve]
        for point, same in zip(run.curve, alone.curve, strict=True):
            assert point.loss == pytest.approx(dict(same.loss), abs=2e-3)
        assert run.curve[0].loss == pytest.approx(dict(alone.curve[0].loss), abs=2e-4)


class Killed(Exception):
    pass


def test_a_killed_group_continues(recipe, corpus, tmp_path, together):
    reports = itertools.count()

    def interrupt(spec, progress):
        if next(reports) == 8:
            raise Killed

    with pytest.raises(Killed):
        list(train_here(recipe, corpus, tmp_path, 3, interrupt, 0)(SPECS))
    seen = []
    # another size, another order: the group that was begun is found and ends as it would have
    again = train_here(recipe, corpus, tmp_path, 1, lambda spec, at: seen.append(at.tokens))
    runs = by_spec(again(SPECS[::-1]))
    assert min(seen) > recipe.step_tokens * 128, "it began again from the start"
    for spec, run in together.items():
        assert runs[spec].loss == run.loss and runs[spec].curve == run.curve
    assert not list(tmp_path.iterdir())


def test_a_diverged_member_leaves_the_others_alone(recipe, corpus, tmp_path, together, monkeypatch):
    """The longest one diverges; the others are trained and evaluated to their own ends."""
    ill = SPECS[2]

    class Ill:
        def __init__(self, data):
            self.data = data

        def __getitem__(self, i):
            factor = np.float32(np.nan if i > 150 else 1)
            return {
                name: x * (factor if name == "weight" else 1) for name, x in self.data[i].items()
            }

    def init(self, spec, *rest, init=Member.__init__):
        init(self, spec, *rest)
        if spec == ill:
            self.data = Ill(self.data)

    monkeypatch.setattr(Member, "__init__", init)
    runs = by_spec(train_here(recipe, corpus, tmp_path)(SPECS))
    assert runs[ill].status == "diverged" and "training loss was not finite" in runs[ill].message
    for spec in SPECS[:2]:
        assert runs[spec].loss == together[spec].loss


def test_groups_are_of_similar_length_and_leave_no_slot_idle(recipe, corpus, tmp_path):
    specs = [RunSpec({"birds": 1000 * n}) for n in (3, 9, 2, 8, 1, 7, 4)]
    units = train_here(recipe, corpus, tmp_path, 3)._units(specs)
    assert [[spec.total // 1000 for spec in group] for (group,) in units] == [
        [9, 8],
        [7, 4],
        [3, 2, 1],
    ]
    two_slots = train_here(recipe, corpus, tmp_path, 8, slots=2)._units(specs)
    assert len(two_slots) >= 2
    assert train_here(recipe, corpus, tmp_path, 1)._units(specs) == [[[spec]] for spec in specs]


@pytest.mark.parametrize(
    ("rate", "best"),
    [
        (lambda k: 1e3 * k, 16),  # an idle device: as many as there are
        (lambda k: 1e3 * min(k, 4), 4),  # full from 4 on
        (lambda k: 1e3, 1),
        (lambda k: 1e9 * k, 1),  # done before a larger program is compiled
    ],
)
def test_the_fastest_size_is_chosen(recipe, monkeypatch, rate, best):
    monkeypatch.setattr(population, "tokens_per_second", lambda recipe, mesh, k: rate(k))
    monkeypatch.setattr(population, "fits", lambda recipe, mesh, k: True)
    mesh = make_mesh(jax.devices()[:1])
    assert population.choose(recipe, mesh, [RunSpec({"birds": 10**6})] * 20, 20) == best


def holds(most):
    """Stands in for a device: a program of more than `most` runs does not compile or run there."""

    def rate(recipe, mesh, count):
        if count > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return 1e3 * count

    return rate


def test_a_size_that_fails_for_want_of_memory_leaves_the_one_before(recipe, monkeypatch):
    """Whatever the analysis said: the runs train one after another, or as many as did fit."""
    mesh, specs = make_mesh(jax.devices()[:1]), [RunSpec({"birds": 10**6})] * 20
    for most in (1, 4):
        monkeypatch.setattr(population, "tokens_per_second", holds(most))
        assert population.choose(recipe, mesh, specs, 20) == most
    monkeypatch.setattr(population, "tokens_per_second", holds(0))
    with pytest.raises(OSError, match=r"out of memory .* train fewer runs at once"):
        population.choose(recipe, mesh, specs, 20)


def test_another_failure_of_a_larger_size_is_not_hidden(recipe, monkeypatch):
    def broken(recipe, mesh, count):
        if count > 1:
            raise jax.errors.JaxRuntimeError("INTERNAL: no such kernel")
        return 1e3

    monkeypatch.setattr(population, "tokens_per_second", broken)
    mesh = make_mesh(jax.devices()[:1])
    with pytest.raises(jax.errors.JaxRuntimeError, match="no such kernel"):
        population.choose(recipe, mesh, [RunSpec({"birds": 10**6})] * 20, 20)


def test_a_size_set_by_hand_shrinks_to_what_memory_holds(recipe, corpus, tmp_path, monkeypatch):
    specs = [RunSpec({"birds": 1000 * n}) for n in range(1, 9)]
    monkeypatch.setattr(population, "fits", lambda recipe, mesh, count: count <= 3)
    units = train_here(recipe, corpus, tmp_path, 8)._units(specs)
    assert [len(group) for (group,) in units] == [2, 3, 3]
    monkeypatch.setattr(population, "fits", lambda recipe, mesh, count: False)
    units = train_here(recipe, corpus, tmp_path, 8)._units(specs)
    assert units == [[[spec]] for spec in specs]


def test_a_program_that_the_compiler_finds_too_large_does_not_fit(recipe, monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1e12}

    class Mesh:
        local_devices = (Device(),)

    monkeypatch.setattr(population, "make_train_chunk", holds(2))
    assert not population.fits(recipe, Mesh, 3)


def test_out_of_memory_while_measuring_is_one_line_with_remedies(recipe, corpus, tmp_path):
    """A real allocation that no machine grants, from how many runs a program are fastest."""
    model = dataclasses.replace(recipe.model, d_model=2**20, num_heads=1, vocab_size=2**12)
    huge = dataclasses.replace(recipe, model=model)
    with pytest.raises(OSError, match=r"out of memory .*remat.*accumulation.*fsdp") as error:
        list(train_here(huge, corpus, tmp_path, population=0)(SPECS))
    assert "\n" not in str(error.value)


def test_a_size_that_memory_does_not_hold_is_not_taken(recipe, monkeypatch):
    """The program's own memory analysis, against a device that has room for two models."""

    class Device:
        def memory_stats(self):
            return {"bytes_limit": 1.5 * needs}

    class Mesh:
        def __init__(self, local_devices):
            self.local_devices = local_devices

    mesh = make_mesh(jax.devices()[:1])
    compiled = population.make_train_chunk(recipe, mesh, 2)
    analysis = compiled.memory_analysis()
    needs = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    monkeypatch.setattr(population, "make_train_chunk", lambda r, m, k: compiled)
    assert population.fits(recipe, Mesh([Device()]), 2)
    needs /= 2
    assert not population.fits(recipe, Mesh([Device()]), 2)
    assert population.fits(recipe, mesh, 2)  # a CPU does not tell its limit


def test_speed_is_measured_on_the_program_that_trains(recipe):
    mesh = make_mesh(jax.devices()[:1])
    assert 0 < population.tokens_per_second(recipe, mesh, 1) < 1e9
