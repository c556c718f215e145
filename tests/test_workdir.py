"""A study's folder: created, recorded, and never shared with another config."""

import os

import pytest

from autoscale_jax.config import default_config
from autoscale_jax.specs import BadInput
from autoscale_jax.workdir import claim, flat


def test_the_same_config_may_come_back(tmp_path):
    claim(tmp_path / "new" / "study", default_config())
    again = default_config()
    again.execute.slots = 7  # where it runs, not what it is
    again.mesh.fsdp, again.train.accumulation = 8, 2  # so is what gives it the memory it needs
    again.verify.seeds = 5  # trains more at the end, and nothing else
    claim(tmp_path / "new" / "study", again)


def test_another_config_is_refused_with_the_difference(tmp_path):
    claim(tmp_path, default_config())
    other = default_config()
    other.study.budgets = (10, 20)
    other.seed = 5
    with pytest.raises(BadInput) as error:
        claim(tmp_path, other)
    assert "config.seed was 0 and is 5" in str(error.value)
    assert "config.study.budgets was [80000, 320000] and is [10, 20]" in str(error.value)
    assert "give another --workdir" in str(error.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"--workdir = .*file/study: cannot be written"):
        claim(tmp_path / "file" / "study", default_config())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="cannot be written"):
        claim(tmp_path, default_config())


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BadInput, match=r"config.json: not JSON"):
        claim(tmp_path, default_config())


def test_flat_keeps_named_mappings_whole():
    nested = {"seed": 1, "data": {"domains": {"a": "x*"}, "held_out": 0.1}}
    assert flat(nested) == {"seed": 1, "data.domains": {"a": "x*"}, "data.held_out": 0.1}
