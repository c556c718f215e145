"""Random mixtures, corners and lattices of spaces with floors and caps."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoscale_jax.methods.mixtures import draws, lattice, vertices, within
from autoscale_jax.methods.space import Size, Space
from autoscale_jax.specs import BadInput


def space_of(lower_K, upper_K):
    names = tuple(f"d{i:02}" for i in range(len(lower_K)))
    return Space(names, (Size("", 1e6, 1.0, 1000),), (1,), 1, tuple(lower_K), tuple(upper_K))


@st.composite
def bounded(draw):
    """A space of 2 to 5 domains with floors and caps that some mixtures keep."""
    k = draw(st.integers(2, 5))
    some_K = np.array(draw(st.lists(st.floats(0.05, 1), min_size=k, max_size=k)))
    some_K /= some_K.sum()
    down_K, up_K = (
        np.array(draw(st.lists(st.floats(0, 1), min_size=k, max_size=k))) for _ in range(2)
    )
    assume((some_K + (1 - some_K) * up_K).sum() >= 1)  # rounded below
    return space_of(some_K * down_K, some_K + (1 - some_K) * up_K)


def brute_vertices(space):
    """Every choice of ends for all weights but one."""
    k, found = len(space.domains), set()
    for free in range(k):
        for ends in itertools.product(*zip(space.lower_K, space.upper_K, strict=True)):
            corner_K = np.array(ends)
            corner_K[free] = 1 - (corner_K.sum() - corner_K[free])
            if within(space, corner_K[None])[0]:
                found.add(tuple(np.round(corner_K, 8) + 0.0))
    return found


@given(bounded())
def test_vertices_are_all_of_them(space):
    corner_VxK = vertices(space)
    np.testing.assert_allclose(corner_VxK.sum(1), 1)
    assert within(space, corner_VxK).all()
    assert {tuple(np.round(c_K, 8) + 0.0) for c_K in corner_VxK} == brute_vertices(space)


def test_vertices_of_many_domains_are_quick():
    assert np.array_equal(vertices(space_of([0] * 25, [1] * 25)), np.eye(25))
    assert len(vertices(space_of([0] * 12, [0.5] * 12))) == 12 * 11 / 2


def test_draws_are_uniform_on_what_is_allowed():
    """Of the capped simplex: the mean is the middle, and halving it halves the count."""
    space = space_of([0.1, 0, 0], [0.5, 1, 1])
    drawn_QxK = np.array(list(itertools.islice(draws(space, "dirichlet", 0), 20_000)))
    assert within(space, drawn_QxK).all()
    # area of {w_0 >= t} is proportional to (1 - t)^2, between .1 and .5
    expected = ((1 - 0.3) ** 2 - 0.25) / (0.9**2 - 0.25)
    assert abs((drawn_QxK[:, 0] > 0.3).mean() - expected) < 0.015
    assert abs(drawn_QxK[:, 1].mean() - drawn_QxK[:, 2].mean()) < 0.01


def test_logits_are_the_authors_sampler():
    drawn_QxK = np.array(
        list(itertools.islice(draws(space_of([0] * 5, [1] * 5), "logits", 0), 999))
    )
    spread_Q = np.log(drawn_QxK.max(1) / drawn_QxK.min(1))
    assert spread_Q.max() <= 6 and spread_Q.mean() == pytest.approx(
        4, abs=0.1
    )  # range of 5 uniforms


@pytest.mark.parametrize("sampler", ["dirichlet", "logits"])
def test_draws_do_not_depend_on_how_many(sampler):
    space = space_of([0] * 3, [0.5] * 3)
    many = list(itertools.islice(draws(space, sampler, 4), 500))
    np.testing.assert_array_equal(list(itertools.islice(draws(space, sampler, 4), 9)), many[:9])
    assert not np.array_equal(next(draws(space, sampler, 5)), many[0])


def test_fixed_weights_stay_fixed():
    space = space_of([0.25, 0, 0], [0.25, 1, 1])
    assert next(draws(space, "dirichlet", 0))[0] == 0.25
    with pytest.raises(BadInput, match="leave a random mixture no room: widen them"):
        next(draws(space_of([0, 0], [0.5, 0.5]), "dirichlet", 0))


@pytest.mark.parametrize(("parts", "upper", "count"), [(1, 1, 5), (4, 1, 70), (4, 0.5, 45)])
def test_lattice_holds_every_multiple(parts, upper, count):
    points = np.array(list(lattice(space_of([0] * 5, [upper] * 5), parts)))
    assert len(points) == len(np.unique(points, axis=0)) == count
    np.testing.assert_allclose(points * parts, np.round(points * parts), atol=1e-12)
    np.testing.assert_allclose(points.sum(1), 1)
