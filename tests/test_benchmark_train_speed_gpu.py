"""The training-speed benchmark for GPUs, on a tiny model and a CPU; its peers where torch is."""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import train_budget  # noqa: E402
import train_cards  # noqa: E402
import train_speed_gpu  # noqa: E402
from train_apart import apart  # noqa: E402
from train_timing import recipe_of  # noqa: E402

from autoscale_jax.models import GPT2Config, num_parameters  # noqa: E402
from autoscale_jax.train.mesh import make_mesh  # noqa: E402

SCRIPT = ROOT / "benchmarks" / "train_speed_gpu.py"
TINY = ("--model", "tiny", "--rows", "4", "--steps", "2", "--rounds", "1")
# What a machine that is lent may lack: large and population do without all but ml_collections.
WITHOUT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"grain", "array_record", "zstandard", "jaxopt", "tensorboardX"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


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


def test_cards_are_found_by_their_whole_names_alone():
    names = {
        "NVIDIA H200": "H200",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-40GB": "A100 40 GB",
        "NVIDIA A100-SXM4-80GB": "A100 80 GB",
    }
    assert {name: train_cards.chip_of(name).name for name in names} == names
    others = ("H100 PCIe", "H100 NVL", "H200 NVL", "H100 80GB HBM3 MIG 1g.10gb", "A100-PCIE-40GB")
    assert [train_cards.chip_of(f"NVIDIA {name}") for name in others] == [None] * len(others)
    assert train_cards.chip_of("cpu") is None


def test_utilisation_by_both_conventions():
    """GPT-2 Large: its parameters' products and attention's full square, or half of it."""
    config = train_speed_gpu.MODELS["large"]
    shares = train_cards.utilisation(config, 1e5, train_cards.chip_of("NVIDIA H200"))
    full, seen = shares[train_cards.FULL], shares[train_cards.SEEN]
    attention = 12 * 36 * 1024 * 1280 * 1e5 / 989e12
    assert seen == pytest.approx(full - attention / 2)
    dense = 6 * num_parameters(config) * 1e5 / 989e12  # positions and norms, 0.2%, multiply nothing
    assert full == pytest.approx(dense + attention, rel=0.01)
    assert set(train_cards.utilisation(config, 1e5, None).values()) == {None}


def test_the_fastest_peer_is_what_counts():
    def one(name, mode, ratio):
        own = {"training": "ours", "compile mode": "", train_speed_gpu.RATIO: 1.0}
        peer = {"training": name, "compile mode": mode, train_speed_gpu.RATIO: ratio}
        return {"rows": [own, peer]}

    measured = [one("a", "default", 1.3), one("a", "max-autotune", 1.1), {"failed": "memory"}]
    line, _ = train_speed_gpu.fastest_peer(measured)
    assert line.startswith("ours is 1.1 x as fast as the fastest peer, a, compiled max-autotune")
    assert line.endswith("2 of 3 measured")
    assert list(train_speed_gpu.fastest_peer([{"failed": "memory"}])) == []


def test_what_fails_apart_is_told_and_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=1")
    before = dict(os.environ)
    seen = apart(os.getenv, "XLA_FLAGS", {"XLA_FLAGS": "--b=2"})
    assert seen == "--a=1 --b=2"
    assert apart(int, "none", {}) == {
        "failed": "ValueError: invalid literal for int() with base 10: 'none'"
    }
    assert "the process ended" in apart(os._exit, 3, {})["failed"]
    assert dict(os.environ) == before


def test_each_measurement_has_its_own_arguments():
    arguments = train_speed_gpu.arguments_of(["--peers", "nanogpt", "huggingface"])
    of = {
        part: [one.changed for one in train_speed_gpu.measurements(part, arguments)]
        for part in train_speed_gpu.PARTS
    }
    assert len(of["large"]) == 2 * 2
    assert of["large"][1] == {"peers": ["nanogpt"], "compile_modes": ["max-autotune"]}
    assert of["population"] == [{"proxy_rows": [2]}, {"proxy_rows": [8]}, {"proxy_rows": [32]}]
    assert of["budget"] == [{"budget_of": "model"}, {"budget_of": "proxy"}]


def test_a_population_needs_little_of_the_package():
    code = WITHOUT + "import train_speed_gpu as b; b.population(b.MODELS['tiny'], 1, 1, 1, 1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(SCRIPT.parent)))},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_random_tokens_use_the_whole_vocabulary():
    corpus = train_budget.random_corpus(1000, 2**15)
    tokens_N = np.empty(2**15, np.int32)
    corpus.train_tokens["random"].read(0, tokens_N)
    assert set(tokens_N) == set(range(1000)) and corpus.vocab_size == 1000


def test_the_model_is_compiled_as_the_arguments_say(monkeypatch):
    """Layers one by one leave no loop over them; a smaller piece of logits leaves more pieces."""
    layers, loss = train_speed_gpu.layers, train_speed_gpu.loss
    monkeypatch.setattr(layers, "UNROLLED", dict(layers.UNROLLED))
    monkeypatch.setattr(loss, "CHUNK", dict(loss.CHUNK))
    seen = []
    monkeypatch.setitem(
        train_speed_gpu.PARTS,
        "large",
        lambda _: seen.append((layers.UNROLLED["cpu"], loss.CHUNK["cpu"])) or {},
    )
    chosen = argparse.Namespace(part="large", unrolled=36, loss_chunk=2**20)
    assert train_speed_gpu.measure(chosen)["device"] == "cpu"
    assert seen == [(36, 2**20)]
    assert loss.pieces(16, 1024, 50432) == 1024 and loss.pieces(1, 1024, 1024) == 1


@pytest.mark.parametrize("name", train_speed_gpu.PEERS)
def test_the_peers_residual_streams_are_as_stated(name):
    """What the second block is given under autocast; after a turn, no gradient takes memory."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import train_peers

    config = GPT2Config(320, 32, 2, 32, 2, dtype="bfloat16")
    model, seen = train_peers.make(name, config), set()
    blocks = model.model.transformer.h if name == "huggingface" else model.blocks
    blocks[1].register_forward_pre_hook(lambda _, given: seen.add(given[0].dtype))
    train_peers.theirs(model, config, 4, "cpu", None)(2)
    assert seen == {torch.bfloat16 if name == "nanogpt-bf16" else torch.float32}
    assert seen == {getattr(torch, train_peers.residual(model))}
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["large", "population", "budget"])
def test_each_part_runs_whole(part, tmp_path):
    if part == "large" and not all(importlib.util.find_spec(x) for x in ("torch", "transformers")):
        pytest.skip("torch or transformers is not installed")
    file = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, *TINY, "--parts", part, "--json", file],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(file.read_text())[part]
    assert len(measured) == {"large": 6, "population": 3, "budget": 2}[part]
    assert all(row for one in measured for row in one["rows"])


@pytest.mark.slow
def test_a_part_that_fails_is_told_and_the_others_go_on(tmp_path):
    """No model takes a row count of 0; the other one is measured, and the exit code says so."""
    file = tmp_path / "found.json"
    some = ("--parts", "population", "--proxy-rows", "0", "2")
    done = subprocess.run(
        [sys.executable, SCRIPT, *TINY, *some, "--json", file],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    first, second = json.loads(file.read_text())["population"]
    assert "failed" in first and first["proxy_rows"] == [0]
    assert len(second["rows"]) == 2
