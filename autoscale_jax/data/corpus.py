"""The prepared corpus of a study: token stores by domain, and what identifies them."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from autoscale_jax.data import manifest, mlm, settings, tokenize
from autoscale_jax.data.build import build
from autoscale_jax.data.interleave import ORDER_VERSION
from autoscale_jax.data.plan import folder_of, plan
from autoscale_jax.data.store import Shard, Tokens, TokenStore, check_shards
from autoscale_jax.specs import BadInput, Domain, Run
from autoscale_jax.workdir import local

SIDES = ("train", "eval")
_LEFT_OUT = ("duplicates", "empty", "short")  # documents, in the summary


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Token streams of each domain, training and held out: EOS document EOS document ... EOS.

    Every token but the first of a stream is predicted once, so a domain has one token less than its
    stream. `eval_limit` caps the held-out tokens that one evaluation reads from each
    domain (0 = all). `fingerprints` are of the tokens: (training, held out) by domain. `records`
    counts by domain what was read and what of it was left out, where a manifest says so.
    """

    domains: tuple[Domain, ...]
    train_tokens: Mapping[str, Tokens]
    eval_tokens: Mapping[str, Tokens]
    eval_limit: int
    tokenizer: tokenize.Tokenizer
    fingerprints: Mapping[str, tuple[str, str]]
    warnings: tuple[str, ...]
    records: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def vocab_size_of(self, objective: str) -> int:
        """Ids that a model under `objective` sees: "mlm" may add one, to hide tokens with."""
        return mlm.vocab_size(self.tokenizer) if objective == "mlm" else self.vocab_size

    @property
    def fingerprint(self) -> str:
        """Of all of it."""
        return self.fingerprint_of(dict.fromkeys(self.fingerprints, 1))

    def fingerprint_of(self, tokens: Mapping[str, int]) -> str:
        """What a run on `tokens` depends on, the order of its sequences included; equal ones mean
        equal numbers from training.

        All domains evaluate a run, so all held-out tokens count, but only the training tokens of
        the domains that it trains on: data added to another one leaves the run valid.
        """
        key = [
            {name: self.fingerprints[name][0] for name, n in tokens.items() if n},
            {name: held_out for name, (_, held_out) in self.fingerprints.items()},
            self.tokenizer.sha256,
            self.eval_limit,
            ORDER_VERSION,
        ]
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def data_of(self, tokens: Mapping[str, int]) -> dict[str, str]:
        """What a run on `tokens` takes from each domain, as "TRAINING:HELD-OUT" fingerprints.

        The training part is empty for a domain with 0 tokens. Where two differ for a domain, so
        does `fingerprint_of`: this one tells which domain it was.
        """
        return {
            name: f"{train if tokens.get(name) else ''}:{held_out}"
            for name, (train, held_out) in self.fingerprints.items()
        }

    def changed_since(self, run: Run) -> list[str]:
        """The domains whose text is not what the run had; none where the run does not tell."""
        now = self.data_of(run.spec.tokens) if run.data else {}
        names = {*now, *run.data}
        return sorted(name for name in names if now.get(name) != run.data.get(name))

    def summary(self) -> str:
        """A table of the domains, one line each, then the warnings."""
        head = f"{'domain':<14}{'documents':>10}{'held out':>10}{'tokens':>13}{'held out':>11}"
        head += "".join(f"{name:>12}" for name in _LEFT_OUT)
        rows = [
            f"{d.name:<14}{d.train_documents:>10,}{d.eval_documents:>10,}"
            f"{d.train_tokens:>13,}{d.eval_tokens:>11,}{self._left_out(d.name)}"
            for d in self.domains
        ]
        return "\n".join([head, *rows, *(f"warning: {w}" for w in self.warnings)])

    def _left_out(self, name: str) -> str:
        found = self.records.get(name, {})
        return "".join(f"{found[k]:>12,}" if k in found else f"{'-':>12}" for k in _LEFT_OUT)


def prepare(
    data_config: Mapping[str, Any],
    cache_dir: str | Path,
    workers: int = 0,
    say: Callable[[str], Any] | None = None,
) -> Corpus:
    """The corpus that `data_config` (see `settings.DEFAULTS`) describes, from `cache_dir` if there.

    What is there already is used, by domain: a changed file or setting prepares anew what depends
    on it. `workers` processes share the work (0 = one for each core when there is much to do);
    `say` gets lines of progress. Raises `BadInput` for unusable settings, files or domains.
    """
    cache = local("cache_dir", cache_dir)
    planned = plan(settings.check(data_config))
    folder = folder_of(planned, cache)
    try:
        if manifest.read(folder) is None:
            build(planned, folder, workers, say)
        return open_corpus(folder)
    except OSError as e:
        raise BadInput(
            f"cache_dir = {str(folder.parent)!r}: saving the corpus failed ({e});"
            " make room or give another"
        ) from e


def open_corpus(folder: Path) -> Corpus:
    """The corpus in a folder that `prepare` made. Raises `BadInput` for a damaged one."""
    content = manifest.read(folder)
    if content is None or content.get("kind") != "corpus":
        raise BadInput(f"{folder}: holds no prepared corpus")
    tokenizer = tokenize.from_json((folder / manifest.TOKENIZER).read_text("utf-8"))
    opened = [
        _Opened(d["name"], manifest.domain_folder(folder, d["folder"])) for d in content["domains"]
    ]
    for domain in opened:
        if domain.content["tokenizer_sha256"] != tokenizer.sha256:
            raise BadInput(
                f"{domain.folder}: domain {domain.name!r} was tokenised with another tokeniser than"
                f" {folder}; delete the latter to prepare it anew"
            )
    flat = folder.parent / "flat"
    return Corpus(
        domains=tuple(domain.domain() for domain in opened),
        train_tokens={domain.name: domain.tokens("train", flat) for domain in opened},
        eval_tokens={domain.name: domain.tokens("eval", flat) for domain in opened},
        eval_limit=content["eval_limit"],
        tokenizer=tokenizer,
        fingerprints={domain.name: domain.fingerprints() for domain in opened},
        warnings=(
            *content["warnings"],
            *(warning for domain in opened for warning in domain.warnings()),
        ),
        records={domain.name: domain.content.get("records", {}) for domain in opened},
    )


class _Opened:
    """A prepared domain, under the name that the study gives it."""

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.folder = name, folder
        content = manifest.read(folder)
        if content is None:
            raise BadInput(
                f"{epath.Path(folder) / manifest.FILE}: domain {name!r} is gone; delete the"
                " corpus-* folders beside it to prepare it anew"
            )
        self.content = content
        self._shards = {
            side: [Shard(**shard) for shard in content[side]["shards"]] for side in SIDES
        }
        check_shards(folder, itertools.chain(*self._shards.values()))

    def domain(self) -> Domain:
        train, held_out = self.content["train"], self.content["eval"]
        return Domain(
            self.name,
            train["tokens"],
            held_out["tokens"],
            train["documents"],
            held_out["documents"],
        )

    def fingerprints(self) -> tuple[str, str]:
        return self.content["train"]["fingerprint"], self.content["eval"]["fingerprint"]

    def warnings(self) -> list[str]:
        """Those of its preparation, under its present name."""
        before = f"domain {self.content['name']!r}: "
        return [
            f"domain {self.name!r}: {text.removeprefix(before)}"
            for text in self.content["warnings"]
        ]

    def tokens(self, side: str, flat: Path) -> TokenStore:
        dtype = np.dtype(self.content["dtype"])
        return TokenStore(self.folder, self._shards[side], dtype, flat)
