"""Every mesh trains the same model: eight simulated devices against one, in another process."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from autoscale_jax.specs import BadInput
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import block_of, make_mesh
from autoscale_jax.train.sharding import partition

# Losses near 4 have a float32 spacing of 2.4e-7; other orders of summation move each by some of
# these, and 20 steps of Adam do not yet amplify that much.
TOLERANCE = 1e-5


def work(what):
    worker = Path(__file__).parent / "mesh_worker.py"
    warnings = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "1"}
    done = subprocess.run(
        [sys.executable, worker, what], capture_output=True, text=True, env=warnings
    )
    assert done.returncode == 0, done.stderr
    # "involuntary full rematerialization": the compiler found no better way than whole arrays
    assert "rematerialization" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def found():
    return work("one and all at once")


def test_mesh_microbatches_and_models_together_give_the_curve_of_one_device(found):
    """Mesh (2, 2, 2), two models, four microbatches.

    The rows have different numbers of tokens that count: means of means would differ.
    """
    one, loss = np.array(found["one"]["loss"]), found["all at once"]["loss"]
    assert one[0] - one[-1] > 0.05, "it learns, so the curves have something to differ in"
    np.testing.assert_allclose(loss, np.repeat(one, 2, axis=1), atol=TOLERANCE)
    # the parameters and the optimiser's moments are split, not copied
    assert found["all at once"]["parts"] == {"params": 4, "moments": 4}


def same_on_every_mesh(what, count):
    """Three layers in a loop, rematerialised, with a loss in pieces: meshes of eight devices."""
    found = work(what)
    one = np.array(found["one"]["loss"])
    assert one[0] - one[-1] > 0.05
    assert len(found["meshes"]) == count
    for fsdp, tensor, on_mesh in found["meshes"]:
        np.testing.assert_allclose(
            on_mesh["loss"], one, atol=TOLERANCE, err_msg=f"{what}: {fsdp, tensor}"
        )
        assert on_mesh["parts"] == {"params": fsdp * tensor, "moments": fsdp * tensor}


def test_some_meshes_give_the_curve_of_one_device():
    same_on_every_mesh("gpt2 on few meshes", 3)


@pytest.mark.slow
def test_every_mesh_gives_the_curve_of_one_device():
    same_on_every_mesh("gpt2 on all meshes", 10)


@pytest.mark.slow
def test_meshes_give_bert_the_curve_of_one_device():
    same_on_every_mesh("bert on few meshes", 3)


@pytest.mark.parametrize(
    ("processes", "blocks"),
    [
        ([[0], [0], [1], [1]], [(0, 2), (1, 2)]),  # two devices each
        ([[0, 1], [0, 1]], [(0, 1), (0, 1)]),  # only "tensor" passes between them: all rows
        ([[0, 0], [0, 1], [2, 2], [2, 3]], [(0, 2), (1, 4), (1, 2), (3, 4)]),
        ([[0], [1], [0], [1]], [(0, 1), (0, 1)]),  # every other row: no block
        ([[0], [1], [1], [0]], [(0, 1), (0, 1)]),
    ],
)
def test_a_process_knows_its_block_of_rows(processes, blocks):
    found = [block_of(np.array(processes), process) for process in range(len(blocks))]
    assert found == blocks


def test_what_a_mesh_axis_does_not_divide_stays_whole():
    mesh = AbstractMesh((1, 2, 4), ("data", "fsdp", "tensor"))
    assert partition(("vocab", "embed"), (8, 6), mesh) == PartitionSpec("tensor", "fsdp")
    assert partition(("vocab", "embed"), (10, 6), mesh) == PartitionSpec(None, "fsdp")
    assert partition(("layers", "norm"), (8, 8), mesh) == PartitionSpec(None, None)


@pytest.mark.parametrize(
    ("fsdp", "tensor", "change", "message"),
    [
        (3, 1, {}, r"config.mesh.fsdp = 3, .*must divide the 2 devices"),
        (1, 2, {"num_heads": 1}, r"config.mesh.tensor = 2: must divide config.model.num_heads = 1"),
        (
            2,
            1,
            {"batch_size": 3},
            r"train.batch_size = 3: must be a multiple of 1 x 2.*; use 2 or 4",
        ),
        (
            1,
            1,
            {"accumulation": 4},
            r"train.batch_size = 4: must be a multiple of 4 x 2.*; use 8",
        ),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(
    recipe, corpus, tmp_path, fsdp, tensor, change, message
):
    heads = {"num_heads": change.pop("num_heads", 2)}
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, **heads), **change)
    with pytest.raises(BadInput, match=message):
        mesh = make_mesh(jax.devices()[:2], fsdp, tensor)
        Trainer(recipe, corpus, mesh, tmp_path, 1e9)
