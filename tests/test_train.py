"""Training: the schedule, exact evaluation, resume without a trace, sharding, divergence."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from autoscale_jax import models
from autoscale_jax.data import eval_batches
from autoscale_jax.data.mix import order_of
from autoscale_jax.specs import BadInput, RunSpec, run_key
from autoscale_jax.train import checkpoint
from autoscale_jax.train.group import Member
from autoscale_jax.train.loop import Trainer
from autoscale_jax.train.mesh import make_mesh
from autoscale_jax.train.recipe import learning_rate
from autoscale_jax.train.step import chunk_steps, losses_of, make_init, make_train_chunk

SPEC = RunSpec({"birds": 6000, "metals": 3000, "rivers": 3001}, seed=3)


def trainer(recipe, corpus, folder, devices=1, checkpoint_seconds=1e9):
    return Trainer(recipe, corpus, make_mesh(jax.devices()[:devices]), folder, checkpoint_seconds)


def train(one, spec=SPEC, on_progress=lambda s, p: None):
    (run,) = one.train([spec], on_progress)
    return run


@pytest.fixture(scope="module")
def whole_run(recipe, corpus, tmp_path_factory):
    return train(trainer(recipe, corpus, tmp_path_factory.mktemp("whole")))


def test_schedule_warms_up_and_ends_at_zero(recipe):
    rates = [float(learning_rate(recipe, jnp.float32(s), jnp.float32(100))) for s in range(101)]
    assert rates[0] == pytest.approx(recipe.peak_lr / 10)
    assert max(rates) == pytest.approx(recipe.peak_lr)
    assert np.argmax(rates) == 9
    assert rates[100] == 0 and rates[99] > 0


def test_the_model_learns_each_domain(whole_run):
    """Words of known length and spelling: far below the 5.5 nats of guessing bytes."""
    assert whole_run.status == "ok"
    first, last = whole_run.curve[0], whole_run.curve[-1]
    assert all(last.loss[name] < min(first.loss[name], 3.0) for name in last.loss)
    assert dict(whole_run.loss) == dict(last.loss)


def test_realised_tokens_are_the_asked_ones(whole_run, recipe):
    for name, asked in SPEC.tokens.items():
        assert abs(whole_run.realised[name] - asked) < recipe.model.seq_len
    assert whole_run.curve[-1].tokens == sum(whole_run.realised.values())


def test_the_curve_is_on_the_grid_of_tokens(whole_run, recipe):
    assert [p.tokens for p in whole_run.curve[:-1]] == [4096, 8192]


def test_evaluation_weighs_every_held_out_token_once(recipe, corpus, tmp_path):
    """Against the plain mean over all held-out tokens, domain by domain."""
    one = trainer(recipe, corpus, tmp_path)
    params = make_init(recipe, one.mesh)([1]).params
    (measured,) = one._evaluate(params)
    measured = dict(zip(one._evaluate.names, measured, strict=True))
    params = jax.tree.map(lambda x: x[0], params)
    token_losses = jax.jit(functools.partial(models.token_losses, recipe.model))
    for name, batch in eval_batches(corpus, recipe.model.seq_len, 1).items():
        loss = np.concatenate(
            [
                np.asarray(token_losses(params, inputs, targets))
                for inputs, targets in zip(batch["inputs"], batch["targets"], strict=True)
            ]
        )
        weight = batch["weight"].reshape(loss.shape)
        assert weight.sum() == len(corpus.eval_tokens[name]) - 1
        assert measured[name] == pytest.approx((loss * weight).sum() / weight.sum(), rel=1e-5)


def test_bert_is_evaluated_on_every_masked_token_once(recipe, corpus, tmp_path):
    """The plain mean over the masked tokens of all held-out rows, one row at a time."""
    model = models.BertConfig(corpus.vocab_size_of("mlm"), 30, 1, 16, 2, tie_embeddings=False)
    one = trainer(dataclasses.replace(recipe, model=model), corpus, tmp_path)
    params = make_init(one.recipe, one.mesh)([1]).params
    (measured,) = one._evaluate(params)
    params = jax.tree.map(lambda x: x[0], params)
    token_losses = jax.jit(functools.partial(models.token_losses, model))
    held_out = eval_batches(corpus, 30, 1, "mlm")
    for loss, (name, batch) in zip(measured, held_out.items(), strict=True):
        total, count = 0.0, 0
        rows = zip(*(batch[key] for key in ("inputs", "targets", "segments")), strict=True)
        for row, weight in zip(rows, batch["weight"], strict=True):
            total += float((token_losses(params, *row) * weight).sum(dtype=np.float64))
            count += int(weight.sum())
        predicted = len(corpus.eval_tokens[name]) - 1
        assert 0.1 < count / predicted < 0.2, "15% of the tokens, and no row is dropped"
        assert loss == pytest.approx(total / count, rel=1e-5)


def test_weight_decay_shrinks_matrices_alone(recipe):
    """A step on a batch of weight 0, so that no gradient is left."""
    mesh = make_mesh(jax.devices()[:1])
    shape = (chunk_steps(recipe), 1, 1, recipe.batch_size, recipe.model.seq_len)
    none = np.zeros(shape, np.int32)
    batch = {"inputs": none, "targets": none, "weight": none.astype(np.float32)}
    state = make_init(recipe, mesh)([1])
    before = jax.tree.map(lambda x: np.asarray(x[0]) + 0.5, jax.device_get(state.params))
    params = jax.tree.map(lambda x, b: jax.device_put(b[None], x.sharding), state.params, before)
    total, n = np.full(1, 10, np.float32), np.int32(1)
    after, _ = make_train_chunk(recipe, mesh)(state._replace(params=params), total, batch, n)
    rate = recipe.peak_lr  # a tenth of ten steps warms up
    for is_matrix, old, new in zip(
        *map(jax.tree.leaves, (models.matrices(recipe.model), before, after.params)), strict=True
    ):
        shrunk = old * (1 - rate * recipe.weight_decay) if is_matrix else old
        np.testing.assert_allclose(new[0], shrunk, rtol=1e-6)
        assert is_matrix == bool((np.asarray(new[0]) != old).any())


class Killed(Exception):
    pass


@pytest.mark.parametrize("reports", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(recipe, corpus, tmp_path, whole_run, reports):
    seen = []

    def interrupt(spec, progress):
        seen.append(progress)
        if len(seen) > reports:
            raise Killed

    with pytest.raises(Killed):
        train(trainer(recipe, corpus, tmp_path, checkpoint_seconds=0), SPEC, interrupt)
    continued = []
    run = train(trainer(recipe, corpus, tmp_path), SPEC, lambda s, p: continued.append(p))
    assert continued[0].tokens > seen[0].tokens, "it began again from the start"
    assert run.loss == whole_run.loss
    assert run.curve == whole_run.curve
    assert not list(tmp_path.iterdir()), "a finished run leaves no checkpoint"


def last_states(monkeypatch):
    """The list that the last state of each training gets into, as numpy arrays."""
    states = []

    def keep(self, group, position):
        states.append(jax.device_get(position.state))

    monkeypatch.setattr(Trainer, "_keep", keep)
    return states


def interrupted(reports):
    left = iter(range(reports))

    def interrupt(spec, progress):
        if next(left, None) is None:
            raise Killed

    return interrupt


def test_a_resumed_run_ends_in_the_same_state_bit_by_bit(recipe, corpus, tmp_path, monkeypatch):
    """Parameters and both moments of the optimiser, on a mesh that splits them."""
    states, mesh = last_states(monkeypatch), make_mesh(jax.devices()[:2], fsdp=2)
    train(Trainer(recipe, corpus, mesh, tmp_path / "whole", 1e9))
    with pytest.raises(Killed):
        train(Trainer(recipe, corpus, mesh, tmp_path, 0), SPEC, interrupted(1))
    train(Trainer(recipe, corpus, mesh, tmp_path, 1e9))
    whole, resumed = states
    assert len(jax.tree.leaves(whole)) > 3 * len(jax.tree.leaves(whole.params))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_checkpoint_passes_between_meshes(recipe, corpus, tmp_path, whole_run):
    """Rows split, then parameters, then heads: as on one device, but for summation order."""
    seen = []
    for fsdp, tensor in ((1, 1), (2, 1)):
        mesh = make_mesh(jax.devices()[:2], fsdp, tensor)
        with pytest.raises(Killed):
            train(Trainer(recipe, corpus, mesh, tmp_path, 0), SPEC, interrupted(1))
    last = Trainer(recipe, corpus, make_mesh(jax.devices()[:2], 1, 2), tmp_path, 1e9)
    run = train(last, SPEC, lambda spec, progress: seen.append(progress.tokens))
    assert seen[0] > whole_run.curve[0].tokens, "it began again from the start"
    for name, loss in whole_run.loss.items():
        assert run.loss[name] == pytest.approx(loss, abs=2e-3)


CURRICULUM = dataclasses.replace(
    SPEC,
    stages=(
        {"birds": 6000, "metals": 1000, "rivers": 1},
        {"birds": 0, "metals": 2000, "rivers": 3000},
    ),
)


def test_each_stage_of_a_curriculum_is_exact(recipe, corpus):
    """Counted over the order, which is what the run trains on."""
    member, length = Member(CURRICULUM, recipe, corpus, 1), recipe.model.seq_len
    order = order_of(corpus, CURRICULUM.stages, length, member.seed)
    domain_N, index_N = order.at(np.arange(len(order)))
    for s, stop in enumerate(order.starts[1:], start=1):
        for k, name in enumerate(order.names):
            asked = sum(stage[name] for stage in CURRICULUM.stages[:s])
            assert abs((domain_N[:stop] == k).sum() - asked / length) < 1
    streams = [corpus.train_tokens[name][:] for name in order.names]
    trained = np.concatenate([batch["inputs"] for batch in member.data])
    for row, k, i in zip(trained, domain_N, index_N, strict=False):
        assert (row == streams[k][i * length : (i + 1) * length]).all()
    counts = np.bincount(domain_N) * length
    assert member.tokens == dict(zip(order.names, counts.tolist(), strict=True))


def test_a_curriculum_trains_as_any_run_and_resumes_without_a_trace(
    recipe, corpus, tmp_path, whole_run
):
    seen, first = [], sum(CURRICULUM.stages[0].values())

    def interrupt(spec, progress):
        seen.append(progress.tokens)
        if progress.tokens > first:
            raise Killed

    whole = train(trainer(recipe, corpus, tmp_path / "whole"), CURRICULUM)
    assert whole.status == "ok" and whole.key != whole_run.key and whole.loss != whole_run.loss
    with pytest.raises(Killed):
        train(trainer(recipe, corpus, tmp_path, checkpoint_seconds=0), CURRICULUM, interrupt)
    continued = []
    run = train(trainer(recipe, corpus, tmp_path), CURRICULUM, lambda s, p: continued.append(p))
    assert continued[0].tokens > seen[0], "it began again from the start"
    assert (run.loss, run.curve, run.key) == (whole.loss, whole.curve, whole.key)


def test_half_deleted_checkpoints_are_never_restored(
    recipe, corpus, tmp_path, whole_run, monkeypatch
):
    """Killed while the checkpoints of a finished run are deleted: the run starts afresh."""

    delete = checkpoint.shutil.rmtree

    def killed(path):
        if not str(path).endswith(checkpoint.DONE):
            return delete(path)
        next(path.rglob("manifest.ocdbt")).unlink()
        raise Killed

    one = trainer(recipe, corpus, tmp_path, checkpoint_seconds=0)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
    with pytest.raises(Killed):
        train(one)
    monkeypatch.undo()
    checkpoint.sweep(tmp_path)  # as the next process does when it starts
    assert train(one).loss == whole_run.loss
    assert not list(tmp_path.iterdir())


def test_two_devices_train_as_one(recipe, corpus, tmp_path, whole_run):
    """Sums over the batch are taken in another order, so float32 curves drift by a little."""
    run = train(trainer(recipe, corpus, tmp_path, devices=2))
    for name, loss in whole_run.loss.items():
        assert run.loss[name] == pytest.approx(loss, abs=2e-3)
    first, same = whole_run.curve[0], run.curve[0]
    assert same.loss == pytest.approx(dict(first.loss), abs=2e-4)


def test_microbatches_weigh_tokens_not_rows(recipe, corpus, tmp_path, whole_run):
    """The last batch is partly filled: whole rows of weight 0 make a microbatch lighter."""
    split = dataclasses.replace(recipe, accumulation=4)
    run = train(trainer(split, corpus, tmp_path))
    assert run.key == whole_run.key, "rounding aside it is the same run"
    assert run.curve[0].loss == pytest.approx(dict(whole_run.curve[0].loss), abs=2e-4)
    assert run.loss == pytest.approx(dict(whole_run.loss), abs=2e-3)


def test_what_saves_memory_or_time_leaves_the_run_as_it_was(recipe):
    """Advice after an out-of-memory error trains no finished run again."""
    model = dataclasses.replace(recipe.model, remat="full", attention="xla")
    assert dataclasses.replace(recipe, model=model).identity() == recipe.identity()
    wider = dataclasses.replace(recipe.model, d_model=32)
    assert dataclasses.replace(recipe, model=wider).identity() != recipe.identity()


def test_attention_within_documents(recipe, corpus, tmp_path):
    """Another run. Without positions (wpe 0) its held-out losses are those of each stretch of a
    document alone."""
    model = dataclasses.replace(recipe.model, document_attention=True)
    spec = RunSpec({"birds": 600, "metals": 300, "rivers": 301}, seed=3)
    one = trainer(dataclasses.replace(recipe, model=model), corpus, tmp_path)
    run = train(one, spec)
    assert run.status == "ok"
    assert run.key != run_key(spec, recipe.identity(), corpus.fingerprint_of(spec.tokens))

    params = make_init(recipe, one.mesh)([1]).params
    params = params | {"wpe": jnp.zeros_like(params["wpe"])}
    (measured,) = one._evaluate(params)
    params = jax.tree.map(lambda x: x[0], params)
    token_losses = jax.jit(functools.partial(models.token_losses, recipe.model))
    for loss, (name, batch) in zip(measured, eval_batches(corpus, 16, 1).items(), strict=True):
        assert name in one._evaluate.names
        alone = {key: [] for key in batch}
        for r, inputs_L in enumerate(batch["inputs"][:, 0]):
            opens = np.flatnonzero(inputs_L == corpus.tokenizer.eos_id)
            for part_L in np.split(np.arange(16), opens):
                for key, x in batch.items():
                    stretch = x[r, 0, part_L]
                    alone[key].append(np.pad(stretch, (0, 16 - len(stretch))))
        inputs, targets, weight = (np.array(x) for x in alone.values())
        assert len(inputs) > len(batch["inputs"]), "some rows hold several documents"
        total = (token_losses(params, inputs, targets) * weight).sum()
        assert loss == pytest.approx(float(total) / weight.sum(), rel=1e-5)


@pytest.mark.parametrize("documents", [False, True])
def test_bert_is_evaluated_without_filler(documents, recipe, corpus):
    """The held-out loss has no gradient by the embedding of what fills the last row up."""
    filler, rows = corpus.vocab_size_of("mlm"), 2  # a token that no text has
    fields = dict(num_layers=1, d_model=16, num_heads=2, tie_embeddings=False)
    model = models.BertConfig(filler + 1, 30, document_attention=documents, **fields)
    params = models.init(model, jax.random.key(0))

    @jax.jit
    def by_filler(batch):
        def held_out(wte):
            own = dataclasses.replace(recipe, model=model)
            loss_BxL = losses_of(own, params | {"wte": wte}, batch)
            return (loss_BxL * batch["weight"]).sum()

        return jnp.abs(jax.grad(held_out)(params["wte"])[filler]).max()

    filled = 0
    for domain in eval_batches(corpus, 30, rows, "mlm", segments=documents).values():
        batch = {name: x[-1] for name, x in domain.items()}
        beyond_BxL = batch["segments"] < 0
        assert not batch["weight"][beyond_BxL].any()
        batch["inputs"] = np.where(beyond_BxL, filler, batch["inputs"])
        assert by_filler(batch) == 0
        partly_B = beyond_BxL.any(1) & (batch["weight"] > 0).any(1)
        if partly_B.any():
            filled += 1
            batch["segments"] = np.zeros_like(batch["segments"])
            assert by_filler(batch) > 0, "as the gradient would be if attention saw it"
    assert filled


def test_a_checkpoint_of_another_shape_is_refused(recipe, corpus, tmp_path, whole_run):
    """A folder that was copied from a study of another model: what differs is named."""

    def interrupt(spec, progress):
        if progress.tokens > 10_000:
            raise Killed

    with pytest.raises(Killed):
        train(trainer(recipe, corpus, tmp_path, checkpoint_seconds=0), SPEC, interrupt)
    wider = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, d_model=32))
    key = run_key(SPEC, wider.identity(), corpus.fingerprint)
    next(tmp_path.iterdir()).rename(tmp_path / key)
    with pytest.raises(
        BadInput, match=r"another shape: .*\['head'\] is .*16\), not .*32\); delete"
    ):
        train(trainer(wider, corpus, tmp_path))


def test_out_of_memory_is_one_line_with_remedies(recipe, corpus, tmp_path):
    """A real allocation that no machine grants: matrices of 2^20 by 2^22."""
    model = dataclasses.replace(recipe.model, d_model=2**20, num_heads=1, vocab_size=2**12)
    with pytest.raises(OSError, match=r"out of memory .*remat.*accumulation.*fsdp") as error:
        train(trainer(dataclasses.replace(recipe, model=model), corpus, tmp_path))
    assert "\n" not in str(error.value)


def test_a_diverged_run_is_a_row_with_its_reason(recipe, corpus, tmp_path):
    wild = dataclasses.replace(recipe, peak_lr=1e30)
    run = train(trainer(wild, corpus, tmp_path))
    assert run.status == "diverged"
    assert "not finite by step" in run.message
    assert not run.loss


def test_seeds_differ_and_repeat(recipe, corpus, tmp_path, whole_run):
    one = trainer(recipe, corpus, tmp_path)
    again = train(one)
    other = train(one, dataclasses.replace(SPEC, seed=4))
    assert again.loss == whole_run.loss and again.key == whole_run.key
    assert other.loss != whole_run.loss and other.key != whole_run.key


def test_runs_of_one_seed_share_initialisation_and_unchanged_domains(recipe, corpus, tmp_path):
    """Common random numbers: three times the birds, metals and rivers in the same order."""
    one = trainer(recipe, corpus, tmp_path)
    tripled = {"birds": 9600, "metals": 3200, "rivers": 3200}
    base = RunSpec(tripled | {"birds": 3200}, seed=3)
    changed, other = RunSpec(tripled, seed=3), RunSpec(dict(base.tokens), seed=4)

    def seed(spec):
        return Member(spec, recipe, corpus, 1).seed

    def first_weights(spec):
        leaves = jax.tree.leaves(make_init(recipe, one.mesh)([seed(spec)]).params)
        return np.concatenate([np.ravel(leaf) for leaf in leaves])

    def visits(spec):
        whole = order_of(corpus, spec.tokens, recipe.model.seq_len, seed(spec))
        domain_N, index_N = whole.at(np.arange(len(whole)))
        return [index_N[domain_N == k].tolist() for k in range(3)]

    np.testing.assert_array_equal(first_weights(base), first_weights(changed))
    assert visits(base)[1:] == visits(changed)[1:]
    assert visits(base)[0] == visits(changed)[0][:200]
    assert not np.array_equal(first_weights(base), first_weights(other))
    assert visits(base)[1] != visits(other)[1]
