"""Replay and synthetic runs; slots that train at once give what one after another gives."""

import json
import math

import numpy as np
import pytest

from autoscale_jax.execute import Replay, Synthetic, TrainHere, _plain
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, RunSpec

SPECS = [RunSpec({"birds": 2000 + 100 * i, "metals": 2000, "rivers": 1000}, i) for i in range(4)]


def law(tokens_K):
    return 1 + tokens_K**-0.1


def test_synthetic_runs_follow_the_law_and_repeat():
    exact = list(Synthetic(law, ("a", "b", "c"))(SPECS))
    assert [run.spec for run in exact] == SPECS
    first = np.array(list(exact[0].loss.values()))
    np.testing.assert_allclose(first, law(np.array([2000.0, 2000, 1000])))
    noisy = Synthetic(law, ("a", "b", "c"), noise_sd=0.1)
    assert [r.loss for r in noisy(SPECS)] == [r.loss for r in noisy(SPECS)]
    assert [r.loss for r in noisy(SPECS)] != [r.loss for r in exact]


def test_shared_noise_cancels_in_pairs_of_one_seed():
    world = Synthetic(law, ("a", "b", "c"), shared_sd=0.1)
    one, two = world(
        [RunSpec({"a": 10, "b": 20, "c": 30}, 1), RunSpec({"a": 40, "b": 20, "c": 30}, 1)]
    )
    assert one.loss["b"] == pytest.approx(two.loss["b"])
    assert not math.isclose(one.loss["b"], 1 + 20**-0.1)


def test_replay_gives_the_stored_runs_and_names_what_is_missing():
    stored = list(Synthetic(law, ("a", "b", "c"))(SPECS[:2]))
    replay = Replay(RunTable(stored))
    assert [run.key for run in replay(SPECS[:2])] == [run.key for run in stored]
    with pytest.raises(BadInput, match="seed 3: not in the table"):
        list(replay(SPECS[3:]))


@pytest.fixture(scope="module")
def in_one_slot(recipe, corpus, tmp_path_factory):
    train = TrainHere(
        {"": recipe}, corpus, tmp_path_factory.mktemp("one"), 1, 1e9, lambda s, p: None
    )
    return {run.spec: run for run in train(SPECS)}


def test_two_slots_give_the_runs_of_one(recipe, corpus, tmp_path, in_one_slot):
    """A slot of one device each, against a slot of both devices: equal but for summation order."""
    train = TrainHere({"": recipe}, corpus, tmp_path, 2, 1e9, lambda s, p: None)
    runs = {run.spec: run for run in train(SPECS)}
    assert runs.keys() == in_one_slot.keys()
    for spec, run in runs.items():
        assert run.key == in_one_slot[spec].key
        assert run.loss == pytest.approx(dict(in_one_slot[spec].loss), abs=2e-3)


def test_an_error_in_a_slot_reaches_the_caller_and_keeps_checkpoints(recipe, corpus, tmp_path):
    def full_disk(spec, progress):
        raise OSError(28, "No space left on device")

    train = TrainHere({"": recipe}, corpus, tmp_path, 2, 1e9, full_disk)
    with pytest.raises(OSError, match="No space left"):
        list(train(SPECS))


def test_slots_must_divide_the_devices(recipe, corpus, tmp_path):
    with pytest.raises(BadInput, match=r"config.execute.slots = 3: must divide the 2 devices"):
        TrainHere({"": recipe}, corpus, tmp_path, 3, 1e9, lambda s, p: None)


def test_several_processes_share_one_slot(recipe, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(BadInput, match=r"config.execute.slots = 2: use 1, all 2 processes"):
        TrainHere({"": recipe}, corpus, tmp_path, 2, 1e9, lambda s, p: None)


def test_what_the_first_process_tells_the_others_is_the_same_run():
    pooled = RunSpec({"birds": 100}, 3, "few", pool={"birds": 64})
    staged = RunSpec({"birds": 100, "metals": 9}, 3, stages=({"birds": 100}, {"metals": 9}))
    for spec in (SPECS[0], RunSpec({"birds": 100}, 3, "big", size="large"), pooled, staged):
        told = RunSpec(**json.loads(json.dumps(_plain(spec))))
        assert told == spec and (told.label, told.size) == (spec.label, spec.size)
