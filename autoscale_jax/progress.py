"""What a person watching sees: runs done, the current runs, rate and ETA; TensorBoard scalars."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import tensorboardX
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from autoscale_jax.specs import Run, RunSpec
from autoscale_jax.train.loop import Progress as RunProgress

PLAIN_SECONDS = 10.0  # between lines of runs under way where the output is no terminal


def duration(seconds: float) -> str:
    """1:05 or 2:03:04."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


class StudyProgress:
    """Shows a study's runs on the console; a live display on a terminal, else plain lines.

    The ETA counts all FLOPs still to do, verification included, at this process's own rate.
    """

    def __init__(self, workdir: Path, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._tensorboard = workdir / "tensorboard"
        self._lock = threading.Lock()
        self._total_runs = self._done_runs = 0
        self._flops: Mapping[RunSpec, float] = {}  # of the runs to do now
        self._pending: dict[RunSpec, float] = {}  # of those, still to do
        self._later = self._trained = self._last_line = 0.0
        self._began: float | None = None  # set by the first report: compilation is no rate
        self._bars: dict[RunSpec, TaskID] = {}
        self._writers: dict[RunSpec, tensorboardX.SummaryWriter] = {}
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._study = self._live.add_task("study (runs)", total=None, note="")

    def __enter__(self) -> StudyProgress:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        for writer in self._writers.values():
            writer.close()

    def say(self, text: str) -> None:
        """One line, above the live display where there is one."""
        self.console.print(text, markup=False)

    def plan(
        self, flops: Mapping[RunSpec, float], done: int, later_runs: int, later_flops: float
    ) -> None:
        """The runs to do now with their FLOPs, how many the ledger holds, and what is to follow."""
        with self._lock:
            self._flops, self._pending = flops, dict(flops)
            self._done_runs, self._later = done, later_flops
            self._total_runs = done + len(flops) + later_runs
            self._live.update(self._study, completed=done, total=self._total_runs)
            self.say(f"{done} runs in the ledger, {len(flops)} to train now, {later_runs} later")

    def update(self, spec: RunSpec, at: RunProgress) -> None:
        """A run has moved on; called from the slots' threads."""
        with self._lock:
            before, a_token = self._pending[spec], self._flops[spec] / spec.total
            self._pending[spec] = max(0.0, spec.total - at.tokens) * a_token
            # a run that continues from a checkpoint jumps: only what was trained now counts
            step = at.tokens_per_second * at.seconds * a_token
            if self._began is None:
                self._began = time.monotonic()
            else:
                self._trained += min(step, max(0.0, before - self._pending[spec]))
            self._scalars(spec, at)
            rate = f"{at.tokens_per_second / 1e3:,.0f}k tokens/s"
            if spec not in self._bars:
                self._bars[spec] = self._live.add_task(spec.label, total=spec.total, note="")
            note = f"loss {at.train_loss:.3f}  {rate}"
            self._live.update(self._bars[spec], completed=at.tokens, note=note)
            self._live.update(self._study, note=self._eta())
            now = time.monotonic()
            if not self.console.is_terminal and now - self._last_line >= PLAIN_SECONDS:
                self._last_line = now
                self.say(
                    f"[{self._done_runs}/{self._total_runs} runs] {spec.label}: "
                    f"{at.tokens:,}/{spec.total:,} tokens, {note}, {self._eta()}"
                )

    def finish(self, run: Run, objective: float | None) -> None:
        """A run is in the ledger."""
        with self._lock:
            self._done_runs += 1
            self._pending.pop(run.spec, None)
            if bar := self._bars.pop(run.spec, None):
                self._live.remove_task(bar)
            if writer := self._writers.pop(run.spec, None):
                writer.close()
            self._live.update(self._study, completed=self._done_runs, note=self._eta())
            result = run.message if objective is None else f"objective {objective:.3f}"
            self.say(
                f"[{self._done_runs}/{self._total_runs} runs] {run.spec.label or run.key}: "
                f"{run.status}, {result}, {sum(run.realised.values()):,} tokens "
                f"in {duration(run.seconds)}, {self._eta()}"
            )

    def _eta(self) -> str:
        if self._began is None or not self._trained:
            return "ETA ?"
        elapsed = time.monotonic() - self._began
        left = sum(self._pending.values()) + self._later
        return f"ETA {duration(left * elapsed / self._trained)}"

    def _scalars(self, spec: RunSpec, at: RunProgress) -> None:
        if spec not in self._writers:
            name = "".join(ch if ch.isalnum() else "_" for ch in spec.label) or "run"
            self._writers[spec] = tensorboardX.SummaryWriter(str(self._tensorboard / name))
        writer = self._writers[spec]
        writer.add_scalar("train/loss", at.train_loss, at.tokens)
        writer.add_scalar("train/tokens_per_second", at.tokens_per_second, at.tokens)
        for name, loss in (at.loss or {}).items():
            writer.add_scalar(f"held_out/{name}", loss, at.tokens)
