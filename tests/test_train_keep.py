"""Trained models that a study keeps: those of verification, whole, with the losses they had."""

import dataclasses

import jax
import numpy as np
import pytest
from extras import need

from autoscale_jax import models
from autoscale_jax.data import prepare
from autoscale_jax.execute import TrainHere
from autoscale_jax.models import hf
from autoscale_jax.specs import VERIFICATION_SEED, RunSpec
from autoscale_jax.train import keep
from autoscale_jax.train.checkpoint import RunCheckpoint
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh

TOKENS = {"birds": 2000, "metals": 1000, "rivers": 1000}
SPEC = RunSpec(TOKENS, VERIFICATION_SEED)
QUIET = lambda spec, progress: None  # noqa: E731


def trainer(recipe, corpus, folder):
    mesh = make_mesh(jax.devices()[:1])
    return Trainer(recipe, corpus, mesh, folder / "checkpoints", 1e9, folder / "models")


def test_a_kept_model_has_the_losses_of_its_run(recipe, corpus, tmp_path):
    """Two of one program; the proxy between them is left out."""
    specs = [SPEC, RunSpec(TOKENS, 3), RunSpec(TOKENS, VERIFICATION_SEED + 1)]
    train = TrainHere(
        {"": recipe}, corpus, tmp_path / "c", 1, 1e9, QUIET, population=3, models=tmp_path / "m"
    )
    runs = list(train(specs))
    kept = {run.key: run for run in runs if run.spec.seed >= VERIFICATION_SEED}
    assert {folder.name for folder in (tmp_path / "m").iterdir()} == kept.keys()
    one = trainer(recipe, corpus, tmp_path)
    for key, run in kept.items():
        params = hf.load(recipe.model, tmp_path / "m" / key)
        (loss_E,) = one._evaluate(jax.tree.map(lambda x: x[None], params))
        assert dict(zip(one._evaluate.names, loss_E, strict=True)) == pytest.approx(
            dict(run.loss), abs=1e-6
        )
        assert not (tmp_path / "m" / key / "tokenizer.json").exists(), "bytes need none"


class Killed(Exception):
    pass


def test_a_kill_leaves_a_whole_model_or_none(recipe, corpus, tmp_path, monkeypatch):
    """Killed within the writing, the next try writes it; killed after it, it stays as it is."""

    def half(config, params, path):
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"half")
        raise Killed

    monkeypatch.setattr(keep.hf, "save", half)
    with pytest.raises(Killed):
        trainer(recipe, corpus, tmp_path).train([SPEC], QUIET)
    monkeypatch.undo()

    def killed(self, *, delete):
        raise Killed

    monkeypatch.setattr(RunCheckpoint, "close", killed)
    with pytest.raises(Killed):
        trainer(recipe, corpus, tmp_path).train([SPEC], QUIET)
    monkeypatch.undo()
    (folder,) = (tmp_path / "models").iterdir()
    before = (folder / "model.safetensors").stat()
    (run,) = trainer(recipe, corpus, tmp_path).train([SPEC], QUIET)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [run.key]
    assert (folder / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns


def test_a_diverged_run_has_no_model(recipe, corpus, tmp_path):
    wild = dataclasses.replace(recipe, peak_lr=1e30)
    (run,) = trainer(wild, corpus, tmp_path).train([SPEC], QUIET)
    assert run.status == "diverged" and not (tmp_path / "models").exists()


@pytest.mark.slow
def test_a_kept_model_opens_in_transformers(recipe, data_settings, tmp_path):
    """With its tokeniser, and the same logits."""
    transformers = need("transformers", "parity")
    torch = need("torch", "parity")
    corpus = prepare(data_settings | {"tokenizer": "bpe", "vocab_size": 300}, tmp_path / "corpus")
    model = dataclasses.replace(recipe.model, vocab_size=corpus.vocab_size)
    recipe = dataclasses.replace(recipe, model=model)
    (run,) = trainer(recipe, corpus, tmp_path).train([SPEC], QUIET)
    folder = tmp_path / "models" / run.key
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    tokens = tokenizer("heron wren egret finch swift plover")["input_ids"]
    np.testing.assert_array_equal(
        tokens, corpus.tokenizer.encode_batch(["heron wren egret finch swift plover"])[0]
    )
    inputs = np.array([tokens[: model.seq_len]])
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(inputs)).logits.numpy()
    ours = models.logits(model, hf.load(model, folder), inputs)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
