"""The main job: corpus, proxy runs, fitted laws, extrapolation, verification, report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from autoscale_jax import config as configs
from autoscale_jax import report, summary, verify, workdir
from autoscale_jax.data import Corpus, check_supply, prepare, supply
from autoscale_jax.execute import Execute, TrainHere
from autoscale_jax.fit.objective import eval_weights_of, objective_value
from autoscale_jax.methods import DDO, AutoScale
from autoscale_jax.models.gpt2 import GPT2Config
from autoscale_jax.progress import StudyProgress
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Proposal, RunSpec
from autoscale_jax.train.recipe import Recipe


def run_study(config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Run or continue the study of `config` in `folder`; returns what its report.json holds.

    Raises `BadInput` before anything trains. A process that is killed at any moment and started
    again gives the same study: the ledger's runs are kept, an unfinished one continues.
    """
    configs.validate(config)
    workdir.claim(folder, config)
    with StudyProgress(folder) as progress, RunTable.open(folder / "runs.jsonl") as table:
        progress.say(f"study in {folder}: preparing the corpus")
        corpus = prepare(config.data.to_dict(), folder / "corpus")
        progress.say(corpus.summary())
        for note in table.notes:
            progress.say(f"ledger: {note}")
        study = Study(config, corpus, table)
        study.check()
        execute = TrainHere(
            make_recipe(config, corpus),
            corpus,
            folder / "checkpoints",
            config.execute.slots,
            config.train.checkpoint_seconds,
            progress.update,
        )
        study.measure(study.method.ask, execute, progress, study.planned_verification())
        progress.say("fitting laws, extrapolating")
        proposal = study.propose()
        report.write(study.result(proposal), folder)
        study.measure(functools.partial(study.ask_verification, proposal), execute, progress, ())
        result = study.result(proposal)
        report.write(result, folder)
        progress.say(f"report: {folder / 'report.html'}")
    return result


def make_recipe(config: ConfigDict, corpus: Corpus) -> Recipe:
    """What all runs of the study share."""
    train = config.train.to_dict()
    del train["checkpoint_seconds"]
    model = GPT2Config(vocab_size=corpus.vocab_size, **config.model.to_dict())
    return Recipe(model=model, seed=config.seed, **train)


class Study:
    """One study: its method, its ledger, and the mixtures that verification compares."""

    def __init__(self, config: ConfigDict, corpus: Corpus, table: RunTable) -> None:
        self.config, self.corpus, self.table = config, corpus, table
        self.domains = tuple(domain.name for domain in corpus.domains)
        configs.check_domains(config, self.domains)
        unique = {domain.name: domain.train_tokens for domain in corpus.domains}
        self.natural = {name: n / sum(unique.values()) for name, n in unique.items()}
        self.uniform = dict.fromkeys(self.domains, 1 / len(self.domains))
        s = config.study
        self.eval_weights = dict(s.eval_weights) if s.eval_weights else None
        self.method = AutoScale(
            budgets=tuple(
                DDO(self.domains, budget, s.factor, s.base_seeds, s.perturbed_seeds)
                for budget in s.budgets
            ),
            rule=s.method,
            objective=s.objective,
            eval_weights=self.eval_weights,
            natural=self.natural,
            floor=s.floor,
            samples=s.samples,
            seed=config.seed,
        )

    def objective(self, loss: Mapping[str, float]) -> float:
        """The number that the study minimises, from held-out losses by evaluation domain."""
        names = tuple(sorted(loss))
        weights = eval_weights_of(self.eval_weights, names)
        return float(
            objective_value(
                np.array([loss[name] for name in names]), self.config.study.objective, weights
            )
        )

    @property
    def caps(self) -> dict[str, float]:
        """Most weight a domain can have at the target, by its unique tokens and `max_epochs`."""
        length, s = self.config.model.seq_len, self.config.study
        return {
            name: min(1.0, n * length * s.max_epochs / s.target_tokens)
            for name, n in supply(self.corpus, length).items()
        }

    def check(self) -> None:
        """Refuse, before anything trains, what no training could do. Raises `BadInput`."""
        length, s = self.config.model.seq_len, self.config.study
        fixed = verify.specs({"uniform": self.uniform}, s.target_tokens, 1)
        for spec in [*(x for ddo in self.method.budgets for x in ddo.design()), *fixed]:
            check_supply(self.corpus, spec.tokens, length, s.max_epochs)

    def propose(self) -> Proposal:
        return self.method.propose(self.table, self.config.study.target_tokens, self.caps)

    def mixtures(self, proposal: Proposal) -> dict[str, dict[str, float]]:
        """The mixtures that verification trains, by name."""
        candidates = proposal.details["candidates"]
        known = {
            "uniform": self.uniform,
            "natural": self.natural,
            "keep": candidates["keep"]["weights"],
            "autoscale": candidates["autoscale"]["weights"],
            "predicted": dict(proposal.weights),
        }
        return {name: known[name] for name in self.config.verify.mixtures}

    def planned_verification(self) -> list[RunSpec]:
        """As many trainings as verification will need, for the ETA: not yet with their weights."""
        names = dict.fromkeys(self.config.verify.mixtures, self.uniform)
        return verify.specs(names, self.config.study.target_tokens, self.config.verify.seeds)

    def verification(self, proposal: Proposal) -> list[RunSpec]:
        s, seeds = self.config.study, self.config.verify.seeds
        return verify.specs(self.mixtures(proposal), s.target_tokens, seeds)

    def ask_verification(self, proposal: Proposal, table: RunTable) -> list[RunSpec]:
        return [spec for spec in self.verification(proposal) if table.find(spec) is None]

    def measure(
        self,
        ask: Callable[[RunTable], Sequence[RunSpec]],
        execute: Execute,
        progress: StudyProgress,
        later: Sequence[RunSpec],
    ) -> None:
        """Train what `ask` asks for until it asks for nothing; `later` is known to follow."""
        while specs := ask(self.table):
            later_tokens = sum(spec.total for spec in later)
            progress.plan(specs, len(self.table), len(later), later_tokens)
            for run in execute(specs):
                self.table.add(run)
                progress.finish(run, self.objective(run.loss) if run.status == "ok" else None)

    def result(self, proposal: Proposal) -> dict[str, Any]:
        """Everything there is to report so far."""
        s, target = self.config.study, self.config.study.target_tokens
        optima = [
            ddo.optimum(
                self.table, self.objective, floor=s.floor, samples=s.samples, seed=self.config.seed
            )
            for ddo in self.method.budgets
        ]
        verified = {
            name: [
                run
                for spec in verify.specs({name: weights}, target, self.config.verify.seeds)
                if (run := self.table.find(spec)) is not None
            ]
            for name, weights in self.mixtures(proposal).items()
        }
        gain, saved = summary.gains_and_savings(verified, self.objective, "predicted")
        ledger = list(self.table)
        trained = [run for run in ledger if run.realised]
        others = {"autoscale": proposal.details["candidates"]["autoscale"]["weights"]} | {
            name: w for name, w in self.mixtures(proposal).items() if name != "predicted"
        }
        largest = self.method.budgets[-1]
        return summary.finite(
            {
                "title": "Data mixture study",
                "config": workdir.flat(self.config.to_dict()),
                "objective": {
                    "kind": s.objective,
                    "weights": dict(
                        zip(
                            self.domains,
                            eval_weights_of(self.eval_weights, self.domains).tolist(),
                            strict=True,
                        )
                    ),
                },
                "domains": [
                    dataclasses.asdict(domain) | {"max_epochs": s.max_epochs}
                    for domain in self.corpus.domains
                ],
                "target_tokens": target,
                "budgets": list(s.budgets),
                "reference": "uniform",
                "recommended": proposal.method,
                "proposals": [
                    summary.proposal_row(proposal),
                    *(
                        summary.mixture_row(name, w, target, proposal.details["candidates"])
                        for name, w in others.items()
                    ),
                ],
                "trajectory": summary.trajectory(self.method.budgets, optima, proposal),
                "laws": [
                    row
                    for ddo, optimum in zip(self.method.budgets, optima, strict=True)
                    for row in summary.laws(ddo, optimum, ddo.runs(self.table), self.objective)
                ],
                "effects": summary.effects(largest, largest.runs(self.table)),
                "verification": [
                    summary.verification_row(run, name, self.objective)
                    for name, runs in verified.items()
                    for run in runs
                ],
                "gain": gain,
                "tokens_saved": saved,
                "cost": {
                    "runs": len(ledger),
                    "proxy_runs": len(ledger) - sum(map(len, verified.values())),
                    "verification_runs": sum(map(len, verified.values())),
                    "tokens": sum(sum(run.realised.values()) for run in trained),
                    "flops": sum(run.flops for run in ledger),
                    "seconds": sum(run.seconds for run in ledger),
                },
                "noise": summary.noise(self.method.budgets, self.table, self.objective),
                "next_run": None,
                "warnings": [*self.corpus.warnings, *self.table.notes, *self.diverged()],
                "runs": [summary.run_row(run, self.objective) for run in ledger],
            }
        )

    def diverged(self) -> list[str]:
        """A warning for each run without a result."""
        return [
            f"{run.spec.label or run.key}: {run.status} ({run.message})"
            for run in self.table
            if run.status != "ok"
        ]
