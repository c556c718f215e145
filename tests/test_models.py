"""GPT-2: causality proven by gradients, parameter and FLOP counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autoscale_jax.models.gpt2 import GPT2, GPT2Config, flops_per_token, matrix_parameters

SMALL = GPT2Config(vocab_size=37, seq_len=12, num_layers=2, d_model=16, num_heads=2)


@pytest.fixture(scope="module")
def params():
    return GPT2(SMALL).init(jax.random.key(0), jnp.zeros((1, SMALL.seq_len), jnp.int32))


def test_no_position_sees_the_future(params):
    """d logits[t] / d position embedding[s] is zero exactly where s > t, and only there."""
    tokens = jax.random.randint(jax.random.key(1), (1, SMALL.seq_len), 0, SMALL.vocab_size)

    def summed(wpe):
        changed = {"params": params["params"] | {"wpe": wpe}}
        return GPT2(SMALL).apply(changed, tokens)[0].sum(-1)

    gradient_LxLxD = jax.jacobian(summed)(params["params"]["wpe"])
    reaches_LxL = np.abs(gradient_LxLxD).sum(-1) > 0
    np.testing.assert_array_equal(reaches_LxL, np.tril(np.ones_like(reaches_LxL)))


def test_first_loss_is_that_of_a_uniform_guess(params):
    tokens = jax.random.randint(jax.random.key(2), (8, SMALL.seq_len), 0, SMALL.vocab_size)
    log_prob = jax.nn.log_softmax(GPT2(SMALL).apply(params, tokens))
    np.testing.assert_allclose(-log_prob.mean(), np.log(SMALL.vocab_size), rtol=0.02)


@pytest.mark.parametrize("tied", [True, False])
def test_matrix_parameters_are_counted(tied):
    config = GPT2Config(37, 12, 2, 16, 2, tie_embeddings=tied)
    params = GPT2(config).init(jax.random.key(0), jnp.zeros((1, 12), jnp.int32))["params"]
    kernels = sum(
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "kernel" in jax.tree_util.keystr(path)
    )
    head = params["wte"]["embedding"].size if tied else 0
    assert kernels + head == matrix_parameters(config)


def test_flops_agree_with_the_compiler():
    """Forward FLOPs are a third of training's; XLA counts the forward pass within 5%."""
    config = GPT2Config(vocab_size=512, seq_len=128, num_layers=2, d_model=64, num_heads=4)
    tokens = jnp.zeros((4, 128), jnp.int32)
    params = GPT2(config).init(jax.random.key(0), tokens)
    compiled = jax.jit(GPT2(config).apply).lower(params, tokens).compile()
    per_token = compiled.cost_analysis()["flops"] / tokens.size
    assert per_token == pytest.approx(flops_per_token(config) / 3, rel=0.05)


def test_gpt2_large_has_774_million_parameters():
    config = GPT2Config(50257, 1024, 36, 1280, 20)
    shapes = jax.eval_shape(
        GPT2(config).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1024), jnp.int32)
    )
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert total == 774_030_080  # Hugging Face's gpt2-large
