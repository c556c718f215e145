"""Each field of a search that cannot be right is refused by name, value and remedy."""

import pytest

from autoscale_jax.config import default_config, validate
from autoscale_jax.specs import BadInput

SIZE = {"num_layers": 1, "d_model": 32, "num_heads": 2}


@pytest.fixture
def config():
    c = default_config()
    c.study.method = "mfms_bo"
    c.train.update({"schedule": "constant", "warmup_ratio": 0.0, "warmup_steps": 32})
    c.search.sizes = {"small": SIZE, "medium": SIZE | {"peak_lr": 1e-3, "batch_size": 8}}
    return c


def test_a_search_needs_no_budgets(config):
    config.study.budgets = ()
    validate(config)
    config.search.sizes = None  # the target's model alone
    validate(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.schedule", "linear", "continues its runs: use 'constant'"),
        ("train.warmup_steps", 160, "the shortest run ends at step 160; lower it"),
        ("search.sizes", {"target": SIZE}, "the config's own model"),
        ("search.sizes", {"small": {"num_layers": 1}}, "lacks d_model, num_heads"),
        ("search.sizes", {"small": SIZE | {"width": 3}}, "width = 3: no part of a size"),
        (
            "search.sizes",
            {"small": SIZE | {"d_model": 1.5}},
            "d_model = 1.5: must be a whole number",
        ),
        ("search.sizes", {"small": SIZE | {"peak_lr": 0}}, "peak_lr = 0: must be a number above 0"),
        ("search.sizes", {"small": SIZE | {"num_heads": 3}}, "must divide d_model = 32"),
        ("search.steps", (), "whole numbers of steps above 0"),
        ("search.steps", (0, 100), "whole numbers of steps above 0"),
        ("search.steps", (480, 160), "in increasing order"),
        ("search.budget", 0.0, "above 0"),
        ("search.batch", 0, "above 0"),
        ("search.acquisition", "magic", "value, paper"),
        ("study.target_tokens", 200, "less than one batch of 4 x 64"),
    ],
)
def test_bad_fields(config, field, value, message):
    group, name = field.split(".")
    config[group][name] = value
    with pytest.raises(BadInput) as error:
        validate(config)
    line = str(error.value)
    assert f"config.{field}" in line and message in line and "\n" not in line
