"""De-duplication and the draw of held-out samples, against what they promise, by brute force."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoscale_jax.data.split import split
from autoscale_jax.specs import BadInput

bits = st.integers(0, 60).map(lambda x: x * 2**58)  # few values, over the whole range
units = st.lists(st.lists(bits, max_size=30), min_size=1, max_size=3)


def readers(samples):
    return {name: [lambda u=u: u for u in units] for name, units in samples.items()}


@given(
    st.lists(units, min_size=2, max_size=3),
    st.sampled_from([0.1, 0.5, 1, 2, 5]),
    st.integers(1, 40),
)
@example(  # the next lowest after the held-out ones lies in the second unit of a later part
    [
        [[0, *(x * 2**58 for x in (6, 7, 8, 9, 10))]],
        [[5 * 2**58, 26 * 2**58], [x * 2**58 for x in (1, 2, 3, 4, 25)]],
    ],
    5,
    1,
)
def test_every_sample_stays_once_and_the_lowest_are_held_out(values, held_out, at_once):
    samples = {
        f"d{k}": [np.array(unit, np.uint64) for unit in of_domain]
        for k, of_domain in enumerate(values)
    }
    seen, kept = set(), {}
    for name in sorted(samples):
        kept[name] = []
        for unit in samples[name]:
            for u in unit.tolist():
                if u not in seen:
                    seen.add(u)
                    kept[name].append(u)
    need = 2 if held_out < 1 else held_out + 1
    try:
        out = split(readers(samples), held_out, at_once)
    except BadInput as e:
        few = [name for name in samples if len(kept[name]) < need]
        assert any(repr(name) in str(e) for name in few) or "a side of nothing" in str(e)
        return
    for name in samples:
        of_domain = out[name]
        chosen = [
            u
            for unit, keep in zip(samples[name], of_domain.keep, strict=True)
            for u in unit[keep].tolist()
        ]
        assert sorted(chosen) == sorted(kept[name])
        low = sorted(u for u in chosen if u < of_domain.threshold)
        assert low == sorted(chosen)[: len(low)] and len(low) == of_domain.held_out
        assert of_domain.train == len(chosen) - len(low) >= 1
        if held_out >= 1:
            assert len(low) == held_out
        else:
            share = sum(u < held_out * 2**64 for u in chosen)
            assert len(low) == min(max(share, 1), len(chosen) - 1)


def test_the_digest_changes_with_any_fate():
    a = {"a": [np.arange(1, 9, dtype=np.uint64)], "b": [np.arange(20, 29, dtype=np.uint64)]}
    first = split(readers(a), 2)
    shared = {**a, "a": [np.array([1, 2, 3, 4, 5, 6, 7, 25], np.uint64)]}
    assert split(readers(shared), 2)["b"].digest() != first["b"].digest()
    more = {**a, "a": [np.arange(1, 10, dtype=np.uint64)]}
    assert split(readers(more), 2)["b"].digest() == first["b"].digest()
    with pytest.raises(BadInput, match="domain 'a': 8 distinct documents of 8 remain"):
        split(readers(a), 8)
