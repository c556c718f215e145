"""One of several processes that train a run together: `train_worker.py SETTINGS.json PROCESS`."""

import json
import sys
from pathlib import Path

import jax

from autoscale_jax.data import prepare
from autoscale_jax.models import GPT2Config
from autoscale_jax.specs import RunSpec
from autoscale_jax.train import processes
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.recipe import Recipe


class Interrupted(Exception):
    pass


def main(settings, process):
    jax.config.update("jax_num_cpu_devices", 1)
    jax.distributed.initialize(settings["address"], settings["processes"], process)
    corpus = prepare(settings["data"], Path(settings["corpus"]))
    recipe = Recipe(**settings["recipe"] | {"model": GPT2Config(**settings["recipe"]["model"])})
    mesh = make_mesh(jax.devices(), **settings["mesh"])
    one = Trainer(recipe, corpus, mesh, Path(settings["folder"]), checkpoint_seconds=0)
    seen = []

    def on_progress(spec, progress):
        seen.append(progress.tokens)
        if len(seen) == settings["interrupt_after"]:
            raise Interrupted

    spec = RunSpec(**settings["spec"])
    try:
        (run,) = one.train([spec], on_progress)
        result = {"curve": [dict(point.loss) for point in run.curve], "first": seen[0]}
        result["rows"] = len(one._members([spec])[0].data[0]["inputs"])
    except Interrupted:
        result = {"tokens": seen[-1]}
    if processes.leads():
        Path(settings["result"]).write_text(json.dumps(result))


main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))
