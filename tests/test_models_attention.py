"""Each implementation of attention against the plain one, and compiled for its own platform."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from extras import needs
from jax.sharding import AxisType

from autoscale_jax.models import attention


def plain(q, k, v, causal, segments=None):
    """By the book, in float64 numpy."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    score = np.einsum("blhd,bmhd->bhlm", q, k) / np.sqrt(q.shape[-1])
    if segments is not None:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        score = np.where(same, score, -np.inf)
    if causal:
        score = np.where(np.tril(np.ones(score.shape[-2:])), score, -np.inf)
    share = np.exp(score - score.max(-1, keepdims=True))
    return np.einsum("bhlm,bmhd->blhd", share / share.sum(-1, keepdims=True), v)


def qkv(length, width=16, rows=2, heads=2):
    return jax.random.normal(jax.random.key(0), (3, rows, length, heads, width))


def segments_of(length, rows=2):
    """Each row cut elsewhere, some segments of one position, the last one filler."""
    rng = np.random.default_rng(0)
    segments = np.sort(rng.integers(0, 6, (rows, length)), axis=1).astype(np.int32)
    segments[:, -3:] = -1
    return segments


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("segments", [None, segments_of(50)], ids=["rows", "documents"])
def test_xla_by_the_book(causal, segments):
    """Forward; and backward against finite differences, across blocks of 32 queries."""
    x = qkv(50)
    ours = lambda *x: attention.attention(*x, segments, causal=causal, backend="xla")  # noqa: E731
    np.testing.assert_allclose(ours(*x), plain(*x, causal, segments), atol=1e-6)
    rng = np.random.default_rng(1)
    weight, step = rng.standard_normal(x.shape[1:]), rng.standard_normal(x.shape)
    slope = jax.grad(lambda s: jnp.sum(ours(*(x + s * step)) * weight))(0.0)
    start = np.asarray(x, np.float64)
    ahead, behind = (plain(*(start + s * step), causal, segments) for s in (1e-5, -1e-5))
    assert float(slope) == pytest.approx(np.sum((ahead - behind) * weight) / 2e-5, rel=1e-3)


def test_scores_and_softmax_are_float32_in_bfloat16_models():
    """The scores' common size, 1e4, would leave bfloat16 nothing of their differences."""
    q, k, v = qkv(8)
    k = k.at[..., 0].set(1.0)
    q = q.at[..., 0].set(4e4)  # adds the same to all scores of a row
    q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
    ours = attention.attention(q, k, v, causal=True, backend="xla")
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype("f4"), plain(q, k, v, True), atol=2e-2)


@pytest.mark.parametrize(
    ("length", "causal", "documents"),
    [(128, True, False), (150, False, False), (150, True, True), (150, False, True)],
    ids=["causal", "padded to whole tiles", "documents, causal", "documents"],
)
def test_splash_equals_xla(length, causal, documents):
    """Forward and gradients, its kernels interpreted."""
    x = qkv(length, rows=1)
    segments = segments_of(length, rows=1) if documents else None
    weight = jax.random.normal(jax.random.key(1), x.shape[1:])

    def gradients(f):
        value = lambda q, k, v: jnp.sum(f(q, k, v) * weight)  # noqa: E731
        return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(*x)

    ours = gradients(lambda *x: attention.splash(*x, segments, causal, interpret=True))
    expected = gradients(lambda *x: attention.attention(*x, segments, causal=causal, backend="xla"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("documents", [False, True])
def test_cudnn_is_what_a_gpu_program_calls(documents, monkeypatch):
    """Lowered for CUDA, forward and backward, without a GPU; documents as a mask of all heads."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    x = jax.ShapeDtypeStruct((2, 1024, 20, 64), jnp.bfloat16)

    segments = jax.ShapeDtypeStruct((2, 1024), jnp.int32) if documents else None

    def value(q, k, v, segments):
        mixed = attention.attention(q, k, v, segments, causal=True, backend="cudnn")
        return mixed.astype("f4").sum()

    lowered = jax.jit(jax.grad(value)).trace(x, x, x, segments).lower(lowering_platforms=("cuda",))
    program = lowered.as_text()
    kernel = "ScaleBiasSoftmax" if documents else "Softmax"
    assert f"__cudnn$fmha{kernel}(" in program and f"__cudnn$fmha{kernel}Backward(" in program
    sizes = set(re.findall(r"(\w+)x1024x1024x", program))
    assert sizes == ({"2x1"} if documents else set())  # no scores in memory


def test_rematerialisation_keeps_what_cudnn_takes_backward(monkeypatch):
    """Its forward kernel is there once, not again in the backward pass."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    x = jax.ShapeDtypeStruct((2, 128, 2, 64), jnp.bfloat16)

    def value(x):
        mixed = attention.attention(x * 2, x * 3, x * 4, causal=True, backend="cudnn")
        return jnp.sin(mixed).astype("f4").sum()

    calls = {}
    for name, policy in (("kept", attention.saved), ("again", None)):
        program = jax.make_jaxpr(jax.grad(jax.checkpoint(value, policy=policy)))(x)
        calls[name] = str(program).count(f"{attention.CUDNN}[")
    assert calls == {"kept": 1, "again": 2}


@pytest.mark.parametrize(
    ("platform", "dtype", "width", "odd_mask", "backend"),
    [
        ("cpu", "bfloat16", 64, False, "xla"),
        ("gpu", "bfloat16", 64, False, "cudnn"),
        ("gpu", "bfloat16", 64, True, "xla"),
        ("gpu", "float32", 64, False, "xla"),
        ("gpu", "bfloat16", 20, False, "xla"),
        ("tpu", "float32", 64, True, "splash"),
    ],
)
def test_auto(platform, dtype, width, odd_mask, backend, monkeypatch):
    monkeypatch.setattr(attention.sharding, "platform", lambda: platform)
    assert attention.choose(jnp.dtype(dtype), width, odd_mask) == backend


TPU = """
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from autoscale_jax import models

topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
devices = np.array(topology.devices).reshape(1, 2, 2)
mesh = Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
fields = dict(num_layers=6, d_model=256, num_heads=4, dtype="bfloat16", remat="full")
for name, length in (("gpt2", 1024), ("bert", 300)):
    config = models.make_config(name, 50257, seq_len=length, **fields)
    rules = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "mlp": "tensor"}
    def place(leaf, axes):
        spec = PartitionSpec(*map(rules.get, axes))
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))
    shapes = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    params = jax.tree.map(place, shapes, models.logical_axes(config))
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    tokens = jax.ShapeDtypeStruct((64, length), jnp.int32, sharding=rows)
    def loss(p, t):
        segments = t if name == "bert" else None  # any numbers
        return models.token_losses(config, p, t, t, segments).mean()
    step = jax.jit(jax.grad(loss))
    with jax.set_mesh(mesh):
        compiled = step.lower(params, tokens).compile()
    program = compiled.as_text()
    kernels, scores = program.count("tpu_custom_call"), f"{length},{length}]" in program
    print(kernels, scores, compiled.memory_analysis().temp_size_in_bytes)
"""


@pytest.mark.slow
@needs("libtpu", "tpu")
def test_a_sharded_tpu_program_calls_splash(tmp_path):
    """Compiled for four chips of v5e: three kernels, forward and backward, and no L x L scores;
    BERT with segments."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TPU], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for line in done.stdout.splitlines():
        kernels, scores, temporary = line.split()
        assert int(kernels) >= 3, line
        assert scores == "False", line
        # 32 rows of logits on each device would be 32 x 1,024 x 25,216 x 4 bytes = 3.1 GiB
        assert int(temporary) < 2**30, line


def test_on_a_mesh_each_device_has_its_own_rows_and_heads(monkeypatch):
    """Splash inside set_mesh(2 devices): the same numbers, with no exchange between devices."""
    if len(jax.devices()) < 2:
        pytest.skip("needs two devices")
    interpreted = attention.splash
    monkeypatch.setattr(attention, "splash", lambda *x: interpreted(*x, interpret=True))
    x = qkv(128, rows=2)
    segments = segments_of(128)
    expected = attention.attention(*x, segments, causal=True, backend="xla")
    for shape in ((2, 1), (1, 2)):
        types = (AxisType.Auto,) * 2
        mesh = jax.make_mesh(shape, ("data", "tensor"), axis_types=types, devices=jax.devices()[:2])
        with jax.set_mesh(mesh):
            f = jax.jit(lambda *x: attention.attention(*x, causal=True, backend="splash"))
            np.testing.assert_allclose(f(*x, segments), expected, atol=1e-5)
