"""Cross-entropy in pieces: the same numbers, without ever holding all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from autoscale_jax.models import loss


def plain(x_BxLxD, head_VxD, bias_V, targets_BxL, vocab):
    logits = jnp.einsum("bld,vd->blv", x_BxLxD, head_VxD[:vocab]) + bias_V[:vocab]
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets_BxL)


def arguments(rows=2, length=24, width=8, columns=48, vocab=45):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (rows, length, width))
    head = jax.random.normal(keys[1], (columns, width))
    bias = jax.random.normal(keys[2], (columns,))
    return x, head, bias, jax.random.randint(keys[3], (rows, length), 0, vocab)


@pytest.mark.parametrize("chunk", [2**26, 2 * 8 * 48], ids=["one piece", "three pieces"])
def test_values_and_gradients(chunk, monkeypatch):
    """Weights that differ by position included: values to 1e-6, gradients to 1e-5."""
    monkeypatch.setitem(loss.CHUNK, "cpu", chunk)
    x, head, bias, targets = arguments()
    weight_BxL = jnp.arange(48.0).reshape(2, 24) / 48

    def both(f):
        def total(x, head, bias):
            loss_BxL = f(x, head, bias, targets, 45)
            return jnp.sum(loss_BxL * weight_BxL), loss_BxL

        return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(x, head, bias)

    (gradients, values), (expected_gradients, expected) = both(loss.cross_entropy), both(plain)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not np.any(gradients[1][45:]) and not np.any(gradients[2][45:])


def test_pieces():
    assert loss.pieces(rows=4, length=64, columns=1024) == 1
    assert loss.pieces(rows=8, length=1024, columns=50432) == 8  # 8 x 128 positions of GPT-2
    assert loss.pieces(rows=48, length=300, columns=30720) == 10  # 30 positions of BERT
    assert loss.pieces(rows=4096, length=7, columns=50432) == 7  # single positions


def test_the_compiled_program_never_holds_all_logits():
    """By the compiler's account of its memory, forward and backward."""
    x, head, bias, targets = jax.eval_shape(lambda: arguments(8, 1024, 64, 50432, 50257))

    def temporary(f):
        total = lambda *x: jnp.mean(f(*x, 50257))  # noqa: E731
        step = jax.jit(jax.grad(total, argnums=(0, 1))).lower(x, head, bias, targets)
        return step.compile().memory_analysis().temp_size_in_bytes

    logits = 8 * 1024 * 50432 * 4
    assert temporary(plain) >= logits
    assert temporary(loss.cross_entropy) < 0.4 * logits


def test_bfloat16_products_are_summed_in_float32():
    """Against float64 sums of the same rounded factors; the head's gradient is float32."""
    x, head, bias, targets = arguments(width=512)
    x = x.astype(jnp.bfloat16)
    gradient = jax.grad(lambda h: loss.cross_entropy(x, h, bias, targets, 45).sum())(head)
    assert gradient.dtype == jnp.float32
    rounded = np.asarray(head.astype(jnp.bfloat16), np.float64)
    logits = np.asarray(x, np.float64) @ rounded.T + np.asarray(bias, np.float64)
    ours = loss.logits(x, head, bias, 48)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, logits, atol=1e-4)
