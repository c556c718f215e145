"""The parts of the training-speed benchmark that need neither torch nor a GPU, on a tiny model."""

import math
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import train_budget  # noqa: E402
import train_speed_gpu  # noqa: E402
from train_timing import recipe_of  # noqa: E402

from autoscale_jax.train.mesh import make_mesh  # noqa: E402


@pytest.fixture(scope="module")
def tiny(recipe):
    return recipe_of(recipe.model, 4)


def test_each_instant_counts_once():
    """Against a count of the instants; what waits is the end of a load that nothing hides."""
    rng = np.random.default_rng(0)
    begin_PxN = rng.integers(0, 900, (len(train_budget.PARTS), 12))
    spans = {
        part: np.stack([begin_N, begin_N + rng.integers(0, 30, 12)], 1).astype(float)
        for part, begin_N in zip(train_budget.PARTS, begin_PxN, strict=True)
    }
    spans["idle"] = np.empty((0, 2))
    first = np.full(1000, "idle", object)
    for part in reversed(train_budget.PARTS[:-1]):
        for begin, end in spans[part].astype(int):
            first[begin:end] = part
    found = train_budget.shares(spans, 100.0, 800.0)
    assert found == {part: np.sum(first[100:800] == part) for part in train_budget.PARTS}

    ops = {"matmul": np.array([[0.0, 10.0], [30.0, 40.0]])}
    loads = np.array([[2.0, 13.0], [15.0, 17.0], [32.0, 38.0]])
    assert train_budget.waits(loads, ops).tolist() == [[10, 13], [15, 17]]


def plane(name, lines):
    """A plane of a profile as text: of each line the events (name, begin, end in us, operation)."""
    text, names = "", sorted({event[0] for events in lines.values() for event in events})
    for line, events in lines.items():
        text += f'lines {{ name: "{line}" '
        for event, begin, end, operation in events:
            text += f"events {{ metadata_id: {names.index(event) + 1} "
            text += f"offset_ps: {begin}000000 duration_ps: {end - begin}000000 "
            text += f'stats {{ metadata_id: 1 str_value: "{operation}" }} }} '
        text += "} "
    for i, event in enumerate(names, 1):
        text += f'event_metadata {{ key: {i} value {{ id: {i} name: "{event}" }} }} '
    text += 'stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }'
    return f'planes {{ name: "{name}" {text} }} '


def test_profile_of_a_card(tmp_path):
    """Its streams tell what it did; the host tells of loads and reports alone."""
    host = {
        "python": [("report", 0, 1, ""), ("load batches", 5, 22, ""), ("report", 41, 42, "")],
        "launches": [("cuLaunchKernel", 32, 40, "dot.1")],
    }
    card = {
        "Stream #7(Compute)": [("nvjet_hsh", 2, 12, "dot.1"), ("fill", 30, 31, "")],
        "Stream #8(MemcpyH2D)": [("MemcpyH2D", 20, 25, ""), ("MemcpyH2D", 3, 4, "")],
        "XLA Modules": [("jit_chunk", 0, 41, "")],
    }
    text = plane("/host:CPU", host) + plane("/device:GPU:0", card)
    profile = tmp_path / "card.xplane.pb"
    profile.write_bytes(jax.profiler.ProfileData.text_proto_to_serialized_xspace(text))
    found = train_budget.between_reports(profile, {"dot.1": "matmul"})
    whole = {"matmul": 10, "input wait": 13, "other": 1, "idle": 40 - 24}
    microseconds = {part: round(1e6 * s, 6) for part, s in found.items()}
    assert microseconds == dict.fromkeys(train_budget.PARTS, 0) | whole

    with pytest.raises(RuntimeError, match="shows nothing of the program"):
        train_budget.between_reports(profile, {"dot.2": "matmul"})


def test_budget_of_a_training(tiny, corpus, tmp_path):
    """The profile shows every part, and the parts are the whole of the time between two reports."""
    mesh = make_mesh(jax.devices()[:1])
    found = train_budget.budget(tiny, corpus, mesh, tmp_path, calls=1)
    assert list(found) == list(train_budget.PARTS)
    assert min(found.values()) >= 0
    assert all(found[part] > 0 for part in ("matmul", "attention", "loss", "optimizer", "other"))
    (profile,) = tmp_path.glob("**/*.xplane.pb")
    _, loads, reports = train_budget._spans(profile, {})
    steps = train_budget.chunk_steps(tiny)
    between = (reports[1, 0] - reports[0, 1]) / 1e9
    assert math.isclose(sum(found.values()) * steps, between, rel_tol=1e-9)
    assert 0 <= found["input wait"] * steps <= np.diff(loads).sum() / 1e9


def test_a_population_beside_its_models_one_by_one(tiny):
    found = train_speed_gpu.population(tiny.model, rows=4, count=2, steps=3, rounds=1)
    together, alone = (row["seconds"] for row in found)
    assert [row["one program is x as fast"] for row in found] == [1, alone[0] / together[0]]
    tokens = 2 * tiny.step_tokens * 3
    assert [row["tokens/s"] for row in found] == [tokens / together[0], tokens / alone[0]]


def test_cards_are_found_by_the_names_that_jax_gives():
    names = {
        "NVIDIA H200": "H200",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-40GB": "A100 40 GB",
        "NVIDIA A100-SXM4-80GB": "A100 80 GB",
    }
    assert {name: train_speed_gpu.chip_of(name).name for name in names} == names
    assert train_speed_gpu.chip_of("cpu") is None
