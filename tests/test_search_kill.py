"""kill -9 at several moments of a search, then the same command: the same runs, cost and answer."""

import collections
import json
import subprocess

import pytest
from conftest import TINY_STUDY
from test_kill import begun, command, finished, found, kill_at
from test_pipeline import without_times

SEARCH = """

def get_config():
    config = tiny()
    config.train.update({"schedule": "constant", "warmup_ratio": 0.0, "warmup_steps": 10})
    config.train.eval_every_tokens = 1024
    config.study.update({"method": "mfms_bo", "target_tokens": 10_240})
    config.search.update({"steps": (32, 64, 160), "budget": 4.0, "batch": 2})
    config.search.sizes = {"half": {"num_layers": 1, "d_model": 8, "num_heads": 2}}
    config.verify.update({"mixtures": ("uniform", "natural", "predicted"), "seeds": 1})
    return config
"""


@pytest.fixture
def search_file(data_settings, tmp_path):
    file = tmp_path / "search.py"
    tiny = TINY_STUDY.format(data=data_settings).replace("get_config", "tiny")
    file.write_text(tiny + SEARCH)
    return file


def kept(folder):
    """Ends of runs that longer ones may continue."""
    return found(folder, "trunks/*/[0-9]*")


def run(file, folder):
    done = subprocess.run(command(file, folder), capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_a_killed_search_ends_as_an_uninterrupted_one(search_file, tmp_path):
    folder = tmp_path / "cut"
    moments = [
        lambda: begun(folder),  # in the middle of the first runs
        lambda: kept(folder) and finished(folder) >= 2,
        lambda: finished(folder) >= 6 and begun(folder),
        lambda: finished(folder) >= 9,
    ]
    for moment in moments:
        kill_at(moment, search_file, folder)
    study = run(search_file, folder)
    keys = collections.Counter(run["key"] for run in study["runs"])
    assert set(keys.values()) == {1} and not list((folder / "checkpoints").iterdir())
    assert without_times(study) == without_times(run(search_file, tmp_path / "whole"))
