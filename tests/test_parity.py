"""GPT-2 and BERT against Hugging Face's torch models, both ways; needs the extra "parity"."""

import jax
import numpy as np
import pytest
from extras import need

from autoscale_jax import models
from autoscale_jax.models import hf

torch = need("torch", "parity")
transformers = need("transformers", "parity")
pytestmark = pytest.mark.slow

SHAPES = {
    "gpt2": {"num_layers": 3, "d_model": 64, "num_heads": 4, "seq_len": 48},
    "bert": {"num_layers": 3, "d_model": 64, "num_heads": 4, "seq_len": 48},
}
THEIRS = {"gpt2": "GPT2LMHeadModel", "bert": "BertForMaskedLM"}


def random_params(config):
    """Every parameter random, so that biases and norms are seen too."""
    params = jax.jit(models.init, static_argnums=0)(config, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: (p + 0.05 * rng.standard_normal(p.shape)).astype("f4"), params)


def compare(config, params, theirs):
    """Logits and loss to 1e-4, gradients to 1e-3 of the largest of each parameter."""
    rng = np.random.default_rng(1)
    inputs, targets = rng.integers(0, 997, (2, 3, config.seq_len))
    output = theirs(input_ids=torch.tensor(inputs)).logits
    loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), torch.tensor(targets).flatten())
    loss.backward()

    mean = lambda p: models.token_losses(config, p, inputs, targets).mean()  # noqa: E731
    our_loss, gradients = jax.jit(jax.value_and_grad(mean))(params)
    our_logits = models.logits(config, params, inputs)
    np.testing.assert_allclose(our_logits, output.detach().numpy(), atol=1e-4)
    assert float(our_loss) == pytest.approx(loss.item(), abs=1e-4)
    named = dict(theirs.named_parameters())
    for tensor, view in hf._views(config, jax.device_get(gradients)):
        expected, width = named[tensor].grad.numpy(), config.d_model
        if "key.bias" in tensor:  # adds the same to all scores of a row: no effect, no gradient
            assert max(np.abs(view).max(), np.abs(expected).max()) < 1e-8
            continue
        if "c_attn.bias" in tensor:  # the same of GPT-2, between those of query and value
            assert max(np.abs(x[width : 2 * width]).max() for x in (view, expected)) < 1e-8
        assert np.abs(view - expected).max() <= 1e-3 * np.abs(expected).max(), tensor


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", THEIRS)
def test_logits_loss_and_gradients(name, tied, tmp_path):
    """Of random weights of ours, which, saved, open in transformers."""
    config = models.make_config(name, 997, tie_embeddings=tied, **SHAPES[name])
    params = random_params(config)
    hf.save(config, params, tmp_path / "ours")
    compare(config, params, getattr(transformers, THEIRS[name]).from_pretrained(tmp_path / "ours"))


@pytest.mark.parametrize("name", THEIRS)
def test_weights_of_theirs_open_in_ours(name, tmp_path):
    """A model that transformers made and saved, whole or in pieces: the same logits, loss and
    gradients; and back, bit by bit."""
    config = models.make_config(name, 997, **SHAPES[name])
    fields = {theirs: getattr(config, ours) for theirs, ours in hf._format(config).fields.items()}
    torch.manual_seed(0)
    kind = getattr(transformers, THEIRS[name])
    theirs = kind(kind.config_class(**fields)).eval()
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "pieces", max_shard_size="200KB")
    assert len(list((tmp_path / "pieces").glob("*.safetensors"))) > 1
    params = hf.load(config, tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, params, hf.load(config, tmp_path / "pieces"))
    compare(config, params, theirs)
    hf.save(config, params, tmp_path / "again")
    again = kind.from_pretrained(tmp_path / "again")
    for (tensor, a), (_, b) in zip(
        theirs.named_parameters(), again.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), tensor
