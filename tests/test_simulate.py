"""The MFMS-BO simulator against its authors' recorded outputs, search and cost table."""

import csv
import dataclasses
import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from autoscale_jax.methods.mixtures import draws, vertices
from autoscale_jax.methods.space import Trial, observations
from autoscale_jax.simulate import STEP_TOKENS, Simulator
from autoscale_jax.specs import BadInput, RunSpec

DATA = Path(__file__).parents[1] / "../shared/data/mfms"
AUTHORS = ("wikipedia", "stack_exchange", "github", "arxiv", "book")  # their order of domains
UNIT = 825687276.3097087  # FLOPs of 100 steps at 1B: the cost table's first row


@pytest.fixture(scope="module")
def simulator():
    if not DATA.exists():
        pytest.skip("../shared/data/mfms is not there")
    return Simulator.load(DATA)


@pytest.fixture(scope="module")
def expected(simulator):
    """Rows of expected.csv: weights by the sorted names, size's name, steps, metrics minimised."""
    with (DATA / "expected.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        million = int(row["model_size_m"])
        metrics = [float(v) for v in list(row.values())[7:]]
        value_M = [*metrics[:8], *(1 - accuracy for accuracy in metrics[8:])]
        row["size"] = "1B" if million == 1000 else f"{million}M"
        row["weights_K"] = np.array([float(row[name]) for name in sorted(AUTHORS)])
        row["value_M"] = np.array(value_M)
    return rows


def test_equals_the_authors_network(simulator, expected):
    space = simulator.space()
    for row in expected:
        steps = int(row["training_steps"])
        trial = Trial(row["weights_K"], space.index[row["size"]], steps)
        (run,) = simulator([space.spec(trial)])
        assert list(run.loss) == list(simulator.metrics)
        np.testing.assert_allclose(list(run.loss.values()), row["value_M"], atol=1e-4)
        by_predict = simulator.predict(row["weights_K"][None], row["size"], steps)[0]
        np.testing.assert_allclose(by_predict, row["value_M"], atol=1e-5)


def test_many_specs_at_once_are_the_same_runs(simulator, expected):
    space = simulator.space()
    specs = [
        space.spec(Trial(r["weights_K"], space.index[r["size"]], int(r["training_steps"])))
        for r in expected
    ]
    for spec, run in zip(specs, simulator(specs), strict=True):
        (alone,) = simulator([spec])
        assert run.spec is spec and run.key == alone.key
        np.testing.assert_allclose(list(run.loss.values()), list(alone.loss.values()), rtol=1e-6)


def test_the_authors_recorded_random_search(simulator):
    best = []
    for seed in (41, 38, 37, 36, 35):
        logits_QxK = np.random.RandomState(seed).uniform(-3, 3, (82, 5))
        weights_QxK = np.exp(logits_QxK) / np.exp(logits_QxK).sum(1, keepdims=True)
        weights_QxK = weights_QxK[:, [AUTHORS.index(name) for name in simulator.domains]]
        best.append(simulator.predict(weights_QxK, "1B", 19_600).min(0))
    losses = [2.2939, 1.3273, 0.8753, 0.8194, 0.5446, 1.3453, 2.3013]  # CommonCrawl to Book
    np.testing.assert_array_equal(np.mean(best, 0)[1:8].round(4), losses)


def test_costs_are_the_table(simulator):
    space = simulator.space()
    with (DATA / "flops_dataset.csv").open() as file:
        rows = [
            (r["model_size"], float(r["step"]), float(r["flops"])) for r in csv.DictReader(file)
        ]
    assert len(rows) == 7 * 195
    for name, steps, flops in rows:
        assert space.flops(space.index[name], steps) == pytest.approx(flops, rel=1e-12)
    even_K = np.full(5, 0.2)
    (run,) = simulator([space.spec(Trial(even_K, 6, 19_500))])
    assert run.flops == pytest.approx(195 * UNIT)


def test_a_curve_is_the_shorter_trainings(simulator):
    space = simulator.space()
    weights_K = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
    (run,) = simulator([space.spec(Trial(weights_K, 2, 6500))])
    assert [point.tokens // STEP_TOKENS for point in run.curve] == [1600, 3200, 4900]
    for point in run.curve:
        alone = simulator.predict(weights_K[None], "150M", point.tokens // STEP_TOKENS)[0]
        np.testing.assert_allclose(list(point.loss.values()), alone, atol=1e-6)
    (shortest,) = simulator([space.spec(Trial(weights_K, 2, 100))])
    assert shortest.curve == ()
    one = dataclasses.replace(simulator, shares=(0.25,))
    seen = observations(one([run.spec]), space, lambda loss: loss["c4"], curve_at=(0.25,))
    assert seen.steps_R.tolist() == [6500, 1600]


@pytest.mark.parametrize("upper", [1.0, 0.5])
def test_optimum_beats_corners_and_chance(simulator, upper):
    space = simulator.space(upper=upper)
    for column in (1, 8):  # CommonCrawl, HellaSwag
        best_K, value = simulator.optimum(space, lambda metrics, c=column: metrics[:, c])
        others_QxK = np.array(list(islice(draws(space, "dirichlet", 9), 5000)))
        others_QxK = np.concatenate([others_QxK, vertices(space)])
        assert value <= simulator.predict(others_QxK, "1B", 19_500)[:, column].min()
        assert best_K.max() <= upper + 1e-9 and best_K.sum() == pytest.approx(1)


def test_bad_input(simulator, tmp_path):
    even = dict.fromkeys(simulator.domains, 100 * STEP_TOKENS // 5)
    with pytest.raises(BadInput, match="size = '2B': not in the cost table: use one of 20M"):
        list(simulator([RunSpec(even, size="2B")]))
    with pytest.raises(BadInput, match="size = '2B'"):
        simulator.predict(np.full((1, 5), 0.2), "2B", 100)
    for times in (0.5, 200):
        spec = RunSpec({name: int(n * times) for name, n in even.items()}, size="1B")
        with pytest.raises(BadInput, match="ask for 100 to 19,500 steps"):
            list(simulator([spec]))
    with pytest.raises(BadInput, match="simulator's domains are arxiv"):
        list(simulator([RunSpec({"arxiv": 10**8}, size="1B")]))
    with pytest.raises(BadInput, match=r"no simulator[.]json there"):
        Simulator.load(tmp_path)
    for name in ("simulator.json", "simulator.npz", "flops_dataset.csv"):
        shutil.copy(DATA / name, tmp_path)
    with (tmp_path / "flops_dataset.csv").open("a") as file:
        file.write("60M,200,1.0\n")
    with pytest.raises(BadInput, match="FLOPs of 60M are missing or not proportional"):
        Simulator.load(tmp_path)
