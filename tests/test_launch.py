"""The command line: exit codes, one line for each mistake, and the scripts that users start."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
QUICK = "--config=configs/quickstart.py"
# braces are doubled, since arguments are formatted
HALF_A_CURRICULUM = "{{'hard last': ({{'share': 0.5, 'weights': {{'code': 1.0}}}},)}}"


def launch(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "autoscale_jax.launch", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([QUICK, "--workdir={tmp}", "--config.study.budgts=(1,2)"], 'Did you mean "budgets"'),
        ([QUICK, "--workdir={tmp}", "--config.model.num_layers=four"], "--config.model.num_layers"),
        ([QUICK, "--workdir={tmp}", "--config.study.factor=0.5"], "config.study.factor = 0.5"),
        (
            [QUICK, "--workdir={tmp}", "--config.verify.extra=" + HALF_A_CURRICULUM],
            "config.verify.extra.hard last = ",
        ),
        ([QUICK, "--workdir={tmp}", "seed=1"], "argument 'seed=1': not a flag"),
        (["--config=configs/none.py", "--workdir={tmp}"], "configs/none.py"),
        (["--config=configs/gpt2_ddo.py:large", "--workdir={tmp}"], "no such variant"),
        ([QUICK], "--workdir"),
        ([QUICK, "--workdir=gs://bucket/x"], "--workdir = 'gs://bucket/x': must be a folder of"),
        (
            ["--config=configs/gpt2_ddo.py:local", "--workdir={tmp}"],
            "data.domains",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, arguments, message):
    done = launch(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert not (tmp_path / "runs.jsonl").exists() or not (tmp_path / "runs.jsonl").read_text()


def test_the_scripts_are_valid_shell():
    for script in sorted((ROOT / "launch").glob("*.sh")):
        subprocess.run(["bash", "-n", script], check=True)


def test_a_terminal_gets_a_live_display(tiny_file, whole_study, tmp_path):
    """The same study again, on a pseudo-terminal, from the finished ledger but for one run."""
    lines = (whole_study[0] / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_bytes(b"".join(lines[:17]))
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "autoscale_jax.launch", f"--config={tiny_file}"]
    process = subprocess.Popen(
        [*command, f"--workdir={tmp_path}", "--config.verify.seeds=0"],
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(child)
    shown = b""
    while True:
        try:
            block = os.read(parent, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    os.close(parent)
    assert process.wait(600) == 0, shown.decode()
    assert "study (runs)" in shown.decode() and "━" in shown.decode()
