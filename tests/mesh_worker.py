"""Prints, as JSON, the loss curve of 20 steps on meshes of eight simulated devices."""

import dataclasses
import json
import sys

import jax
import numpy as np

from autoscale_jax.models import BertConfig, GPT2Config, loss
from autoscale_jax.train import mesh as meshes
from autoscale_jax.train.recipe import Recipe
from autoscale_jax.train.step import make_init, make_train_chunk

jax.config.update("jax_num_cpu_devices", 8)
STEPS, ROWS, LENGTH, VOCAB = 20, 16, 8, 64
MODEL = GPT2Config(VOCAB, LENGTH, num_layers=1, d_model=16, num_heads=8, tie_embeddings=False)
RECIPE = Recipe(
    model=MODEL,
    batch_size=ROWS,
    peak_lr=1e-2,
    warmup_ratio=0.1,
    weight_decay=0.01,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
    eval_every_tokens=1,
    seed=0,
)


# what scales: a loop over layers, rematerialisation, a loss in pieces
SCANNED = {"d_model": 16, "num_heads": 8, "num_layers": 3, "remat": "dots"}
MODELS = {
    "gpt2": GPT2Config(VOCAB, LENGTH, **SCANNED),
    "bert": BertConfig(VOCAB, LENGTH, **SCANNED),
}
SHAPES = [(fsdp, tensor) for fsdp in (1, 2, 4, 8) for tensor in (1, 2, 4, 8) if fsdp * tensor <= 8]
FEW = [(8, 1), (2, 2), (1, 8)]


def curve(devices, fsdp=1, tensor=1, accumulation=1, count=1):
    """([STEPS, count] losses, how many parts the input embedding is in)."""
    recipe = dataclasses.replace(RECIPE, accumulation=accumulation)
    mesh = meshes.make_mesh(jax.devices()[:devices], fsdp, tensor)
    rng = np.random.default_rng(0)
    shape = (128, count, accumulation, ROWS // accumulation, LENGTH)
    inputs = rng.integers(0, VOCAB, (128, 1, ROWS, LENGTH)).astype(np.int32)
    weight = (rng.random(inputs.shape) < 0.7).astype(np.float32)
    batch = {"inputs": inputs, "targets": (7 * inputs + 3) % VOCAB, "weight": weight}
    batch = {
        name: np.broadcast_to(x, (128, count, ROWS, LENGTH)).reshape(shape)
        for name, x in batch.items()
    }
    same = meshes.replicated(mesh)
    state, loss_SxK = make_train_chunk(recipe, mesh, count)(
        make_init(recipe, mesh, count)([5] * count),
        meshes.put(np.full(count, STEPS, np.float32), same),
        meshes.put(batch, meshes.rows(mesh, 3)),
        meshes.put(np.int32(STEPS), same),
    )
    parts = {}
    for name, leaf in (("params", state.params["wte"]), ("moments", state.opt_state[1].mu["wte"])):
        parts[name] = leaf.size // leaf.addressable_shards[0].data.size
    return {"loss": np.asarray(loss_SxK)[:STEPS].tolist(), "parts": parts}


def on_meshes(name, shapes):
    """The curve of one device, then of each mesh (fsdp, tensor) of all eight."""
    global RECIPE
    loss.CHUNK["cpu"] = 2 * 2 * VOCAB
    RECIPE = dataclasses.replace(RECIPE, model=MODELS[name])
    return {"one": curve(1), "meshes": [(*shape, curve(8, *shape)) for shape in shapes]}


what = sys.argv[1]
if what == "one and all at once":
    found = {"one": curve(1), "all at once": curve(8, 2, 2, accumulation=4, count=2)}
else:
    name, which = what.split(" on ")
    found = on_meshes(name, SHAPES if which == "all meshes" else FEW)
print(json.dumps(found))
