"""Weights that change while training: as exact as fixed ones, the same on any host and resume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscale_jax.data import batches
from autoscale_jax.data.reweight import Drawn, Reweighted, draw
from autoscale_jax.specs import BadInput

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


def test_batches_resume_and_are_shared_among_hosts(corpus):
    names = sorted(moving(0))

    def run(drawn, steps, **hosts):
        data, out = Reweighted(corpus, names, 16, 4, 7, **hosts), []
        for step in steps:
            drawn, batch = data.batch(drawn, moving(step))
            out.append(batch)
        return drawn, out

    start = Reweighted(corpus, names, 16, 4, 7).start()
    _, whole = run(start, range(12))
    middle, _ = run(start, range(5))
    _, rest = run(Drawn(*(np.array(x.tolist()) for x in middle)), range(5, 12))
    halves = [run(start, range(12), host=h, hosts=2)[1] for h in (0, 1)]
    for i, batch in enumerate(whole):
        for key, array in batch.items():
            assert i < 5 or (rest[i - 5][key] == array).all()
            assert (np.concatenate([half[i][key] for half in halves]) == array).all()


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
