"""The models' contract: parameters, their axes and counts, FLOPs, the padded vocabulary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autoscale_jax import models
from autoscale_jax.models import GPT2Config, gpt2

SMALL = GPT2Config(vocab_size=131, seq_len=12, num_layers=2, d_model=16, num_heads=2)
MODELS = {"gpt2": SMALL}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    """A small config of each architecture, and its fresh parameters."""
    config = MODELS[request.param]
    return config, models.init(config, jax.random.key(0))


def tokens_of(config, rows=1):
    return jax.random.randint(jax.random.key(1), (rows, config.seq_len), 0, config.vocab_size)


def reaches(config, params):
    """[L, L]: whether the logits at t depend on the position embedding at s, by gradients."""
    tokens = tokens_of(config)

    def summed(wpe):
        return (models.logits(config, params | {"wpe": wpe}, tokens)[0] ** 2).sum(-1)

    return np.abs(jax.jacobian(summed)(params["wpe"])).sum(-1) > 0


def test_gpt2_sees_no_future():
    """d logits[t] / d position embedding[s] is zero exactly where s > t, and only there."""
    reaches_LxL = reaches(SMALL, models.init(SMALL, jax.random.key(0)))
    np.testing.assert_array_equal(reaches_LxL, np.tril(np.ones_like(reaches_LxL)))


def test_first_loss_is_that_of_a_uniform_guess(model):
    config, params = model
    tokens = tokens_of(config, rows=8)
    loss_BxL = models.token_losses(config, params, tokens, tokens[:, ::-1])
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
    }
    named = jax.tree.map(lambda p, axes: p.shape == tuple(size[a] for a in axes), params,
                         models.logical_axes(config))  # fmt: skip
    assert all(jax.tree.leaves(named)), named


def test_matrices_are_what_weight_decay_acts_on(model):
    """Those of two axes or more a layer, but for the bias of query, key and value by head."""
    config, _ = model
    for path, is_matrix in jax.tree_util.tree_leaves_with_path(models.matrices(config)):
        name = jax.tree_util.keystr(path)
        assert is_matrix == (not ("bias" in name or "scale" in name))


def test_flops_agree_with_the_compiler(model):
    """Forward FLOPs are a third of training's; XLA counts the forward pass within 5%."""
    config = GPT2Config(vocab_size=512, seq_len=128, num_layers=2, d_model=64, num_heads=4)
    tokens = jnp.zeros((4, 128), jnp.int32)
    params = models.init(config, jax.random.key(0))
    compiled = jax.jit(lambda p, t: models.logits(config, p, t)).lower(params, tokens).compile()
    per_token = compiled.cost_analysis()["flops"] / tokens.size
    assert per_token == pytest.approx(models.flops_per_token(config) / 3, rel=0.05)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("small", 124_439_808),
        ("medium", 354_823_168),
        ("large", 774_030_080),
        ("xl", 1_557_611_200),
    ],
)
def test_sizes_are_those_of_hugging_face(size, parameters):
    config = GPT2Config(50257, 1024, **gpt2.SIZES[size])
    assert models.num_parameters(config) == parameters
    embeddings = (50257 + 1024) * config.d_model
    assert models.num_parameters(config, embeddings=False) == parameters - embeddings
