"""What is printed: counts, rate and ETA; and scalars for TensorBoard."""

import io

from rich.console import Console

from autoscale_jax.progress import StudyProgress, duration
from autoscale_jax.specs import Run, RunSpec
from autoscale_jax.train.loop import Progress

SPEC = RunSpec({"a": 600, "b": 400}, label="1,000 base seed 0")

OTHER = RunSpec({"a": 600, "b": 400}, seed=1, label="1,000 base seed 1")


def finished(spec, status="ok", message=""):
    return Run(
        spec, "k", status, {"a": 1.0}, dict(spec.tokens), {"a": 1.0, "b": 1.0}, message=message
    )


def study(tmp_path, terminal=False):
    out = io.StringIO()
    return out, StudyProgress(tmp_path, Console(file=out, force_terminal=terminal, width=150))


def test_durations():
    assert [duration(s) for s in (5, 65, 7384)] == ["0:05", "1:05", "2:03:04"]


def test_plain_lines_without_a_terminal(tmp_path):
    out, progress = study(tmp_path)
    with progress:
        progress.plan({SPEC: 1e9}, done=2, later_runs=1, later_flops=1e9)
        progress.update(SPEC, Progress(500, 4.5, 2000.0, 0.25))
        progress.finish(finished(SPEC), 33.3)
    lines = out.getvalue().splitlines()
    assert lines[0] == "2 runs in the ledger, 1 to train now, 1 later"
    assert lines[1].startswith("[2/4 runs] 1,000 base seed 0: 500/1,000 tokens, loss 4.500")
    assert "2k tokens/s" in lines[1] and "ETA" in lines[1]
    assert lines[2].startswith("[3/4 runs] 1,000 base seed 0: ok, objective 33.300, 1,000 tokens")
    assert "\x1b" not in out.getvalue()


def test_a_run_without_a_result_says_why(tmp_path):
    out, progress = study(tmp_path)
    with progress:
        progress.plan({SPEC: 1e9}, done=0, later_runs=0, later_flops=0.0)
        progress.finish(finished(SPEC, "diverged", "training loss was not finite"), None)
    assert "diverged, training loss was not finite" in out.getvalue()


def test_a_live_display_on_a_terminal(tmp_path):
    out, progress = study(tmp_path, terminal=True)
    with progress:
        progress.plan({SPEC: 1e9}, done=0, later_runs=0, later_flops=0.0)
        progress.update(SPEC, Progress(500, 4.5, 2000.0, 0.25))
        progress._live.refresh()
        progress.finish(finished(SPEC), 33.3)
    assert "study (runs)" in out.getvalue() and "1,000 base seed 0" in out.getvalue()


def test_the_eta_counts_what_is_still_to_come(tmp_path):
    _, progress = study(tmp_path)
    with progress:
        progress.plan({SPEC: 1e9}, done=0, later_runs=1, later_flops=1.5e9)
        progress.update(SPEC, Progress(250, 4.5, 10.0, 25.0))  # with compilation: no rate
        assert progress._eta() == "ETA ?"
        progress._began -= 10  # ten seconds for the next 250 tokens
        progress.update(SPEC, Progress(500, 4.5, 2000.0, 0.125))
        assert progress._eta() == "ETA 1:20"  # half of this run left, and one and a half of later


def test_a_continued_run_does_not_count_what_was_trained_before(tmp_path):
    _, progress = study(tmp_path)
    with progress:
        progress.plan({SPEC: 1e9, OTHER: 1e9}, done=0, later_runs=0, later_flops=0.0)
        progress.update(OTHER, Progress(1, 4.5, 10.0, 0.1))
        progress.update(SPEC, Progress(900, 4.5, 2000.0, 0.05))  # 800 were in the checkpoint
        assert progress._trained == 1e8


def test_scalars_are_written_for_tensorboard(tmp_path):
    _, progress = study(tmp_path)
    with progress:
        progress.plan({SPEC: 1e9}, done=0, later_runs=0, later_flops=0.0)
        progress.update(SPEC, Progress(500, 4.5, 2000.0, 0.25, {"a": 3.0}))
        progress.finish(finished(SPEC), 33.3)
    (events,) = (tmp_path / "tensorboard" / "1_000_base_seed_0").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"held_out/a" in content
