"""Which alternatives a search compiles, and what is advised where a plan does not fit or divide."""

import dataclasses
import math
import re
from types import SimpleNamespace

import jax
import pytest
from test_plan import CONFIG, GPT2_DDO, needs_libtpu, python

from autoscale_jax.models import GPT2Config
from autoscale_jax.train import plan, plan_bounds, plan_search, plan_targets
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.plan_program import Plan, make_plan
from autoscale_jax.train.recipe import Recipe


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("search") / "tiny.py"
    file.write_text(CONFIG)
    return file


def recipe_of(model, rows):
    return Recipe(model, rows, 1e-3, 0.1, 1e-2, 0.9, 0.95, 1.0, 2**40, 0)


@pytest.mark.slow
def test_a_search_takes_the_fastest_that_fits(tiny_file):
    done = python(
        *("-m", "autoscale_jax.train.plan", f"--config={tiny_file}", "--topology=gpu:h200:2"),
        "--search",
    )
    assert done.returncode == 0, done.stderr
    assert "fastest that fits: " in done.stdout


def test_a_search_ends_when_nothing_left_can_be_faster(monkeypatch):
    """Of (least seconds, least memory): the first does not fit, so what needs more is left out;
    then one fits in 3 s, and one that takes 4 s at least is not compiled."""
    listed = [(1.0, 30.0), (1.5, 40.0), (2.0, 20.0), (2.5, 10.0), (4.0, 5.0)]
    memory = {i: {"all": m} for i, (_, m) in enumerate(listed)}
    compiled = []

    def make_plan(recipe, mesh, target, count):
        compiled.append(recipe)
        fits = recipe > 0
        return SimpleNamespace(verdict="fits" if fits else "does not fit", seconds=3.0)

    monkeypatch.setattr(plan_search, "make_plan", make_plan)
    monkeypatch.setattr(plan_bounds, "least_memory", lambda recipe, *_: memory[recipe])
    monkeypatch.setattr(
        plan_search, "alternatives", lambda *_: [(s, i, None) for i, (s, _) in enumerate(listed)]
    )
    list(plan_search.search(None, [], SimpleNamespace(chip="any")))
    assert compiled == [0, 2, 3]


def advised(line):
    """The flags of a line of advice."""
    return re.findall(r"--config\.\S+=\S+", line)


def test_what_is_advised_fits_as_compiled(monkeypatch):
    """A chip with too little memory: the flags stand for a program whose compiled need it has."""
    recipe, devices = recipe_of(GPT2Config(64, 64, 2, 32, 2), 16), jax.devices()[:2]
    large = plan_targets.Chip("large", 1e12, math.inf, 1e12, 1e11, "")
    target = plan_targets.Target("two", devices, large, False)
    roomy = make_plan(recipe, make_mesh(devices), target)
    small = dataclasses.replace(large, memory=0.7 * roomy.needs)
    asked = dataclasses.replace(roomy, target=dataclasses.replace(target, chip=small))
    assert asked.verdict == "does not fit"
    tried = list(plan_search.remedies(asked))
    last = tried[-1]
    monkeypatch.setattr(plan, "remedies", lambda _: tried)  # compiled once
    *_, advice = plan.advise(asked, 10**6, (0, 0))
    assert last.verdict == "fits" and last.needs <= small.memory < asked.needs
    given = dict(flag.removeprefix("--config.").split("=") for flag in advised(advice))
    assert given == {
        "model.remat": last.recipe.model.remat,
        "train.accumulation": str(last.recipe.accumulation),
        "mesh.fsdp": str(last.mesh.shape["fsdp"]),
        "mesh.tensor": str(last.mesh.shape["tensor"]),
    }


def test_where_nothing_fits_no_flag_is_advised():
    devices = jax.devices()[:1]
    tiny = plan_targets.Chip("tiny", 1e12, 1e5, 1e12, 1e11, "")
    target = plan_targets.Target("one", devices, tiny, False)
    recipe = recipe_of(GPT2Config(64, 64, 2, 32, 2), 2)
    asked = Plan(recipe, make_mesh(devices), target, 1, math.inf, None, None)
    lines = list(plan.advise(asked, 10**6, (0, 0)))
    assert lines == [
        "advice: no mesh, rematerialisation or microbatch helps: use more devices, or larger ones"
    ]


def test_a_mesh_that_does_not_suit_is_one_line_with_one_that_does(tiny_file):
    plan_of = ("-m", "autoscale_jax.train.plan", f"--config={tiny_file}", "--topology=cpu:6")
    done = python(*plan_of, "--config.mesh.fsdp=4")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "config.mesh.fsdp = 4" in done.stderr
    flags = advised(done.stderr)
    assert "--config.train.batch_size=15" in flags  # 16 rows: nearest to 3 devices and 2 ways
    assert python(*plan_of, *flags).returncode == 0


def test_a_batch_that_does_not_divide_is_told_one_that_does():
    """The paper's 80 rows on 256 devices: 64 rows, of heads split four ways."""
    done = python(*GPT2_DDO, "--topology=cpu:256")
    assert done.returncode == 2
    assert "config.train.batch_size = 80: must be a multiple of 5 x 256" in done.stderr
    flags = {"--config.train.batch_size=64", "--config.train.accumulation=1"}
    assert flags | {"--config.mesh.tensor=4"} <= set(advised(done.stderr))


@pytest.mark.slow
@needs_libtpu
def test_the_advice_for_sixteen_v5e_chips_is_true():
    """The config's own mesh does not fit; what is advised does, when the planner is asked again."""
    done = python(*GPT2_DDO, "--topology=v5e:4x4", JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "  does not fit: needs" in done.stdout
    flags = advised(done.stdout.splitlines()[-1])
    again = python(*GPT2_DDO, "--topology=v5e:4x4", *flags, JAX_PLATFORMS="cpu")
    assert "  fits: needs" in again.stdout and "advice" not in again.stdout


@pytest.mark.slow
@needs_libtpu
def test_the_way_out_of_a_batch_for_256_chips_fits():
    refused = python(*GPT2_DDO, "--topology=v5e:16x16", JAX_PLATFORMS="cpu")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    done = python(*GPT2_DDO, "--topology=v5e:16x16", *advised(refused.stderr), JAX_PLATFORMS="cpu")
    assert "  fits: needs" in done.stdout
