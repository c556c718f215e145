"""The table of runs: what every method asks into and every law is fitted to.

Colab-light: numpy and the standard library only.
"""

from __future__ import annotations

import dataclasses
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from autoscale_jax.runs import olmix, tidy
from autoscale_jax.runs.csvfile import Tokens
from autoscale_jax.runs.ledger import Ledger, plain
from autoscale_jax.specs import BadInput, Run, RunArrays, RunSpec

PathLike = str | os.PathLike[str]


class RunTable:
    """Runs in the order they were first added, one a key; optionally backed by a ledger on disk.

    A key whose run failed or diverged may be added again: the new record takes the row's place. A
    key whose run is "ok" may not. Adding is safe from several threads.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.notes: tuple[str, ...] = ()
        self._rows: dict[str, Run] = {}
        self._by_spec: dict[RunSpec, Run] = {}
        self._aside: dict[str, Run] = {}
        self._lock = threading.Lock()
        self._ledger: Ledger | None = None
        for run in runs:
            self.add(run)

    @classmethod
    def open(cls, path: PathLike, *, write: bool = True) -> RunTable:
        """The table of a ledger (WORKDIR/runs.jsonl), created when missing.

        With `write` no other process can open it so until this one closes it or ends. Without, the
        table is what the ledger holds now, and adding is refused. `notes` tells what was recovered.
        Raises `BadInput` for a missing folder, a ledger in use, or a damaged line (named).
        """
        table = cls()
        ledger = Ledger(Path(path), write)
        for number, run in ledger.records:
            try:
                table._put(run)
            except BadInput as error:
                ledger.close()
                raise BadInput(
                    f"{path} line {number}: {error}: delete one of the two lines"
                ) from error
        table.notes = tuple(ledger.notes)
        table._ledger = ledger
        return table

    def close(self) -> None:
        """Lets another process open the ledger. The table stays readable; adding is refused."""
        if self._ledger is not None:
            self._ledger.close()

    def __enter__(self) -> RunTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, run: Run) -> None:
        """Adds a run: when this returns, its record is on disk.

        Raises `BadInput` when its key is there with status "ok", and `OSError` (disk full) with
        ledger and table as they were. An "ok" run with a NaN loss is recorded as diverged.
        """
        run = plain(run)
        with self._lock:
            self._refuse_again(run)
            if self._ledger is not None:
                self._ledger.append(run)
            self._put(run)

    def set_aside(self, where: Callable[[Run], bool]) -> list[Run]:
        """Takes the runs that `where` holds for out of the table, and returns them.

        They stay in the ledger, and their keys may not be added again.
        """
        with self._lock:
            for run in [run for run in self._rows.values() if where(run)]:
                self._aside[run.key] = self._rows.pop(run.key)
            left = {run.spec: run for run in self._rows.values()}
            last = {s: run for s, run in self._by_spec.items() if run.key not in self._aside}
            self._by_spec = left | last
            return list(self._aside.values())

    def find(self, spec: RunSpec) -> Run | None:
        """The run of `spec` that was added last, whatever its status."""
        return self._by_spec.get(spec)

    def __iter__(self) -> Iterator[Run]:
        with self._lock:
            rows = list(self._rows.values())
        return iter(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def ok(self) -> list[Run]:
        """The runs that ended with finite losses."""
        return [run for run in self if run.status == "ok"]

    def arrays(self, where: Callable[[Run], bool] | None = None) -> RunArrays:
        """The ok runs (those that `where` holds for) as arrays; names sorted, runs in table order.

        Curricula are left out: laws are of mixtures, and what a run learns depends on their order.
        A domain that a run does not name counts as 0 tokens. `unique_RxK` holds the runs' pools,
        infinite where a run has none of a domain; None where no run has any. No runs give arrays of
        shape (0, 0). Raises `BadInput` when a run lacks the loss of an evaluation domain that
        another one has.
        """
        runs = [run for run in self._of_one_mixture() if where is None or where(run)]
        domains = tuple(sorted({name for run in runs for name in run.spec.tokens}))
        evals = tuple(sorted({name for run in runs for name in run.loss}))
        for run in runs:
            missing = [name for name in evals if name not in run.loss]
            if missing:
                raise BadInput(
                    f"run {run.spec.label or run.key!r} has no loss of {', '.join(missing)}, which "
                    "other runs have: leave it or them out with where="
                )
        tokens = [[run.spec.tokens.get(name, 0) for name in domains] for run in runs]
        loss = [[run.loss[name] for name in evals] for run in runs]
        unique = [[run.spec.pool.get(name, math.inf) for name in domains] for run in runs]
        return RunArrays(
            domains=domains,
            eval_domains=evals,
            names_R=tuple(run.spec.label or run.key for run in runs),
            tokens_RxK=np.array(tokens, np.int64).reshape(len(runs), len(domains)),
            loss_RxE=np.array(loss, np.float64).reshape(len(runs), len(evals)),
            seed_R=np.array([run.spec.seed for run in runs], np.int64),
            unique_RxK=np.array(unique) if any(run.spec.pool for run in runs) else None,
        )

    @classmethod
    def from_csv(cls, path: PathLike, *, tokens: Tokens = None) -> RunTable:
        """The table of a tidy CSV; `tidy.read_tidy` tells its columns and errors.

        tokens: training tokens of a run, where no column tells: one number, or a function of the
            row (a dict of strings by column).
        """
        runs, notes = tidy.read_tidy(Path(path), tokens)
        table = cls(runs)
        table.notes = notes
        return table

    @classmethod
    def from_csvs(cls, paths: Iterable[PathLike], *, tokens: Tokens = None) -> RunTable:
        """One table of several tidy CSVs of the same domains, e.g. one for each budget.

        With more than one file, keys begin with the file's name. `notes` are all files' notes, and
        name domains that have tokens in one file only, which may be misspelt.
        Raises `BadInput` for no file, for one that is given twice, and as `from_csv`.
        """
        files = [Path(path) for path in paths]
        if not files:
            raise BadInput("no CSV files: give one at least")
        for i, path in enumerate(files):
            if path.resolve() in {other.resolve() for other in files[:i]}:
                raise BadInput(f"{path}: given twice: give each file once")
        if len(files) == 1:
            return cls.from_csv(files[0], tokens=tokens)
        named_alike = len({path.name for path in files}) < len(files)
        table = cls()
        notes: list[str] = []
        where: dict[str, set[str]] = {}  # the files in which a domain has tokens
        for path in files:
            part, name = cls.from_csv(path, tokens=tokens), str(path) if named_alike else path.name
            notes += part.notes
            for run in part:
                table.add(dataclasses.replace(run, key=f"{name}/{run.key}"))
                for domain in (d for d, n in run.spec.tokens.items() if n):
                    where.setdefault(domain, set()).add(name)
        for domain, names in sorted(where.items()):
            if len(names) == 1:
                notes.append(f"domain {domain!r} has tokens in {min(names)} only: a misspelt name?")
        table.notes = tuple(notes)
        return table

    def to_csv(self, path: PathLike) -> None:
        """Writes a tidy CSV that `from_csv` reads back: everything but curves and `data`."""
        tidy.write_tidy(list(self), Path(path))

    @classmethod
    def from_olmix(cls, ratios: PathLike, metrics: PathLike, *, tokens: Tokens = None) -> RunTable:
        """The table of Olmix's two files; `olmix.read` tells their columns and errors."""
        return cls(olmix.read(Path(ratios), Path(metrics), tokens))

    def to_olmix(self, folder: PathLike) -> None:
        """Writes the ok runs as `ratios.csv` and `metrics.csv`, which `from_olmix` reads back;
        curricula, which these have no place for, are left out."""
        olmix.write(self._of_one_mixture(), self.arrays(), Path(folder))

    def _of_one_mixture(self) -> list[Run]:
        return [run for run in self.ok() if not run.spec.stages]

    def _refuse_again(self, run: Run) -> None:
        there = self._rows.get(run.key) or self._aside.get(run.key)
        if there is not None and there.status == "ok":
            raise BadInput(f"run {run.key!r} is in the table already and ok: it is not run again")

    def _put(self, run: Run) -> None:
        self._refuse_again(run)
        self._rows[run.key] = run
        self._by_spec[run.spec] = run
