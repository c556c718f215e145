"""`python -m autoscale_jax.data.audit WORKDIR`: was every mixture really trained as asked?

Prints, for each run of the ledger, tokens asked and realised and epochs by domain; then the
documents that stand on both sides of the split. Runs of other data than the study's corpus is made
of now are named and not checked. Exits with 1 on a mismatch, 2 on bad input.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoscale_jax.data import manifest, settings
from autoscale_jax.data.corpus import Corpus, open_corpus
from autoscale_jax.data.leaks import leaks
from autoscale_jax.data.mix import order_of
from autoscale_jax.data.order import Order
from autoscale_jax.data.quotas import supply
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run

_AT_ONCE = 1_000_000  # positions of an order


def audit(workdir: Path) -> list[str]:
    """Prints the account of a study and returns its mismatches, a line each."""
    config = _config(workdir)
    corpus_folder = _corpus_folder(workdir, config)
    corpus = open_corpus(corpus_folder)
    print(corpus.summary())
    wrong: list[str] = []
    table = RunTable.open(workdir / "runs.jsonl", write=False)
    seq_len = config["model.seq_len"]
    print(f"\n{'run':<18}{'domain':<16}{'asked':>16}{'realised':>16}{'epochs':>9}")
    for run in table:
        if run.status == "failed":
            continue
        if changed := corpus.changed_since(run):
            print(f"{run.key:<18}not checked: is of other data (changed: {', '.join(changed)})")
            continue
        _print_run(run)
        wrong += _check_run(corpus, run, seq_len)
    print(f"\n{'domain':<16}{'documents':>12}{'held out':>12}{'on both sides':>15}")
    wrong += _check_split(corpus_folder)
    return wrong


def _config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    if not path.is_file():
        raise BadInput(f"{workdir}: holds no study (no config.json); give the folder of one")
    return json.loads(path.read_text())


def _corpus_folder(workdir: Path, config: dict[str, Any]) -> Path:
    """The corpus with the study's settings, prepared last."""
    given = {k.removeprefix("data."): v for k, v in config.items() if k.startswith("data.")}
    wanted = settings.check(given)
    found = []
    for path in (workdir / "corpus").glob(f"corpus-*/{manifest.FILE}"):
        content = manifest.read(path.parent)
        if content is not None and content["settings"] == wanted:
            found.append((path.stat().st_mtime_ns, path.parent))
    if not found:
        raise BadInput(f"{workdir / 'corpus'}: no corpus of this study; run it or prepare it first")
    return max(found)[1]


def _print_run(run: Run) -> None:
    for name, asked in run.spec.tokens.items():
        print(
            f"{run.key:<18}{name:<16}{asked:>16,}{run.realised.get(name, 0):>16,}"
            f"{run.epochs.get(name, 0.0):>9.3f}"
        )


def _check_run(corpus: Corpus, run: Run, seq_len: int) -> list[str]:
    wrong = []
    order = order_of(corpus, run.spec.mixtures, seq_len, run.spec.seed, pool=run.spec.pool)
    counted = [_count(order, *ends) for ends in itertools.pairwise(order.starts)]
    available = supply(corpus, seq_len, run.spec.pool)
    for name, asked in run.spec.tokens.items():
        n = sum(sequences[name] for sequences in counted)
        got, tokens = run.realised.get(name, 0), n * seq_len
        epochs = n / available[name] if n else 0.0
        # all of it by the end of each stage
        given = list(itertools.accumulate(sequences[name] * seq_len for sequences in counted))
        due = list(itertools.accumulate(mixture[name] for mixture in run.spec.mixtures))
        off = [i for i, n in enumerate(due) if abs(given[i] - n) >= seq_len]
        if abs(got - asked) >= seq_len:
            wrong.append(f"{name!r} got {got} tokens of {asked} asked")
        elif got != tokens:
            wrong.append(f"{name!r} got {got} tokens, this corpus gives {tokens}")
        elif off:
            got, asked = given[off[0]], due[off[0]]
            wrong.append(f"{name!r} got {got} tokens of {asked} asked up to stage {off[0] + 1}")
        elif abs(run.epochs.get(name, 0.0) - epochs) > 1e-9:
            wrong.append(f"{name!r} says {run.epochs.get(name)} epochs, this corpus gives {epochs}")
    return [f"run {run.key}: {what}" for what in wrong]


def _count(order: Order, start: int, stop: int) -> dict[str, int]:
    """Sequences by domain, counted one by one over the positions of an order.

    The run's own order may differ in the study's seed and in how its domains take turns, which
    do not change what is counted.
    """
    sequences_K = np.zeros(len(order.names), np.int64)
    for first in range(start, stop, _AT_ONCE):
        domain_N, _ = order.at(np.arange(first, min(first + _AT_ONCE, stop)))
        sequences_K += np.bincount(domain_N, minlength=len(order.names))
    return dict(zip(order.names, sequences_K.tolist(), strict=True))


def _check_split(corpus_folder: Path) -> list[str]:
    """Documents, by the hash of their tokens, that are held out in a domain and trained on."""
    content = manifest.read(corpus_folder) or {}
    folders = {
        d["name"]: manifest.domain_folder(corpus_folder, d["folder"]) for d in content["domains"]
    }
    wrong = []
    for found in leaks(folders):
        print(f"{found.name:<16}{found.train:>12,}{found.held_out:>12,}{found.both:>15,}")
        if found.both:
            wrong.append(
                f"domain {found.name!r}: {found.both} training documents are held out, the first"
                f" in {found.first!r}"
            )
    return wrong


def main(argv: Sequence[str]) -> int:
    """The exit code."""
    if len(argv) != 2:
        print("usage: python -m autoscale_jax.data.audit WORKDIR", file=sys.stderr)
        return 2
    try:
        wrong = audit(Path(argv[1]))
    except BadInput as error:
        print(f"autoscale_jax: {error}", file=sys.stderr)
        return 2
    for line in wrong:
        print(f"MISMATCH {line}")
    print("mismatches: none" if not wrong else f"mismatches: {len(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
