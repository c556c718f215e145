"""Weights that change while training: as exact as fixed ones, the same on any host and resume."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax.data import batches, supply
from autoscale_jax.data.mix import OBJECTIVES
from autoscale_jax.data.reweight import Drawn, Reweighted, draw
from autoscale_jax.specs import BadInput
from autoscale_jax.train.checkpoint import RunCheckpoint

simplex = st.lists(st.floats(0, 1), min_size=6, max_size=6).filter(lambda w: sum(w) > 0.01)


@given(st.lists(st.tuples(simplex, st.integers(1, 40)), min_size=1, max_size=15))
@settings(max_examples=60)
def test_any_prefix_is_what_the_weights_so_far_ask_for(history):
    drawn, asked_K = Drawn.nothing(6), np.zeros(6)
    behind = sum(1 / i for i in range(1, 6))
    for weights, n in history:
        weight_K = np.array(weights) / sum(weights)
        for _ in range(n):
            before = drawn.count_K
            drawn, domain, rank = draw(drawn, weight_K, 1)
            asked_K += weight_K
            assert rank[0] == before[domain[0]] and drawn.count_K.sum() == before.sum() + 1
            assert (drawn.count_K - asked_K < 1 + 1e-6).all()
            assert (asked_K - drawn.count_K < behind + 1e-6).all()


def test_draws_do_not_depend_on_how_they_are_cut_into_batches():
    weight_K = np.array([0.5, 0.2, 0.3])
    whole, domain_n, rank_n = draw(Drawn.nothing(3), weight_K, 50)
    drawn, parts = Drawn.nothing(3), []
    for n in (1, 7, 30, 12):
        drawn, domain, rank = draw(drawn, weight_K, n)
        parts.append(np.stack([domain, rank]))
    assert (np.concatenate(parts, axis=1) == np.stack([domain_n, rank_n])).all()
    assert all((a == b).all() for a, b in zip(whole, drawn, strict=True))


def moving(step: int) -> dict[str, float]:
    w = np.exp(np.sin(step + np.arange(3)))
    return dict(zip(["birds", "metals", "rivers"], w / w.sum(), strict=True))


def run(corpus, drawn, steps, objective="causal", **options):
    """What is drawn after `steps`, and their batches."""
    data, out = Reweighted(corpus, sorted(moving(0)), 16, 8, 7, objective, **options), []
    for step in steps:
        drawn, batch = data.batch(drawn, moving(step))
        out.append(batch)
    return drawn, out


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_batches_are_shared_among_hosts(corpus, objective, hosts):
    options = {"objective": objective, "segments": True}
    drawn, whole = run(corpus, Drawn.nothing(3), range(12), **options)
    parts = [
        run(corpus, Drawn.nothing(3), range(12), host=h, hosts=hosts, **options)
        for h in range(hosts)
    ]
    for own, _ in parts:
        assert all((a == b).all() for a, b in zip(own, drawn, strict=True))
    for i, batch in enumerate(whole):
        assert set(batch) == {"inputs", "targets", "weight", "segments"}
        for key, array in batch.items():
            shares = [share[i][key] for _, share in parts]
            assert len(array) == 8 and (np.concatenate(shares) == array).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_what_was_drawn_is_saved_by_orbax_and_continues(corpus, tmp_path, objective, hosts):
    """With the model, as training saves it; on another number of hosts than before."""
    _, whole = run(corpus, Drawn.nothing(3), range(12), objective)
    middle, _ = run(corpus, Drawn.nothing(3), range(5), objective, host=1, hosts=2)
    saved = RunCheckpoint(tmp_path, ["run"])
    saved.save(5, (jnp.arange(3.0), middle))
    saved.close(delete=False)
    restored = RunCheckpoint(tmp_path, ["run"])
    _, drawn = restored.restore((jnp.zeros(3), Drawn.nothing(3)))
    restored.close(delete=False)
    assert all(x.dtype == np.int64 for x in drawn)
    assert all((a == b).all() for a, b in zip(drawn, middle, strict=True))
    assert drawn.asked_K.max() > 2**32, "more than 32 bits hold"
    parts = [
        run(corpus, drawn, range(5, 12), objective, host=h, hosts=hosts)[1] for h in range(hosts)
    ]
    for i in range(7):
        for key, array in whole[5 + i].items():
            assert (np.concatenate([part[i][key] for part in parts]) == array).all()


def test_documents_are_counted_as_in_a_fixed_mixture(corpus):
    data = Reweighted(corpus, ["birds", "metals"], 16, 4, 7, segments=True)
    _, batch = data.batch(data.start(), {"birds": 1.0, "metals": 0.0})
    fixed = batches(corpus, {"birds": 64, "metals": 0}, 16, 4, 7, segments=True)[0]
    assert set(batch) == set(fixed) and all((batch[key] == fixed[key]).all() for key in fixed)


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_what_is_realised_is_told_and_limited(corpus, max_epochs):
    available = supply(corpus, 16)["metals"]
    data = Reweighted(corpus, ["birds", "metals"], 16, 1, 7, max_epochs=max_epochs)
    drawn, weights = data.start(), {"birds": 0.0, "metals": 1.0}
    for _ in range(max_epochs * available):
        drawn, _ = data.batch(drawn, weights)
    tokens, epochs = data.realised(drawn)
    assert tokens == {"birds": 0, "metals": max_epochs * available * 16}
    assert epochs == {"birds": 0.0, "metals": max_epochs}
    message = rf"tokens\['metals'\] = .*max_epochs = {max_epochs}; raise max_epochs to {max_epochs}"
    with pytest.raises(BadInput, match=message) as error:
        data.batch(drawn, weights)
    assert "\n" not in str(error.value)
    after, _ = data.batch(drawn, {"birds": 1.0, "metals": 0.0})  # other weights go on
    assert data.realised(after)[0] == tokens | {"birds": 16}
    free = Reweighted(corpus, ["birds", "metals"], 16, 1, 7)
    free.batch(drawn, weights)


def test_the_sequences_are_those_of_a_fixed_mixture(corpus):
    """Nested: what a domain gives does not depend on when it is asked."""
    data = Reweighted(corpus, ["birds", "metals"], 16, 4, 7)
    drawn, seen = data.start(), []
    for _ in range(10):
        drawn, batch = data.batch(drawn, {"birds": 1.0, "metals": 0.0})
        seen += batch["inputs"].tolist()
    fixed = batches(corpus, {"birds": 640, "metals": 0}, 16, 4, 7)
    assert seen == [row for batch in fixed for row in batch["inputs"].tolist()]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"birds": 1.0}, r"weights = .*: give 0 or more for \['birds', 'metals'\]"),
        ({"birds": 1.2, "metals": -0.2}, r"give 0 or more for"),
        ({"birds": float("nan"), "metals": 1.0}, r"give 0 or more for"),
        ({"birds": 0.5, "metals": 0.4}, r"weights sum to 0.9: divide them"),
    ],
)
def test_weights_that_are_no_mixture_are_refused(corpus, weights, message):
    data = Reweighted(corpus, ["birds", "metals"], 16, 4, 7)
    with pytest.raises(BadInput, match=message):
        data.batch(data.start(), weights)


def test_domains_and_batches_that_cannot_be_are_refused(corpus):
    with pytest.raises(BadInput, match="'fish' is not in the corpus"):
        Reweighted(corpus, ["fish"], 16, 4, 7)
    with pytest.raises(BadInput, match="fills no sequence of seq_len = 1000000"):
        Reweighted(corpus, ["birds"], 1_000_000, 4, 7)
    with pytest.raises(BadInput, match="batch_size = 4: give 1 or more, a multiple of the 3 hosts"):
        Reweighted(corpus, ["birds"], 16, 4, 7, hosts=3)
