"""Each field that cannot be right is refused by name, value and remedy."""

from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from autoscale_jax.config import check_domains, default_config, from_flags, validate
from autoscale_jax.specs import BadInput


def test_the_defaults_are_valid():
    validate(default_config())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("study.budgets", (320_000,), "at least two"),
        ("study.budgets", (80_000, 80_000), "two are equal"),
        ("study.budgets", (320_000, 80_000), "increasing order"),
        ("study.budgets", (0, 80_000), "whole number of tokens above 0"),
        ("study.target_tokens", 300_000, "at least the largest proxy budget, 320000"),
        ("study.factor", 1.0, "above 1"),
        ("study.objective", "loss", "mean_perplexity, mean_loss"),
        ("study.method", "magic", "auto, autoscale"),
        ("study.eval_weights", {"code": -1.0}, "0 or more"),
        ("study.eval_weights", {"code": 0.0}, "at least one must be above 0"),
        ("study.max_epochs", 0.0, "above 0"),
        ("study.match_repetition", None, "use one of False, True"),
        ("verify.mixtures", ("uniform", "best"), "uniform, natural"),
        ("verify.seeds", -1, "0 (no verification)"),
        ("train.batch_size", 0, "above 0"),
        ("train.batch_size", 2000, "80000 tokens does not fill one batch of 2000 x 64"),
        ("train.warmup_ratio", 1.0, "below 1"),
        ("train.warmup_steps", 3000, "set it or warmup_ratio = 0.1 to 0"),
        ("train.accumulation", 0, "above 0"),
        ("mesh.fsdp", 0, "above 0"),
        ("mesh.tensor", 8, "must divide config.model.num_heads = 4"),
        ("execute.population", -1, "0 (measured)"),
        ("model.num_heads", 3, "divide d_model = 64"),
        ("model.dtype", "float16", "use one of float32, bfloat16"),
        ("model.name", "llama", "use one of gpt2, bert"),
        ("model.remat", "some", "use one of none, dots, full"),
        ("model.document_attention", None, "use one of False, True"),
        ("model.attention", "flash", "use one of auto, xla, cudnn, splash"),
        ("model.attention", "cudnn", "needs model.dtype = 'bfloat16', not 'float32'"),
        ("model.seq_len", -4, "above 0"),
        ("execute.slots", 0, "above 0"),
        ("execute.keep_models", None, "use one of False, True"),
    ],
)
def test_bad_fields(field, value, message):
    config = default_config()
    group, name = field.split(".")
    config[group][name] = value
    with pytest.raises(BadInput) as error:
        validate(config)
    line = str(error.value)
    assert f"config.{field} = " in line
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("rows", "micro", "fsdp", "message"),
    [
        (6, 4, 1, "4 x 1, train.accumulation times mesh.fsdp; use 4 or 8"),
        (80, 5, 32, "5 x 32, train.accumulation times mesh.fsdp; use 160"),
        (100, 2, 8, "2 x 8, train.accumulation times mesh.fsdp; use 96 or 112"),
    ],
)
def test_rows_that_no_mesh_could_share_name_those_that_it_could(rows, micro, fsdp, message):
    config = default_config()
    config.train.update({"batch_size": rows, "accumulation": micro})
    config.mesh.fsdp = fsdp
    line = f"config.train.batch_size = {rows}: must be a multiple of {message}"
    with pytest.raises(BadInput, match=line):
        validate(config)


def test_fields_that_need_the_domains():
    config = default_config()
    config.study.eval_weights = {"code": 1.0, "poems": 1.0}
    with pytest.raises(
        BadInput, match=r"config.study.eval_weights = 'poems': no such .* code, docs"
    ):
        check_domains(config, ("code", "docs"))
    config = default_config()
    config.study.floor = 0.5
    with pytest.raises(BadInput, match=r"config.study.floor = 0.5: .* below 1/2"):
        check_domains(config, ("code", "docs"))


def test_a_search_has_no_budgets_whose_repetition_could_match():
    config = default_config()
    config.study.match_repetition = True
    validate(config)
    config.study.method = "mfms_bo"
    with pytest.raises(BadInput, match=r"study.match_repetition = True: .*'mfms_bo'.*to False"):
        validate(config)


def test_ddo_takes_the_one_budget_that_is_the_target():
    config = default_config()
    config.study.method = "ddo"
    with pytest.raises(BadInput, match=r"study.budgets = .* 'ddo' takes one, the target"):
        validate(config)
    config.study.update({"budgets": (80_000,), "target_tokens": 80_000})
    validate(config)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("uniform", {"code": 1.0}, "the name is taken"),
        ("llama", {"code": 0.5, "docs": 0.4}, "sums to 0.9"),
        ("llama", {"code": 1.5, "docs": -0.5}, "0 or more"),
        ("llama", {"code": 1.0}, "a weight to each of code, docs"),
        ("llama", "uniform", "give {domain: weight}, or the stages of a curriculum"),
        ("llama", 0.5, "give {domain: weight}, or the stages of a curriculum"),
    ],
)
def test_further_mixtures_to_verify(name, weights, message):
    assert f"config.verify.extra.{name} = " in refused({name: weights}, message)


HALF = {"code": 0.5, "docs": 0.5}


def of_two(share=0.2, weights=HALF, **more):
    """A curriculum whose first stage is right."""
    return ({"share": 0.8, "weights": HALF}, {"share": share, "weights": weights} | more)


@pytest.mark.parametrize(
    ("stages", "where", "message"),
    [
        ((), "", "a curriculum has two stages or more"),
        (of_two()[:1], "", "a curriculum has two stages or more; else give {domain: weight}"),
        (of_two(share=0.3), "", "its shares sum to 1.1, not to 1"),
        (of_two(share=0.0), "[1].share", "must be a number above 0"),
        (of_two(share="a fifth"), "[1].share", "must be a number above 0"),
        (of_two(part=0.2), "[1]", "a stage is {'share': 0.2, 'weights': {...}}"),
        ((HALF, HALF), "[0]", "a stage is {'share': 0.2, 'weights': {...}}"),
        (of_two(weights=0.5), "[1].weights", "give {domain: weight}"),
        (of_two(weights={"code": 1.5, "docs": -0.5}), "[1].weights", "must be numbers, 0 or more"),
        (of_two(weights={"code": 0.5, "docs": 0.4}), "[1].weights", "sums to 0.9, not to 1"),
        (of_two(weights={"code": 1.0}), "[1].weights", "a weight to each of code, docs and to no"),
        (
            ({"share": 1 - 2e-5, "weights": HALF}, {"share": 2e-5, "weights": HALF}),
            "[1].share",
            "is 25 tokens, less than one sequence of 64; raise it",
        ),
    ],
)
def test_curricula_to_verify(stages, where, message):
    for given in (tuple(stages), list(stages)):
        assert f"config.verify.extra.hard last{where} = " in refused({"hard last": given}, message)


def test_a_curriculum_is_valid():
    config = default_config()
    config.verify.extra = {"hard last": of_two(), "llama": HALF}
    validate(config)
    check_domains(config, ("code", "docs"))


def test_a_curriculum_is_a_flag():
    first, last = {"code": 0.3, "docs": 0.7}, {"code": 1.0, "docs": 0.0}
    stages = ({"share": 0.8, "weights": first}, {"share": 0.2, "weights": last})
    file = Path(__file__).parent.parent / "configs" / "quickstart.py"
    extra = {"code last": stages, "llama": HALF}
    argv = ["launch", f"--config={file}", f"--config.verify.extra={extra}"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    config = from_flags(values, argv)
    assert config.verify.extra == extra
    validate(config)
    check_domains(config, ("code", "docs"))


def test_further_mixtures_have_names():
    assert "config.verify.extra = " in refused([HALF], "give {name: {domain: weight}}")


def refused(extra, message):
    """The line with which `verify.extra` is refused."""
    config = default_config()
    config.study.floor = 0.0
    config.verify.extra = extra
    with pytest.raises(BadInput) as error:
        validate(config)
        check_domains(config, ("code", "docs"))
    line = str(error.value)
    assert message in line and "\n" not in line
    return line
