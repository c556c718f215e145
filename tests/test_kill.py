"""kill -9 at several moments, then the same command: nothing is trained twice, nothing differs."""

import collections
import glob
import json
import os
import signal
import subprocess
import sys
import time

from test_pipeline import without_times


def command(tiny_file, folder):
    return [
        *(sys.executable, "-m", "autoscale_jax.launch"),
        *(f"--config={tiny_file}", f"--workdir={folder}"),
    ]


def finished(folder):
    ledger = folder / "runs.jsonl"
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


def found(folder, pattern):
    """What a process that goes on creates and deletes: unlike `Path.glob`, `glob.glob` does not
    mind a folder that goes while it looks."""
    return glob.glob(f"{folder}/checkpoints/{pattern}")


def begun(folder):
    """Checkpoints of unfinished runs that are whole."""
    return [path for path in found(folder, "*/*") if os.path.basename(path).isdigit()]


def saving(folder):
    """Checkpoints that are being written, or that a killed process had not written to the end."""
    return found(folder, "*/*.orbax-checkpoint-tmp")


def kill_at(moment, tiny_file, folder):
    process = subprocess.Popen(
        command(tiny_file, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 300
    while not moment():
        assert process.poll() is None, process.stdout.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_study_ends_as_an_uninterrupted_one(tiny_file, tmp_path, whole_study):
    moments = [
        lambda: (tmp_path / "config.json").exists(),  # while the corpus is prepared
        lambda: begun(tmp_path),  # in the middle of the first runs
        lambda: finished(tmp_path) >= 7 and begun(tmp_path),
        lambda: finished(tmp_path) >= 19,  # during verification
    ]
    kept = []
    for moment in moments:
        kill_at(moment, tiny_file, tmp_path)
        kept.append(finished(tmp_path))
        while len(kept) == 3 and not saving(tmp_path):  # in the middle of a save
            kill_at(lambda: begun(tmp_path) and saving(tmp_path), tiny_file, tmp_path)
    assert kept == sorted(kept) and kept[-1] < 26
    last = subprocess.run(command(tiny_file, tmp_path), capture_output=True, text=True, timeout=600)
    assert last.returncode == 0, last.stderr
    keys = collections.Counter(
        json.loads(line)["run"]["key"] for line in (tmp_path / "runs.jsonl").open()
    )
    assert len(keys) == 26 and set(keys.values()) == {1}
    study = json.loads((tmp_path / "report.json").read_text())
    assert without_times(study) == without_times(whole_study[1])
