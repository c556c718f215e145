"""Real processes that train as one, and checkpoints that pass between them and a single one."""

import dataclasses
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from autoscale_jax.runs import RunTable
from autoscale_jax.specs import RunSpec
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh

SPEC = RunSpec({"birds": 2000, "metals": 1000, "rivers": 1000}, seed=3)
WORKER = Path(__file__).parent / "train_worker.py"
# Summation in another order moves a float32 loss by 1e-6; 62 steps of training amplify that.
TOLERANCE = 2e-4


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def in_two_processes(recipe, data_settings, tmp_path, tmp_path_factory):
    """`(folder, interrupt_after) -> what the first of two processes found`."""
    corpus = tmp_path_factory.mktemp("corpus_of_two")

    def run(folder, interrupt_after=0):
        settings = {
            "address": f"127.0.0.1:{free_port()}",
            "processes": 2,
            "mesh": {"fsdp": 2},
            "data": data_settings,
            "corpus": str(corpus),
            "recipe": dataclasses.asdict(short(recipe)),
            "spec": {"tokens": dict(SPEC.tokens), "seed": SPEC.seed},
            "folder": str(folder),
            "interrupt_after": interrupt_after,
            "result": str(tmp_path / "result.json"),
        }
        (tmp_path / "settings.json").write_text(json.dumps(settings))
        command = [sys.executable, WORKER, tmp_path / "settings.json"]
        workers = [
            subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for i in range(2)
        ]
        output = [worker.communicate(timeout=600)[0].decode() for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], output
        return json.loads((tmp_path / "result.json").read_text())

    return run


def short(recipe):
    return dataclasses.replace(recipe, eval_every_tokens=1024)


def curve_here(recipe, corpus, folder, devices=1, fsdp=1):
    seen = []
    mesh = make_mesh(jax.devices()[:devices], fsdp)
    one = Trainer(short(recipe), corpus, mesh, folder, 1e9)
    (run,) = one.train([SPEC], lambda spec, progress: seen.append(progress.tokens))
    return [dict(point.loss) for point in run.curve], seen[0]


def test_two_processes_train_as_one_and_pass_on_their_checkpoint(
    recipe, corpus, tmp_path, in_two_processes
):
    """Two points of the curve from two processes, each with half of every parameter, then one."""
    alone, _ = curve_here(recipe, corpus, tmp_path / "alone")
    left = in_two_processes(tmp_path / "passed", interrupt_after=3)
    passed_on, first = curve_here(recipe, corpus, tmp_path / "passed")
    assert first == left["tokens"] == 3072, "it began again from the start"
    assert len(passed_on) == len(alone) == 4
    for point, same in zip(passed_on, alone, strict=True):
        assert point == pytest.approx(same, abs=TOLERANCE)


def test_two_processes_continue_the_checkpoint_of_one(recipe, corpus, tmp_path, in_two_processes):
    alone, _ = curve_here(recipe, corpus, tmp_path / "alone")

    class Interrupted(Exception):
        pass

    seen = []

    def interrupt(spec, progress):
        seen.append(progress.tokens)
        if len(seen) == 3:
            raise Interrupted

    one = Trainer(short(recipe), corpus, make_mesh(jax.devices()[:1]), tmp_path / "passed", 0)
    with pytest.raises(Interrupted):
        one.train([SPEC], interrupt)
    both = in_two_processes(tmp_path / "passed")
    assert both["first"] == seen[-1] == 3072, "they began again from the start"
    assert both["rows"] == recipe.batch_size // 2, "each reads its half of a batch"
    for point, same in zip(both["curve"], alone, strict=True):
        assert point == pytest.approx(same, abs=TOLERANCE)


def launch(file, folder, *arguments):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "autoscale_jax.launch", f"--config={file}"),
            *(
                f"--workdir={folder}",
                "--config.execute.slots=1",
                "--config.study.budgets=(2000,4000)",
            ),
            *("--config.study.target_tokens=6000", "--config.verify.seeds=0", *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_address_without_a_number_of_processes_is_refused(tiny_file, tmp_path):
    process = launch(tiny_file, tmp_path, "--coordinator=127.0.0.1:1")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 2, output
    assert "--coordinator = 127.0.0.1:1: " in output and "give HOST:PORT with" in output


@pytest.mark.slow
def test_a_study_in_two_processes_is_that_of_one(tiny_file, tmp_path):
    """The same runs, and losses that differ by rounding; only the first process writes."""
    address = f"--coordinator=127.0.0.1:{free_port()}"
    two = [
        launch(tiny_file, tmp_path / "two", address, "--num_processes=2", f"--process_id={i}")
        for i in range(2)
    ]
    for process in [*two, launch(tiny_file, tmp_path / "one")]:
        output = process.communicate(timeout=900)[0]
        assert process.returncode == 0, output
    with (
        RunTable.open(tmp_path / "one" / "runs.jsonl", write=False) as one,
        RunTable.open(tmp_path / "two" / "runs.jsonl", write=False) as both,
    ):
        assert {run.key for run in both} == {run.key for run in one}
        for run in one:
            assert both.find(run.spec).loss == pytest.approx(dict(run.loss), abs=TOLERANCE)
    assert (tmp_path / "two" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_dies_the_other_ends(tiny_file, tmp_path, victim):
    address = f"--coordinator=127.0.0.1:{free_port()}"
    two = [
        launch(tiny_file, tmp_path, address, "--num_processes=2", f"--process_id={i}")
        for i in range(2)
    ]
    ledger = tmp_path / "runs.jsonl"
    while not (ledger.exists() and ledger.read_bytes()):
        assert all(process.poll() is None for process in two)
        time.sleep(0.1)
    two[victim].kill()
    two[victim].communicate()
    other = two[1 - victim]
    output = other.communicate(timeout=300)[0]
    assert other.returncode not in (0, None), output
    again = launch(tiny_file, tmp_path)
    assert again.communicate(timeout=900) and again.returncode == 0
