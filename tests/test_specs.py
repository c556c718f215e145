"""The nouns: identity of specs and keys, and exact integer token splits."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscale_jax.specs import BadInput, Run, RunSpec, run_key, split_tokens


def test_spec_identity_is_tokens_and_seed():
    one = RunSpec({"b": 2, "a": np.int64(1)}, seed=3, label="x")
    two = RunSpec({"a": 1, "b": 2}, seed=3, label="y")
    assert one == two and hash(one) == hash(two)
    assert list(one.tokens) == ["a", "b"] and type(one.tokens["a"]) is int
    assert one.total == 3 and one.weights == {"a": 1 / 3, "b": 2 / 3}
    assert one != RunSpec({"a": 1, "b": 2}, seed=4)
    assert one != RunSpec({"a": 2, "b": 1}, seed=3)
    assert one != "a spec"


def test_a_pool_is_part_of_the_identity_and_one_without_is_as_it_was():
    plain = RunSpec({"a": 10, "b": 20})
    one = RunSpec({"a": 10, "b": 20}, pool={"b": np.int64(4), "a": 2}, label="x")
    two = RunSpec({"b": 20, "a": 10}, pool={"a": 2, "b": 4})
    assert one == two and hash(one) == hash(two) and list(one.pool) == ["a", "b"]
    assert one != plain and one != RunSpec({"a": 10, "b": 20}, pool={"a": 2})
    assert plain.identity() == {"tokens": {"a": 10, "b": 20}, "seed": 0}
    assert RunSpec(**one.identity()) == one
    assert run_key(one, {}, "data") != run_key(plain, {}, "data")


def test_a_pool_is_whole_tokens_of_the_runs_domains():
    with pytest.raises(BadInput, match=r"pool\['a'\] = 1.5: give a whole number"):
        RunSpec({"a": 5}, pool={"a": 1.5})
    with pytest.raises(BadInput, match=r"pool\['b'\] = 3: tokens names no such domain; leave"):
        RunSpec({"a": 5}, pool={"b": 3})


def test_stages_are_part_of_the_identity_and_a_run_without_is_as_it_was():
    plain = RunSpec({"a": 10, "b": 20})
    one = RunSpec({"a": 10, "b": 20}, stages=({"b": np.int64(15)}, {"b": 5, "a": 10}), label="x")
    two = RunSpec({"b": 20, "a": 10}, stages=[{"a": 0, "b": 15}, {"a": 10, "b": 5}])
    assert one == two and hash(one) == hash(two)
    assert one.stages == ({"a": 0, "b": 15}, {"a": 10, "b": 5}) == one.mixtures
    assert [list(stage) for stage in one.stages] == [["a", "b"]] * 2
    assert one.total == 30 and one.weights == plain.weights
    back = RunSpec({"a": 10, "b": 20}, stages=one.stages[::-1])
    assert len({plain, one, back}) == 3
    assert len({run_key(spec, {}, "data") for spec in (plain, one, back)}) == 3
    assert plain.identity() == {"tokens": {"a": 10, "b": 20}, "seed": 0}
    assert plain.mixtures == (plain.tokens,)
    assert RunSpec(**json.loads(json.dumps(one.identity()))) == one


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"a": 5, "b": 1.5}, {"b": 5}], r"stages\[0\]\['b'\] = 1.5: give a whole number"),
        ([{"a": 5, "b": 5}], r"stages = .*: a curriculum has two or more; leave it out"),
        ([{"a": 5, "b": 5}, {"a": 0}], r"stages\[1\] = .*: has no tokens; leave the stage out"),
        ([{"a": 5}, {"b": 4}], r"stages sum to {'a': 5, 'b': 4} and tokens = {'a': 5, 'b': 5}: m"),
        ([{"a": 5}, {"b": 5, "c": 0}], r"'c': 0} and tokens = {'a': 5, 'b': 5}: make them agree"),
    ],
)
def test_stages_are_two_or_more_that_sum_to_the_tokens(stages, message):
    with pytest.raises(BadInput, match=message) as error:
        RunSpec({"a": 5, "b": 5}, stages=stages)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [-1, 1.5, "3", True, None, math.nan])
def test_tokens_are_whole_numbers(bad):
    with pytest.raises(BadInput, match=r"tokens\['a'\] = .*whole number"):
        RunSpec({"a": bad, "b": 5})


@pytest.mark.parametrize("tokens", [{}, {"a": 0}])
def test_a_run_needs_tokens(tokens):
    with pytest.raises(BadInput, match="needs tokens"):
        RunSpec(tokens)


def test_perplexity_and_frozen():
    run = Run(RunSpec({"a": 1}), "k", "ok", {"a": math.log(7.0)}, {}, {})
    assert run.perplexity == pytest.approx({"a": 7.0})
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.status = "failed"


def test_run_key_covers_spec_recipe_and_data_but_no_label():
    spec = RunSpec({"a": 1, "b": 2})
    key = run_key(spec, {"lr": 1e-3, "layers": 2}, "data")
    assert len(key) == 16 and int(key, 16) >= 0
    assert key == run_key(RunSpec({"b": 2, "a": 1}, label="x"), {"layers": 2, "lr": 1e-3}, "data")
    others = {
        run_key(RunSpec({"a": 2, "b": 1}), {"lr": 1e-3, "layers": 2}, "data"),
        run_key(RunSpec({"a": 1, "b": 2}, seed=1), {"lr": 1e-3, "layers": 2}, "data"),
        run_key(spec, {"lr": 2e-3, "layers": 2}, "data"),
        run_key(spec, {"lr": 1e-3, "layers": 2}, "other"),
    }
    assert len(others | {key}) == 5


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=12).filter(any),
    st.integers(1, 10**12),
)
def test_split_is_exact_and_within_one_token(parts, total):
    weights = {f"d{i}": x / sum(parts) for i, x in enumerate(parts)}
    tokens = split_tokens(weights, total)
    assert sum(tokens.values()) == total
    assert all(abs(tokens[d] - weights[d] * total) <= 1 + 1e-3 for d in weights)
    assert all(tokens[d] == 0 for d in weights if weights[d] == 0)


def test_split_gives_the_rest_to_the_largest_remainders():
    assert split_tokens({"a": 0.5, "b": 0.3, "c": 0.2}, 11) == {"a": 6, "b": 3, "c": 2}
    assert split_tokens({"b": 0.5, "a": 0.5}, 3) == {"b": 1, "a": 2}  # ties by name


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        ({"a": -0.1, "b": 1.1}, r"weights\['a'\] = -0.1"),
        ({"a": math.nan, "b": 1.0}, r"weights\['a'\] = nan"),
        ({"a": math.inf}, r"weights\['a'\] = inf"),
        ({"a": 0.5, "b": 0.4}, "sum to 0.9"),
        ({}, "sum to 0"),
    ],
)
def test_split_refuses_what_is_no_mixture(weights, word):
    with pytest.raises(BadInput, match=word):
        split_tokens(weights, 100)
