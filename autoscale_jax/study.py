"""What one study is: its domains, its method, the mixtures it compares, and what it may ask."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from autoscale_jax import config as configs
from autoscale_jax import verify
from autoscale_jax.data import Corpus, check_supply, supply
from autoscale_jax.fit.objective import eval_weights_of, objective_value
from autoscale_jax.methods import DDO, AutoScale
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import Proposal, Run, RunSpec


class Study:
    """A config, a corpus and a ledger, and what follows from them."""

    def __init__(self, config: ConfigDict, corpus: Corpus, table: RunTable) -> None:
        self.config, self.corpus, self.table = config, corpus, table
        self.domains = tuple(domain.name for domain in corpus.domains)
        configs.check_domains(config, self.domains)
        length, s = config.model.seq_len, config.study
        unique = {name: n * length for name, n in supply(corpus, length).items()}
        all_tokens = sum(domain.train_tokens for domain in corpus.domains)
        self.natural = {d.name: d.train_tokens / all_tokens for d in corpus.domains}
        self.uniform = dict.fromkeys(self.domains, 1 / len(self.domains))
        extra = dict(config.verify.extra or {})
        self.extra = {name: dict(weights) for name, weights in extra.items()}
        self.eval_weights = dict(s.eval_weights) if s.eval_weights else None
        self.method = AutoScale(
            budgets=tuple(
                DDO(self.domains, budget, s.factor, s.base_seeds, s.perturbed_seeds)
                for budget in s.budgets
            ),
            target_tokens=s.target_tokens,
            rule="keep" if s.method == "ddo" else s.method,
            objective=s.objective,
            eval_weights=self.eval_weights,
            natural=self.natural,
            unique=unique,
            max_epochs=s.max_epochs,
            floor=s.floor,
            samples=s.samples,
            seed=config.seed,
            extra_runs=s.extra_runs,
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

    def check(self) -> None:
        """Refuse, before anything trains, what no training could do. Raises `BadInput`."""
        length, s = self.config.model.seq_len, self.config.study
        fixed = verify.specs({"uniform": self.uniform, **self.extra}, s.target_tokens, 1)
        for spec in [*(x for ddo in self.method.budgets for x in ddo.design()), *fixed]:
            check_supply(self.corpus, spec.tokens, length, s.max_epochs)

    def propose(self) -> Proposal:
        return self.method.propose(self.table, self.config.study.target_tokens)

    def mixtures(self, proposal: Proposal) -> dict[str, dict[str, float]]:
        """The mixtures that verification trains, by name; the paper's only where there are any."""
        known = {"uniform": self.uniform, "natural": self.natural}
        known |= {"predicted": dict(proposal.weights)} | candidates(proposal)
        asked = {name: known[name] for name in self.config.verify.mixtures if name in known}
        return asked | self.extra

    def planned_verification(self) -> list[RunSpec]:
        """As many trainings as verification will need, for the ETA: not yet with their weights."""
        names = dict.fromkeys([*self.config.verify.mixtures, *self.extra], self.uniform)
        return verify.specs(names, self.config.study.target_tokens, self.config.verify.seeds)

    def verification(self, proposal: Proposal) -> list[RunSpec]:
        s, seeds = self.config.study, self.config.verify.seeds
        return verify.specs(self.mixtures(proposal), s.target_tokens, seeds)

    def ask_verification(self, proposal: Proposal, table: RunTable) -> list[RunSpec]:
        """The trainings still to do; mixtures that are the same share theirs."""
        missing = [spec for spec in self.verification(proposal) if table.find(spec) is None]
        return list(dict.fromkeys(missing))

    def verified(self, proposal: Proposal) -> dict[str, list[Run]]:
        """The trainings of verification that the ledger holds, by mixture."""
        target, seeds = self.config.study.target_tokens, self.config.verify.seeds
        return {
            name: [
                run
                for spec in verify.specs({name: weights}, target, seeds)
                if (run := self.table.find(spec)) is not None
            ]
            for name, weights in self.mixtures(proposal).items()
        }


def candidates(proposal: Proposal) -> dict[str, dict[str, float]]:
    """The paper's answers beside the proposal, where its law could be fitted."""
    found = proposal.details["candidates"]
    return {name: found[name]["weights"] for name in ("keep", "autoscale") if name in found}
