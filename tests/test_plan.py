"""The planner: programs compiled without their devices, and what it reads from their text."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from extras import needs

from autoscale_jax.config import default_config
from autoscale_jax.methods import DDO
from autoscale_jax.specs import BadInput
from autoscale_jax.train import hlo, plan, plan_cost, plan_targets

ROOT = Path(__file__).parent.parent
CONFIG = """
from autoscale_jax.config import default_config

def get_config():
    c = default_config()
    c.model.update(dict(vocab_size=512, num_layers=6, d_model=64, num_heads=4, seq_len=32))
    c.model.remat = "full"
    c.train.update(dict(batch_size=16, accumulation=2))
    return c
"""
# The program of a config, its state's and batch's exact share of a device, and XLA's own count.
MEASURE = """
import json, math, sys
import jax
from autoscale_jax.train import hlo, plan_bounds, plan_cost, plan_program
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.plan_targets import find_target
from autoscale_jax.train.recipe import from_config
from autoscale_jax.train.step import lower_train_chunk
from autoscale_jax.models import flops_per_token
sys.path.insert(0, sys.argv[1])
import tiny
target = find_target("cpu:8")
recipe = from_config(tiny.get_config(), 512)
mesh = make_mesh(target.devices, fsdp=2, tensor=2)
compiled = lower_train_chunk(recipe, mesh).compile()
once = type("Lowered", (), {"compile": lambda self: compiled})()  # it takes seconds
plan_program.lower_train_chunk = lambda *_: once
made = plan_program.make_plan(recipe, mesh, target)
program = hlo.parse(compiled.as_text())
shards = jax.tree.map(
    lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize,
    compiled.args_info[0], compiled.input_shardings[0],
)
hlo.Program.trips = lambda *_: 1
print(json.dumps({
    "arguments": made.memory["arguments"],
    "exact": sum(jax.tree.leaves(shards)),
    "flops": made.cost.flops,
    "least": plan_bounds.least_flops(recipe) / 8,
    "unseen": 4 * 2 * 6 * 32 * 64 * recipe.step_tokens / 8,
    "model": flops_per_token(recipe.model) * recipe.step_tokens / 8,
    "once": plan_cost.cost(program).flops,
    "bytes_once": plan_cost.cost(program).bytes,
    "xla": compiled.cost_analysis()["flops"],
    "xla_bytes": compiled.cost_analysis()["bytes accessed"],
    "collectives": {c.kind: [c.count, c.bytes] for c in made.cost.collectives},
}))
"""


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("plan") / "tiny.py"
    file.write_text(CONFIG)
    return file


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        timeout=900,
    )


def test_the_compiled_program_is_measured(tiny_file):
    """Six scanned layers, two microbatches, eight devices (data 2, fsdp 2, tensor 2)."""
    done = python("-c", MEASURE, str(tiny_file.parent))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["arguments"] == found["exact"]
    # the model's products, and the blocks' forward pass again but for the MLP's last product
    # (4 passes); so short a text's attention is one block, its unseen half included
    assert found["flops"] == pytest.approx(found["least"] + found["unseen"], rel=0.001)
    assert 1.2 < found["flops"] / found["model"] < 4 / 3
    # every loop's body once, as XLA counts: it adds elementwise work, which we leave out
    assert found["once"] < found["flops"] / 5
    assert found["xla"] * 0.8 < found["once"] < found["xla"]
    assert found["bytes_once"] == pytest.approx(found["xla_bytes"], rel=0.1)
    assert {"all-gather", "all-reduce"} <= set(found["collectives"])
    count, received = found["collectives"]["all-gather"]
    assert count >= 2 * 6 * 2  # both passes of each layer, each microbatch
    assert received > 0


def test_a_plan_of_a_card_says_what_is_estimated(tiny_file):
    done = python(
        *("-m", "autoscale_jax.train.plan", f"--config={tiny_file}", "--topology=gpu:h200:1"),
        "--tokens=1e6",
    )
    assert done.returncode == 0, done.stderr
    assert "1 x H200" in done.stdout
    assert "(temporaries: an estimate, the CPU compiler's" in done.stdout
    assert "fits: needs" in done.stdout
    assert "0.001B tokens" in done.stdout and "device hours" in done.stdout


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("cpu:zero", "use cpu:N"),
        ("gpu:a100:8", "card 'a100'; use one of a100-40gb"),
        ("cuda:h100", "use cpu:N, gpu:CARD:N, cuda:CARD:N"),
        ("v9x:4x4", "use cpu:N"),
        ("v5e:four", "use cpu:N"),
    ],
)
def test_topologies_that_are_none(topology, message):
    with pytest.raises(BadInput, match=message):
        plan_targets.find_target(topology)


def test_a_studys_tokens_are_those_of_its_runs():
    c = default_config()
    c.verify.extra = {"llama": dict.fromkeys("abcde", 0.2)}
    ddos = [DDO(tuple("abcde"), n, c.study.factor, c.study.base_seeds) for n in c.study.budgets]
    designed = sum(spec.total for ddo in ddos for spec in ddo.design())
    proxies, verification = plan.study_tokens(c, 5)
    assert proxies == pytest.approx(designed, rel=1e-4)
    assert verification == 5 * 2 * c.study.target_tokens


LOOP = """HloModule m
%inner (p: (u32[], f32[8,8])) -> (u32[], f32[8,8]) {
  %p = (u32[], f32[8,8]{1,0}) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %x = f32[8,8]{1,0} get-tuple-element(%p), index=1
  %two = u32[] constant(2)
  %next = u32[] add(%i, %two)
  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %z = f32[8,8]{1,0} all-reduce(%y), channel_id=1, replica_groups=[2,4]<=[8], to_apply=%sum
  ROOT %t = (u32[], f32[8,8]{1,0}) tuple(%next, %z)
}
%until (q: (u32[], f32[8,8])) -> pred[] {
  %q = (u32[], f32[8,8]{1,0}) parameter(0)
  %j = u32[] get-tuple-element(%q), index=0
  %bound = u32[] constant(16)
  ROOT %lt = pred[] compare(%j, %bound), direction=LT
}
ENTRY %main (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8]{1,0} parameter(0)
  %zero = u32[] constant(6)
  %start = (u32[], f32[8,8]{1,0}) tuple(%zero, %a)
  %loop = (u32[], f32[8,8]{1,0}) while(%start), condition=%until, body=%inner
  ROOT %out = f32[8,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_trips_of_a_loop_are_counted_by_running_its_counter():
    """From 6 by 2 to 16: five trips, each with a product of 2 x 8^3 and a sum over 4 devices."""
    found = plan_cost.cost(hlo.parse(LOOP))
    assert found.flops == 5 * 2 * 8**3
    assert found.collectives == (plan_cost.Collective("all-reduce", 5, 5 * 2 * 256 * 3 / 4),)


def test_a_loop_over_steps_of_unknown_number_counts_once():
    text = LOOP.replace("%zero = u32[] constant(6)", "%zero = u32[] parameter(1)")
    assert plan_cost.cost(hlo.parse(text)).flops == 2 * 8**3


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ("replica_groups={{0,1,2},{3,4,5}}, dimensions={0}", 3),
        ("replica_groups=[2,4]<=[8], dimensions={0}", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}", 4),
    ],
)
def test_groups_of_a_collective(attributes, size):
    assert plan_cost.group_size(attributes) == size


TPU_PRODUCTS = """ENTRY %main (a: bf16[5,8,6,4]) -> bf16[5,8,3,7] {
  %a = bf16[5,8,6,4]{3,2,1,0} parameter(0)
  %w = bf16[4,3,6,7]{3,2,1,0} parameter(1)
  %mask = s8[1,2,2]{2,1,0} parameter(2)
  %q = bf16[5,6,8,4]{3,2,1,0} parameter(3)
  %splash_mha_dq.1 = f32[8]{0} custom-call(%mask, %q), custom_call_target="tpu_custom_call"
  ROOT %c = bf16[5,8,3,7]{3,2,1,0} convolution(%a, %w), window={WINDOW}, dim_labels=LABELS
}
"""


def test_products_that_the_tpus_compiler_writes_as_convolutions():
    """[5, 8, 6, 4] by [4, 3, 6, 7] summed over 6 and 4, the 3 made by a padded window; and the
    three products of L x L x d of an attention kernel."""
    window, labels = "size=1x3x6 pad=0_0x2_2x0_0 rhs_reversal=0x1x0", "0b2f_i12o->0b1f"
    text = TPU_PRODUCTS.replace("WINDOW", window).replace("LABELS", labels)
    # as the compiler does, with unit dimensions where one side has none
    text = text.replace("%a = bf16[5,8,6,4]", "%a = bf16[8,5,1,6,4]")
    text = text.replace("%w = bf16[4,3,6,7]", "%w = bf16[1,4,3,6,7]")
    text = text.replace("%c = bf16[5,8,3,7]", "%c = bf16[8,5,3,1,7]")
    text = text.replace(labels, "0b12f_0i12o->0b12f")
    found = plan_cost.cost(hlo.parse(text))
    assert found.kernel_flops == 2 * 3 * (5 * 6) * 8**2 * 4
    assert found.flops - found.kernel_flops == 2 * (5 * 8) * (6 * 4) * (3 * 7)


def test_products_inside_cudnns_attention():
    """Two forward and five backward, of L x L x d, for rows x heads."""
    text = """ENTRY %main (q: bf16[2,8,3,4]) -> (bf16[2,8,3,4], bf16[2,8,3,4]) {
  %q = bf16[2,8,3,4]{3,2,1,0} parameter(0)
  %f = bf16[2,8,3,4]{3,2,1,0} custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax"
  %b = bf16[2,8,3,4]{3,2,1,0} custom-call(%q, %f), custom_call_target="__cudnn$fmhaSoftmaxBackward"
  ROOT %t = (bf16[2,8,3,4]{3,2,1,0}, bf16[2,8,3,4]{3,2,1,0}) tuple(%f, %b)
}
"""
    found = plan_cost.cost(hlo.parse(text))
    assert found.flops == found.kernel_flops == 2 * (2 + 5) * (2 * 3) * 8**2 * 4


GPT2_DDO = ("-m", "autoscale_jax.train.plan", "--config=configs/gpt2_ddo.py")
needs_libtpu = needs("libtpu", "tpu")


def flags_of(fsdp, tensor, **train):
    """Of a mesh, one microbatch and what else `train` says."""
    train = {"accumulation": 1, **train}
    mesh = [f"--config.mesh.fsdp={fsdp}", f"--config.mesh.tensor={tensor}"]
    return mesh + [f"--config.train.{name}={value}" for name, value in train.items()]


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("topology", "flags", "products"),
    [
        ("v5e:4x4", [*flags_of(16, 1), "--config.model.remat=full"], (1.2, 1.4)),
        ("v5e:4x4", flags_of(16, 1), (1.0, 1.1)),
        ("v5e:16x16", flags_of(16, 4, batch_size=64), (1.0, 1.1)),
        ("v5p:4x4x4", flags_of(16, 4), (1.0, 1.1)),
    ],
)
def test_gpt2_large_fits_tpus(topology, flags, products):
    """The TPU's own compiler, splash attention included; a minute or two of a core each. Products
    over the model's: with full rematerialisation about 4/3."""
    done = python(*GPT2_DDO, *flags, f"--topology={topology}", JAX_PLATFORMS="cpu")
    fits_as_compiled(done, products)


def fits_as_compiled(done, products):
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""
    assert "  fits: needs" in done.stdout and "estimate" not in done.stdout
    line = next(line for line in done.stdout.splitlines() if "products" in line)
    assert "in kernels" in line
    assert products[0] < float(line.split(", ")[1].split()[0]) < products[1]
    assert math.isfinite(float(done.stdout.split("at best")[1].split()[0]))


@pytest.mark.slow
@needs("jax_cuda13_plugin", "cuda")
@pytest.mark.parametrize(
    ("cards", "flags", "products"),
    [
        ("h200:1", [], (1.0, 1.1)),
        ("h200:1", ["--config.model.remat=none"], (1.0, 1.1)),
        ("h200:1", ["--config.model.remat=full"], (1.2, 1.4)),
        ("a100-80gb:1", [], (1.0, 1.1)),
        ("a100-40gb:8", [], (1.0, 1.1)),
        ("a100-40gb:8", flags_of(8, 1), (1.0, 1.1)),
        ("h100:8", flags_of(4, 2), (1.0, 1.1)),
    ],
)
def test_gpt2_large_fits_cards_by_cudas_compiler(cards, flags, products):
    """cuDNN's attention included, without a card; half a minute of a core each."""
    fits_as_compiled(python(*GPT2_DDO, *flags, f"--topology=cuda:{cards}"), products)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2_ddo", "gpt2_autoscale", "bert_ddo", "bert_autoscale"])
def test_the_cost_in_a_configs_docstring_is_the_planners(name):
    """Card hours of proxies and verification together, and hours on all cards, as rounded there."""
    text = " ".join((ROOT / "configs" / f"{name}.py").read_text().split())
    form = r"at least (\S+) card hours on (\d+) A100 of (\d+) GB by the planner [^,]*, (\S+) h\b"
    card_hours, cards, size, hours = re.search(form, text).groups()
    done = python(
        *("-m", "autoscale_jax.train.plan", f"--config=configs/{name}.py"),
        f"--topology=gpu:a100-{size}gb:{cards}",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(r"(?:proxies|verification), \S+ tokens: (\S+) h, (\S+) device", done.stdout)
    for printed, column in zip((hours, card_hours), zip(*found, strict=True), strict=True):
        assert len(column) == 2
        expected, digits = sum(map(float, column)), len(printed.partition(".")[2])
        assert abs(float(printed) - expected) <= 0.501 * 10**-digits, (printed, expected)


@pytest.mark.slow
@pytest.mark.parametrize("cards", ["a100-40gb:8", "a100-80gb:1", "h200:1"])
def test_gpt2_large_fits_cards(cards):
    done = python(*GPT2_DDO, f"--topology=gpu:{cards}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "  fits: needs" in done.stdout
