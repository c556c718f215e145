"""Domain weights from runs: laws, optima, extrapolation, with intervals.

Needs only jax, jaxopt, scipy and numpy; computes in float64 on the CPU, whatever the process's
precision and device. Token counts may be in any unit, the same one throughout.

Inside jit and vmap (in `with jax.enable_x64(True):`) go `fit_power_law`, `optimal_mixture`,
`extrapolate`, `extrapolate_scales`, `objective_value`, `effective_tokens` and the `predict` of
every fitted law. The others choose by their data (designs, laws) and refuse to be traced.

Eq. 2 on one-domain changes of a base run, x and y in units of the base run:
>>> from autoscale_jax import fit
>>> y_KxP = [[1.10, 1, 0.93], [1.05, 1, 0.96]]
>>> law = fit.fit_power_law([1 / 3, 1, 3], y_KxP, offset="zero")
>>> law.exponent.round(3).tolist(), law.ok.tolist()
([0.078, 0.041], [True, True])

One budget's optimum (DDO, Algorithm 1) with S resampled optima under 0.5% noise:
>>> tokens_RxK = [[50, 50], [150, 50], [50, 150], [50 / 3, 50], [50, 50 / 3]]
>>> value_R = [30, 27.9, 28.8, 33, 31.5]
>>> best = fit.ddo_optimum(tokens_RxK, value_R, offset="zero", noise=0.005, samples=200)
>>> best.weights_K.round(2).tolist(), best.weights_SxK.shape
([0.65, 0.35], (200, 2))

The optimum of any fitted law, here Eq. 2's, with floors:
>>> mixture = fit.optimal_mixture(best.law, 100.0, lower=0.05)
>>> mixture.weights_K.round(2).tolist(), bool(mixture.kkt < 1e-8)
([0.65, 0.35], True)

Optimal tokens at any total from the optima at two scales (Theorem 1, Remark 1):
>>> fit.extrapolate([100, 100], [300, 200], 1300).tokens_K.round(6).tolist()
[900.0, 400.0]
>>> fit.autoscale_ladder([100, 100], [300, 200], 3000).tolist()
[2700.0, 800.0]

All of it at once, from a `RunTable` or `RunArrays` to a `Proposal` (takes seconds to compile):

    fit.recommend(table, 10e9, objective="mean_perplexity", lower=0.02, natural={...})

with method="auto" (laws ranked at the larger scale and averaged), "autoscale" (the paper's rule),
"keep" (its optimum at the largest budget) or a law's name; `str(fit.select(table))` shows the
ranking of the laws, `fit.next_run(table, 10e9)` what to train next, and
`python -m autoscale_jax.fit RUNS.csv --tokens=10e9` does it on the command line.
"""

from autoscale_jax.fit.ddo import DDOResult, ddo_optimum
from autoscale_jax.fit.extrapolation import (
    Extrapolation,
    autoscale_ladder,
    extrapolate,
)
from autoscale_jax.fit.gp import GaussianProcess, fit_gp
from autoscale_jax.fit.gp_samples import ProcessSamples, draw
from autoscale_jax.fit.nested import fit_nested
from autoscale_jax.fit.next_run import NextRun, next_run
from autoscale_jax.fit.objective import Objective, objective_value
from autoscale_jax.fit.paper_rule import PaperRule, paper_rule
from autoscale_jax.fit.power import PowerLaw, PowerLawFit, fit_power_law
from autoscale_jax.fit.recommend import recommend
from autoscale_jax.fit.repetition import effective_tokens, epoch_caps, matched_pools
from autoscale_jax.fit.scales import extrapolate_scales
from autoscale_jax.fit.selection import LAWS, Selection, select
from autoscale_jax.fit.simplex import Mixture, optimal_mixture
from autoscale_jax.fit.trajectory import ScalePoint, trajectory

__all__ = [
    "LAWS",
    "DDOResult",
    "Extrapolation",
    "GaussianProcess",
    "Mixture",
    "NextRun",
    "Objective",
    "PaperRule",
    "PowerLaw",
    "PowerLawFit",
    "ProcessSamples",
    "ScalePoint",
    "Selection",
    "autoscale_ladder",
    "ddo_optimum",
    "draw",
    "effective_tokens",
    "epoch_caps",
    "extrapolate",
    "extrapolate_scales",
    "fit_gp",
    "fit_nested",
    "fit_power_law",
    "matched_pools",
    "next_run",
    "objective_value",
    "optimal_mixture",
    "paper_rule",
    "recommend",
    "select",
    "trajectory",
]
