"""The main job: corpus, proxy runs, the proposal from them, its verification, the report."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from autoscale_jax import config as configs
from autoscale_jax import report, summary, workdir
from autoscale_jax.data import Corpus, prepare
from autoscale_jax.execute import Execute, OnProgress, TrainHere, check_devices
from autoscale_jax.progress import StudyProgress
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, RunSpec
from autoscale_jax.study import Study, make_recipes
from autoscale_jax.train import processes


def run_study(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Run or continue the study of `config` in `folder`; returns what its report.json holds.

    Raises `BadInput` before anything trains. A process that is killed at any moment and started
    again gives the same study: the ledger's runs are kept, an unfinished one continues.
    """
    configs.validate(config)
    # before the corpus, which may take hours
    check_devices(
        make_recipes(config, None).values(), config.execute.slots, **config.mesh.to_dict()
    )
    workdir.claim(folder, config)
    with StudyProgress(folder) as progress, RunTable.open(folder / "runs.jsonl") as table:
        progress.say(f"study in {folder}: preparing the corpus")
        corpus = prepare(config.data.to_dict(), folder / "corpus", say=progress.say)
        processes.meet()  # the others may read it
        progress.say(corpus.summary())
        study = Study(config, corpus, table)
        for note in study.notes:
            progress.say(f"ledger: {note}")
        study.check()
        execute = make_execute(config, corpus, folder, progress.update)
        planned = study.planned_verification()
        try:
            measure(study, study.method.ask, execute, progress, planned, study.left)
            progress.say("proposing a mixture")
            proposal = study.propose()
        except BadInput as error:
            # too many runs diverged to ask for more or to propose: what was measured is still
            # worth a report
            report.write(summary.build(study, None, [str(error)]), folder)
            raise
        report.write(summary.build(study, proposal), folder)
        measure(study, functools.partial(study.ask_verification, proposal), execute, progress)
        result = summary.build(study, proposal)
        report.write(result, folder)
        table.to_csv(folder / "runs.csv")
        progress.say(f"report: {folder / 'report.html'}")
        execute.release()
    return result


def follow_study(config: ConfigDict, folder: Path) -> None:
    """What every process but the first one does: train with it, to the end of the study."""
    configs.validate(config)
    processes.meet()
    corpus = prepare(config.data.to_dict(), folder / "corpus")
    make_execute(config, corpus, folder, lambda spec, progress: None).follow()


def make_execute(
    config: ConfigDict, corpus: Corpus, folder: Path, on_progress: OnProgress
) -> TrainHere:
    """Trains the study's runs on the devices here. Raises `BadInput` when they do not suit it."""
    return TrainHere(
        make_recipes(config, corpus),
        corpus,
        folder / "checkpoints",
        config.execute.slots,
        config.train.checkpoint_seconds,
        on_progress,
        **config.mesh.to_dict(),
        population=config.execute.population,
        models=folder / "models" if config.execute.keep_models else None,
    )


def measure(
    study: Study,
    ask: Callable[[RunTable], Sequence[RunSpec]],
    execute: Execute,
    progress: StudyProgress,
    later: Sequence[RunSpec] = (),
    left: Callable[[Sequence[RunSpec]], float] = lambda specs: 0.0,
) -> None:
    """Train what `ask` asks for until it asks for nothing; `later` is known to follow, and what
    takes as many FLOPs as are `left`."""
    while specs := ask(study.table):
        later_flops = sum(map(study.flops, later)) + left(specs)
        flops = {spec: study.flops(spec) for spec in specs}
        progress.plan(flops, len(study.table), len(later), later_flops)
        for run in execute(specs):
            study.table.add(run)
            progress.finish(run, study.objective(run.loss) if run.status == "ok" else None)
