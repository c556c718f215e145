"""The models' contract: parameters, their axes and counts, FLOPs, the padded vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autoscale_jax import models
from autoscale_jax.models import bert, gpt2, layers, sharding
from autoscale_jax.specs import BadInput

SMALL = {"seq_len": 12, "num_layers": 2, "d_model": 16, "num_heads": 2}


@pytest.fixture(scope="module", params=["gpt2", "bert"])
def model(request):
    """A small config of each architecture, and its fresh parameters."""
    config = models.make_config(request.param, 131, **SMALL)
    return config, fresh(config)


def fresh(config):
    return jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))


def tokens_of(config, rows=1):
    return jax.random.randint(jax.random.key(1), (rows, config.seq_len), 0, config.vocab_size)


SEGMENTS_L = np.array([0, 0, 0, 0, 1, 2, 2, 2, 2, 2, -1, -1])  # the last two are filler


@pytest.mark.parametrize("segments_L", [None, SEGMENTS_L], ids=["row", "documents"])
def test_gpt2_sees_no_future_and_bert_sees_all(model, segments_L):
    """d logits[t] / d position embedding[s] is zero where s > t in GPT-2, nowhere in BERT; with
    segments, also wherever s is of another one than t."""
    config, params = model
    tokens = tokens_of(config)
    segments = None if segments_L is None else segments_L[None]

    @jax.jit
    def jacobian(wpe):
        def summed(wpe):
            at = models.logits(config, params | {"wpe": wpe}, tokens, segments)
            return (at[0] ** 2).sum(-1)

        return jax.jacobian(summed)(wpe)

    reaches_LxL = np.abs(jacobian(params["wpe"])).sum(-1) > 0
    all_LxL = np.ones_like(reaches_LxL)
    expected = np.tril(all_LxL) if isinstance(config, models.GPT2Config) else all_LxL
    if segments_L is not None:
        expected &= segments_L[:, None] == segments_L
    np.testing.assert_array_equal(reaches_LxL, expected)


def test_packed_documents_have_the_losses_of_each_alone(model):
    """In a model without positions, whose wpe is 0."""
    config, params = model
    params = params | {"wpe": jnp.zeros_like(params["wpe"])}
    tokens, segments_L = tokens_of(config), np.repeat([0, 1], [5, 7])
    packed = models.token_losses(config, params, tokens, tokens[:, ::-1], segments_L[None])
    alone = [
        models.token_losses(config, params, tokens[:, part], tokens[:, ::-1][:, part])
        for part in (slice(5), slice(5, None))
    ]
    np.testing.assert_allclose(packed, np.concatenate(alone, 1), atol=1e-5)
    row = models.token_losses(config, params, tokens, tokens[:, ::-1])
    assert np.abs(packed - row)[:, 5:].max() > 1e-4, "which a packed row has not by itself"


def test_what_pads_the_vocabulary_is_never_predicted_nor_trained(model):
    """However large its rows: no loss, no gradient; it takes 1 of 132 rows, 175 of GPT-2's."""
    config, params = model
    assert config.padded_vocab_size == 132
    assert dataclasses.replace(config, vocab_size=50257).padded_vocab_size == 197 * 256
    tokens = tokens_of(config)

    @jax.jit
    def loss_and_gradient(wte):
        def mean(wte):
            return models.token_losses(config, params | {"wte": wte}, tokens, tokens).mean()

        return jax.value_and_grad(mean)(wte)

    loss, gradient = loss_and_gradient(params["wte"])
    wild_loss, wild_gradient = loss_and_gradient(params["wte"].at[131:].set(1e3))
    assert loss == wild_loss
    for each in (gradient, wild_gradient):
        assert np.abs(each[:131]).min(-1).max() > 0
        assert not np.abs(each[131:]).any()


def test_first_loss_is_that_of_a_uniform_guess(model):
    config, params = model
    tokens = tokens_of(config, rows=8)
    loss_BxL = models.token_losses(config, params, tokens, tokens[:, ::-1])
    assert loss_BxL.dtype == np.float32
    np.testing.assert_allclose(loss_BxL.mean(), np.log(config.vocab_size), rtol=0.02)


def test_every_axis_of_every_parameter_has_a_name(model):
    config, params = model
    size = {
        "layers": config.num_layers,
        "vocab": config.padded_vocab_size,
        "embed": config.d_model,
        "norm": config.d_model,
        "position": config.seq_len,
        "qkv": 3,
        "heads": config.num_heads,
        "kv": config.d_model // config.num_heads,
        "mlp": 4 * config.d_model,
        "segment": 2,
    }
    fits = jax.tree.map(
        lambda p, axes: p.shape == tuple(size[name] for name in axes),
        params,
        models.logical_axes(config),
    )
    assert all(jax.tree.leaves(fits)), fits


def test_matrices_are_what_weight_decay_acts_on(model):
    """Those of two axes or more a layer, but for the bias of query, key and value by head."""
    config, _ = model
    for path, is_matrix in jax.tree_util.tree_leaves_with_path(models.matrices(config)):
        name = jax.tree_util.keystr(path)
        assert is_matrix == (not ("bias" in name or "scale" in name))


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_flops_agree_with_the_compiler(name, embeddings):
    """XLA counts 3% more or less, forward and with the backward pass (layers unrolled).

    Attention is three tenths of a layer here. On a CPU four blocks of GPT-2's causal square do
    5/8 of its work; the rest is left out of what we count.
    """
    config = models.make_config(name, 512, seq_len=1024, num_layers=2, d_model=384, num_heads=4)
    tokens = jax.ShapeDtypeStruct((1, 1024), jnp.int32)
    params = jax.eval_shape(lambda: models.init(config, jax.random.key(0)))
    attention = 3 * 4 * 2 * 1024 * 384
    ours = models.flops_per_token(config, embeddings)
    assert attention > 0.2 * ours
    if name == "gpt2":
        ours -= attention * 3 / 8

    def counted(function):
        compiled = jax.jit(function).lower(params, tokens).compile()
        return compiled.cost_analysis()["flops"] / tokens.size

    def states(p, t):
        return models._apply(config, p, t, None)[0]

    if embeddings:
        forward = counted(lambda p, t: models.logits(config, p, t))
        training = counted(jax.grad(lambda p, t: models.token_losses(config, p, t, t).mean()))
    else:
        forward = counted(states)
        training = counted(jax.grad(lambda p, t: (states(p, t) ** 2).sum()))
    assert forward == pytest.approx(ours / 3, rel=0.03)
    assert training == pytest.approx(ours, rel=0.03)


def test_an_output_matrix_of_its_own_is_no_embedding():
    config = models.make_config("gpt2", 131, **SMALL, tie_embeddings=False)
    own = models.flops_per_token(config, embeddings=False)
    assert own == models.flops_per_token(config)
    tied = dataclasses.replace(config, tie_embeddings=True)
    assert own - models.flops_per_token(tied, embeddings=False) == 6 * 131 * 16


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("gpt2", "small", 124_439_808),
        ("gpt2", "medium", 354_823_168),
        ("gpt2", "large", 774_030_080),
        ("gpt2", "xl", 1_557_611_200),
        ("bert", "base", 109_514_298),
    ],
)
def test_sizes_are_those_of_hugging_face(name, size, parameters):
    """Ours, without what pads the vocabulary; and without the embeddings."""
    module, tokens, length = {"gpt2": (gpt2, 50257, 1024), "bert": (bert, 30522, 512)}[name]
    config = models.make_config(name, tokens, seq_len=length, **module.SIZES[size])
    assert models.num_parameters(config) == parameters
    embeddings = (tokens + length + 2 * (name == "bert")) * config.d_model
    assert models.num_parameters(config, embeddings=False) == parameters - embeddings
    untied = dataclasses.replace(config, tie_embeddings=False)
    assert models.num_parameters(untied) == parameters + tokens * config.d_model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "llama"}, "config.model.name = 'llama': use one of gpt2, bert"),
        ({"name": "gpt2", "vocab_size": 130}, "130: smaller than the tokeniser's 131; raise it"),
    ],
)
def test_bad_models(fields, message):
    with pytest.raises(BadInput, match=message):
        models.make_config(tokens=131, **fields)


def test_document_attention_without_documents_is_refused(model):
    config, params = model
    documents = dataclasses.replace(config, document_attention=True)
    with pytest.raises(BadInput, match="document_attention = True: give the documents' segments"):
        models.token_losses(documents, params, tokens_of(config), tokens_of(config))


def test_remat_and_the_loop_over_layers_change_no_number(monkeypatch):
    """Gradients of layers one by one, and in a loop with each kind of rematerialisation."""
    config = models.make_config("gpt2", 131, **SMALL)
    params, tokens = fresh(config), tokens_of(config)

    def gradient(remat):
        def mean(params):
            other = dataclasses.replace(config, remat=remat)
            segments = jnp.broadcast_to(SEGMENTS_L, tokens.shape)
            return models.token_losses(other, params, tokens, tokens[:, ::-1], segments).mean()

        return jax.jit(jax.grad(mean))(params)

    one_by_one = gradient("none")
    monkeypatch.setitem(layers.UNROLLED, "cpu", 0)
    for remat in ("dots", "full"):
        for a, b in zip(*map(jax.tree.leaves, (one_by_one, gradient(remat))), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
    monkeypatch.setattr(sharding, "platform", lambda: "gpu")  # all remats one by one, and gelu's
    for remat in ("none", "dots", "full"):
        for a, b in zip(*map(jax.tree.leaves, (one_by_one, gradient(remat))), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
