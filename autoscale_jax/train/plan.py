"""`python -m autoscale_jax.train.plan --config=FILE --topology=WHERE [--config.FIELD=VALUE ...]`.

Compiles the training program of a config ahead of time for devices that need not be there, without
allocating it: does it fit, what does it do, how fast can it be at best? Topologies: cpu:8 (so many
simulated devices), gpu:a100-40gb:8, gpu:h200:1 (cards), v5e:4x4, v5p:4x4x4 (TPUs, with libtpu).
`--search` compiles other meshes, rematerialisations and microbatches too, and takes the fastest
that fits. Where the one asked for does not fit, others are compiled until one does: the advice.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence

import jax
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict, config_flags

from autoscale_jax import config as configs
from autoscale_jax.data import embedded, most_tokens
from autoscale_jax.models import flops_per_token, num_parameters
from autoscale_jax.specs import BadInput
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.plan_program import Plan, make_plan
from autoscale_jax.train.plan_search import nearest, remedies, search
from autoscale_jax.train.plan_targets import FORMS, Target, find_target
from autoscale_jax.train.recipe import Recipe, from_config

GIB = 2**30


def study_tokens(c: ConfigDict, domains: int) -> tuple[int, int]:
    """Tokens that a study trains on: of all proxies, and of verification at the target.

    Those of a search's proxies are the target's model's, at the same FLOPs.
    """
    s = c.study
    mixtures = len(c.verify.mixtures) + len(c.verify.extra or {})
    verification = s.target_tokens * mixtures * c.verify.seeds
    if s.method == "mfms_bo":
        return round(c.search.budget * s.target_tokens), verification
    runs = s.base_seeds + s.perturbed_seeds * (2 * domains + s.factor + 1 / s.factor - 2)
    return round(sum(s.budgets) * runs), verification


def vocabulary(c: ConfigDict) -> int:
    """Tokens of the study's tokeniser; where it is not there yet, the model's vocabulary."""
    if c.model.vocab_size:
        return c.model.vocab_size
    return most_tokens(c.data.to_dict(), "mlm" if c.model.name == "bert" else "causal")


def describe(plan: Plan, tokens: int, study: tuple[int, int]) -> Iterator[str]:
    """What a plan says, a line at a time."""
    recipe, model, mesh, chip = plan.recipe, plan.recipe.model, plan.mesh, plan.target.chip
    size = " x ".join(f"{name} {n}" for name, n in mesh.shape.items())
    yield (
        f"{size}; {recipe.batch_size} x {model.seq_len} tokens a step in {recipe.accumulation} "
        f"microbatches; remat {model.remat}, {model.dtype}"
    )
    if chip:
        yield f"  {plan.verdict}: needs {_gib(plan.needs)} of {_gib(chip.memory)} GiB on a device"
    if plan.memory is None or plan.cost is None:
        yield "  the compiler found no room"
    else:
        parts = ", ".join(f"{name} {_gib(n)}" for name, n in plan.memory.items())
        yield f"  memory    {parts} GiB"
        if plan.target.simulated and chip:
            yield "            (temporaries: an estimate, the CPU compiler's, no flash attention)"
    parts = ", ".join(f"{name} {_gib(n)}" for name, n in plan.least.items())
    yield f"  at least  {_gib(sum(plan.least.values()))} GiB: {parts}"
    if plan.cost is not None:
        yield from _work(plan)
        if chip:
            yield from _speed(plan, tokens, study)


def _work(plan: Plan) -> Iterator[str]:
    assert plan.cost is not None
    needed = flops_per_token(plan.recipe.model) * plan.step_tokens / plan.mesh.size
    yield (
        f"  products  {plan.cost.flops / 1e12:.4g} TFLOP a step and device, "
        f"{plan.cost.flops / needed:.3f} x the model's {needed / 1e12:.4g}"
        + (f"; {plan.cost.kernel_flops / 1e12:.3g} in kernels" if plan.cost.kernel_flops else "")
    )
    of = " of the CPU's program" if plan.target.simulated else ""
    yield f"  traffic   {plan.cost.bytes / 1e9:.4g} GB of memory{of}"
    for collective in plan.cost.collectives:
        yield (
            f"  exchange  {collective.kind} x {collective.count:.0f}: "
            f"{collective.bytes / 1e9:.4g} GB taken in"
        )


def _speed(plan: Plan, tokens: int, study: tuple[int, int]) -> Iterator[str]:
    chip, recipe = plan.target.chip, plan.recipe
    assert chip is not None
    rate = plan.step_tokens / plan.seconds
    used = flops_per_token(recipe.model) * rate / plan.mesh.size / chip.flops
    yield (
        f"  at best   {plan.seconds:.4g} s a step, {rate:,.0f} tokens/s, MFU {used:.0%} "
        f"({chip.flops / 1e12:g} TFLOP/s, {chip.bandwidth / 1e9:g} GB/s, "
        f"link {chip.link / 1e9:g} GB/s: {chip.source})"
    )

    def cost(n: int) -> str:
        hours = n / rate / 3600
        return f"{hours:.3g} h, {hours * plan.mesh.size:.3g} device hours"

    yield f"            {tokens / 1e9:.3g}B tokens: {cost(tokens)}"
    proxies, verification = study
    yield f"            the study's proxies, {proxies / 1e9:.3g}B tokens: {cost(proxies)}"
    if verification:
        yield (
            f"            its verification, {verification / 1e9:.3g}B tokens: {cost(verification)}"
        )


def advise(plan: Plan, tokens: int, study: tuple[int, int]) -> Iterator[str]:
    """What to change where a plan does not fit: each program tried, then the advice."""
    tried = 0
    for other in remedies(plan):
        yield from describe(other, tokens, study)
        tried += 1
        if other.verdict == "fits":
            assert other.target.chip is not None
            yield (
                f"advice: {as_flags(other.recipe, other.mesh)} fits, as compiled: needs "
                f"{_gib(other.needs)} of {_gib(other.target.chip.memory)} GiB; --search looks for "
                "the fastest"
            )
            return
    yield (
        "advice: no mesh, rematerialisation or microbatch helps"
        + (f" ({tried} compiled, to the one that needs least)" if tried else "")
        + ": use more devices, or larger ones"
    )


def as_flags(recipe: Recipe, mesh: Mesh) -> str:
    """What asks for a mesh, rematerialisation and microbatches on the command line."""
    return (
        f"--config.model.remat={recipe.model.remat} "
        f"--config.train.accumulation={recipe.accumulation} "
        f"--config.mesh.fsdp={mesh.shape['fsdp']} --config.mesh.tensor={mesh.shape['tensor']}"
    )


def _gib(n: float) -> str:
    return f"{n / GIB:.3g}"


def main(argv: Sequence[str]) -> None:
    """Print the plan that the flags ask for. Raises `BadInput`."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "Study config.", flag_values=values, sys_argv=list(argv)
    )
    flags.DEFINE_string("topology", None, FORMS, flag_values=values)
    flags.DEFINE_float("tokens", 3e9, "Of a training whose cost is told.", flag_values=values)
    flags.DEFINE_bool("search", False, "Compile alternatives too.", flag_values=values)
    flags.mark_flags_as_required(["config", "topology"], flag_values=values)
    c = configs.from_flags(values, argv)
    configs.validate(c)
    target = find_target(values.topology)
    recipe = from_config(c, vocabulary(c))
    if len(target.devices) % c.execute.slots:
        raise BadInput(
            f"config.execute.slots = {c.execute.slots}: must divide the {len(target.devices)} "
            f"devices of {values.topology}"
        )
    own = target.devices[: len(target.devices) // c.execute.slots]
    study = study_tokens(c, len(c.data.domains or embedded.DEFAULT))
    model, chip = recipe.model, target.chip
    print(
        f"{values.topology}: {len(own)} x {chip.name if chip else 'CPU'} a run; {c.model.name}, "
        f"{num_parameters(model) / 1e6:.4g}M parameters, {model.num_layers} x {model.d_model}, "
        f"vocabulary {model.vocab_size:,} in {model.padded_vocab_size:,} rows",
        flush=True,
    )
    plan = plan_of(c, recipe, own, target)
    plans = []
    others = search(recipe, own, target, plan.count) if values.search and chip else ()
    for one in itertools.chain([plan], others):
        print(*describe(one, int(values.tokens), study), sep="\n", flush=True)
        plans.append(one)
    fitting = [one for one in plans if one.verdict == "fits"]
    if len(plans) > 1 and fitting:
        best = min(fitting, key=lambda one: one.seconds)
        print("fastest that fits:", next(describe(best, 0, study)))
    elif plan.verdict not in ("", "fits"):
        for line in advise(plan, int(values.tokens), study):
            print(line, flush=True)


def plan_of(c: ConfigDict, recipe: Recipe, devices: Sequence[jax.Device], target: Target) -> Plan:
    """The plan of a config's own mesh. Raises `BadInput` that names the nearest that divides."""
    try:
        mesh = make_mesh(devices, **c.mesh.to_dict())
        return make_plan(recipe, mesh, target, max(1, c.execute.population))
    except BadInput as error:
        other, mesh = nearest(recipe, devices, target.chip, **c.mesh.to_dict())
        raise BadInput(
            f"{error}; what divides is --config.train.batch_size={other.batch_size} "
            f"{as_flags(other, mesh)}"
        ) from error


def run() -> None:
    """The console entry: bad input is one line and exit code 2."""
    try:
        main(sys.argv)
    except BadInput as error:
        print(f"plan: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
