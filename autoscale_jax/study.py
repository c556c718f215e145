"""What one study is: its domains, its method, the mixtures it compares, and what it may ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from autoscale_jax import config as configs
from autoscale_jax import verify
from autoscale_jax.data import GRID, Corpus, check_supply, most_tokens, supply
from autoscale_jax.fit import matched_pools
from autoscale_jax.fit.objective import eval_weights_of, objective_value
from autoscale_jax.methods import DDO, MFMSBO, AutoScale, Method
from autoscale_jax.methods.space import Size, Space
from autoscale_jax.models import flops_per_token, num_parameters
from autoscale_jax.runs import RunTable
from autoscale_jax.specs import VERIFICATION_SEED, BadInput, Proposal, Run, RunSpec, run_key
from autoscale_jax.train.recipe import Recipe, by_size


def make_recipes(config: ConfigDict, corpus: Corpus | None) -> dict[str, Recipe]:
    """What all runs of a model size share, by its name; the target's is the last.

    Without a corpus: as far as it is known before there is one (`data.most_tokens`).
    """
    objective = "mlm" if config.model.name == "bert" else "causal"
    if corpus is None:
        return by_size(config, most_tokens(config.data.to_dict(), objective))
    return by_size(config, corpus.vocab_size_of(objective))


class Study:
    """A config, a corpus and a ledger, and what follows from them.

    Runs of other data or of another recipe are set aside in the table, so that nothing sees them;
    `notes` tells of them and of what the ledger recovered.
    """

    def __init__(self, config: ConfigDict, corpus: Corpus, table: RunTable) -> None:
        self.config, self.corpus, self.table = config, corpus, table
        self.domains = tuple(domain.name for domain in corpus.domains)
        configs.check_domains(config, self.domains)
        length, s = config.model.seq_len, config.study
        self.unique = {name: n * length for name, n in supply(corpus, length).items()}
        all_tokens = sum(domain.train_tokens for domain in corpus.domains)
        self.natural = {d.name: d.train_tokens / all_tokens for d in corpus.domains}
        self.uniform = dict.fromkeys(self.domains, 1 / len(self.domains))
        extra = config.verify.to_dict()["extra"] or {}
        self.extra = {name: _mixture(given) for name, given in extra.items()}
        self.eval_weights = dict(s.eval_weights) if s.eval_weights else None
        self.recipes = make_recipes(config, corpus)
        self.target_size = list(self.recipes)[-1]
        self.notes = (*table.notes, *self._set_aside())
        self.space = self._space() if s.method == "mfms_bo" else None
        self.method: Method = self._search(self.space) if self.space else self._autoscale()

    def _set_aside(self) -> list[str]:
        """Leaves the runs in the table that a training now would repeat; a line on the others."""
        stale = self.table.set_aside(lambda run: run.key != self._key(run.spec))
        if not stale:
            return []
        changed_R = [self.corpus.changed_since(run) for run in stale]
        changed = ", ".join(sorted(set().union(*changed_R)))
        what = [f"other data (changed: {changed})"] if changed else []
        if not all(changed_R):
            known = changed or all(run.data for run in stale)
            what.append("another recipe or version" if known else "other data, recipe or version")
        return [
            f"{len(stale)} of {len(stale) + len(self.table)} runs are of {' or '.join(what)}: they "
            "stay in the file, count for nothing and are trained anew where the study needs them"
        ]

    def _key(self, spec: RunSpec) -> str:
        """The key of a training of `spec` now; "" where the study could not train it."""
        if spec.size not in self.recipes or not set(spec.tokens) <= set(self.domains):
            return ""
        fingerprint = self.corpus.fingerprint_of(spec.tokens)
        return run_key(spec, self.recipes[spec.size].identity(), fingerprint)

    def _autoscale(self) -> AutoScale:
        s = self.config.study
        return AutoScale(
            budgets=tuple(
                DDO(
                    self.domains,
                    budget,
                    s.factor,
                    s.base_seeds,
                    s.perturbed_seeds,
                    self._pool(budget),
                )
                for budget in s.budgets
            ),
            target_tokens=s.target_tokens,
            rule="keep" if s.method == "ddo" else s.method,
            objective=s.objective,
            eval_weights=self.eval_weights,
            natural=self.natural,
            unique=self.unique,
            max_epochs=s.max_epochs,
            floor=s.floor,
            samples=s.samples,
            seed=self.config.seed,
            extra_runs=s.extra_runs,
            flops_per_token=flops_per_token(self.recipes[self.target_size].model),
        )

    def _pool(self, budget: int) -> dict[str, int]:
        """Unique tokens that the runs of a budget draw on, where not on all: whole sequences."""
        s, length = self.config.study, self.config.model.seq_len
        if not s.match_repetition:
            return {}
        pools = matched_pools(supply(self.corpus, length), budget, s.target_tokens)
        return {name: n * length for name, n in pools.items()}

    def _search(self, space: Space) -> Method:
        search = self.config.search
        return MFMSBO(
            space,
            self.objective,
            self.budget,
            seed=self.config.seed,
            batch=search.batch,
            acquisition=search.acquisition,
            log=self.config.study.objective == "mean_perplexity",
            references={"uniform": self.uniform, "natural": self.natural},
        )

    @property
    def budget(self) -> float:
        """FLOPs that all runs of a search may cost; 0 without one."""
        if self.space is None:
            return 0.0
        target = len(self.space.sizes) - 1
        return self.config.search.budget * self.space.flops(target, self.space.target_steps)

    def _space(self) -> Space:
        """What a search may try: any mixture of the grid that no run repeats too often."""
        s, steps = self.config.study, tuple(self.config.search.steps)
        for name, recipe in self.recipes.items():
            uneven = [n for n in steps if n * recipe.batch_size % GRID]
            if uneven:
                apart = GRID // math.gcd(GRID, recipe.batch_size)
                raise BadInput(
                    f"config.search.steps = {steps}: {uneven[0]} steps of {recipe.batch_size} "
                    f"sequences (size {name!r}) are no multiple of {GRID} sequences, which runs "
                    f"that can be continued need: use multiples of {apart} steps"
                )
        longest = max(recipe.step_tokens for recipe in self.recipes.values()) * steps[-1]
        most = max(s.target_tokens, longest)
        cap_K = [s.max_epochs * self.unique[name] / most for name in self.domains]
        upper_K = [min(GRID, math.floor(GRID * cap)) / GRID for cap in cap_K]
        if sum(upper_K) < 1:
            raise BadInput(
                f"config.study.max_epochs = {s.max_epochs:g}: no mixture of {most:,} tokens "
                "repeats every domain so seldom; raise it, shorten the runs or add data"
            )
        space = Space(
            domains=self.domains,
            sizes=tuple(
                Size(
                    name,
                    num_parameters(recipe.model),
                    flops_per_token(recipe.model) * recipe.step_tokens,
                    recipe.step_tokens,
                )
                for name, recipe in self.recipes.items()
            ),
            steps=steps,
            target_steps=s.target_tokens // self.recipes[self.target_size].step_tokens,
            lower_K=(math.ceil(GRID * s.floor) / GRID,) * len(self.domains),
            upper_K=tuple(upper_K),
            grid=GRID,
        )
        target = space.flops(len(space.sizes) - 1, space.target_steps)
        cheapest = min(space.flops(n, steps[0]) for n in range(len(space.sizes))) / target
        if self.config.search.budget < cheapest:
            raise BadInput(
                f"config.search.budget = {self.config.search.budget:g}: the cheapest run costs "
                f"{cheapest:.3g} trainings of the target; give that or more"
            )
        return space

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
        fixed = verify.specs({"uniform": self.uniform} | self.extra, s.target_tokens, 1)
        for spec in [*self.method.ask(RunTable()), *fixed]:
            check_supply(self.corpus, spec.mixtures, length, s.max_epochs, spec.pool)

    def flops(self, spec: RunSpec) -> float:
        """FLOPs of a training from its first step."""
        return flops_per_token(self.recipes[spec.size].model) * spec.total

    def left(self, specs: Sequence[RunSpec]) -> float:
        """FLOPs that a search may still spend after `specs`; a design asks for all at once."""
        return max(0.0, self.budget - self.spent() - sum(map(self.flops, specs)))

    def spent(self) -> float:
        """FLOPs of the runs so far, verification's left out."""
        return sum(run.flops for run in self.proxies())

    def proxies(self) -> list[Run]:
        """The runs so far, verification's left out."""
        return [run for run in self.table if run.spec.seed < VERIFICATION_SEED]

    def propose(self) -> Proposal:
        return self.method.propose(self.table, self.config.study.target_tokens)

    def mixtures(self, proposal: Proposal) -> dict[str, verify.Mixture]:
        """The mixtures that verification trains, by name; the paper's only where there are any."""
        known: dict[str, verify.Mixture] = {"uniform": self.uniform, "natural": self.natural}
        known |= {"predicted": dict(proposal.weights)} | candidates(proposal)
        asked = {name: known[name] for name in self.config.verify.mixtures if name in known}
        return asked | self.extra

    def planned_verification(self) -> list[RunSpec]:
        """As many trainings as verification will need, for the ETA: not yet with their weights."""
        return self._trainings(
            dict.fromkeys([*self.config.verify.mixtures, *self.extra], self.uniform)
        )

    def verification(self, proposal: Proposal) -> list[RunSpec]:
        return self._trainings(self.mixtures(proposal))

    def _trainings(self, mixtures: Mapping[str, verify.Mixture]) -> list[RunSpec]:
        tokens, seeds = self.config.study.target_tokens, self.config.verify.seeds
        return verify.specs(mixtures, tokens, seeds, self.target_size)

    def ask_verification(self, proposal: Proposal, table: RunTable) -> list[RunSpec]:
        """The trainings still to do; mixtures that are the same share theirs."""
        missing = [spec for spec in self.verification(proposal) if table.find(spec) is None]
        return list(dict.fromkeys(missing))

    def verified(self, proposal: Proposal) -> dict[str, list[Run]]:
        """The trainings of verification that the ledger holds, by mixture."""
        return {
            name: [
                run
                for spec in self._trainings({name: weights})
                if (run := self.table.find(spec)) is not None
            ]
            for name, weights in self.mixtures(proposal).items()
        }


def _mixture(given: Mapping[str, float] | Sequence[Mapping[str, Any]]) -> verify.Mixture:
    """One of `verify.extra`."""
    if isinstance(given, Mapping):
        return dict(given)
    return tuple(verify.Stage(stage["share"], dict(stage["weights"])) for stage in given)


def candidates(proposal: Proposal) -> dict[str, dict[str, float]]:
    """The paper's answers beside the proposal, where its law was fitted."""
    found = proposal.details.get("candidates", {})
    return {name: found[name]["weights"] for name in ("keep", "autoscale") if name in found}
