"""`python -m autoscale_jax.data.audit WORKDIR`: was every mixture really trained as asked?

Prints, for each run of the ledger, tokens asked and realised and epochs by domain; then the
documents that stand on both sides of the split. Exits with 1 on a mismatch, 2 on bad input.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from autoscale_jax.data import manifest, settings
from autoscale_jax.data.corpus import Corpus, folder_of_domain, open_corpus
from autoscale_jax.data.encode import ends_file
from autoscale_jax.data.quotas import realised
from autoscale_jax.data.store import Shard, TokenStore
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import BadInput, Run


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
    tokens, epochs = realised(corpus, run.spec.tokens, seq_len, run.spec.pool)
    for name, asked in run.spec.tokens.items():
        got = run.realised.get(name, 0)
        if abs(got - asked) >= seq_len:
            wrong.append(f"run {run.key}: {name!r} got {got} tokens of {asked} asked")
        elif got != tokens[name]:
            wrong.append(
                f"run {run.key}: {name!r} got {got} tokens, this corpus gives {tokens[name]}"
            )
        elif abs(run.epochs.get(name, 0.0) - epochs[name]) > 1e-9:
            wrong.append(
                f"run {run.key}: {name!r} says {run.epochs.get(name)} epochs, this corpus gives"
                f" {epochs[name]}"
            )
    return wrong


def _check_split(corpus_folder: Path) -> list[str]:
    """Documents, by the hash of their tokens, that are held out in a domain and trained on."""
    content = manifest.read(corpus_folder) or {}
    folders = {d["name"]: folder_of_domain(corpus_folder, d["folder"]) for d in content["domains"]}
    held_out: dict[bytes, str] = {}
    for name, folder in folders.items():
        for digest in _documents(folder, "eval", corpus_folder):
            held_out[digest] = name
    wrong = []
    for name, folder in folders.items():
        documents, both = 0, 0
        for digest in _documents(folder, "train", corpus_folder):
            documents += 1
            if digest in held_out:
                both += 1
                if both == 1:
                    first = held_out[digest]
        n = sum(1 for owner in held_out.values() if owner == name)
        print(f"{name:<16}{documents:>12,}{n:>12,}{both:>15,}")
        if both:
            wrong.append(
                f"domain {name!r}: {both} training documents are held out, the first in {first!r}"
            )
    return wrong


def _documents(folder: str, side: str, corpus_folder: Path) -> Iterator[bytes]:
    """Hashes of the documents of one side of a domain, shard by shard."""
    content = manifest.read(folder) or {}
    dtype = np.dtype(content["dtype"])
    for k, shard in enumerate(Shard(**s) for s in content[side]["shards"]):
        store = TokenStore(folder, [shard], dtype, corpus_folder.parent / "flat")
        with (epath.Path(folder) / ends_file(shard)).open("rb") as file:
            ends = np.load(file)
        (tokens,) = store.parts()
        start = int(k == 0)  # the EOS that opens the stream belongs to no document
        for end in ends.tolist():
            yield hashlib.blake2b(tokens[start:end].tobytes(), digest_size=16).digest()
            start = end


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
