"""Pictures of a proposal: what is drawn is what is proposed."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from autoscale_jax.fit import plots
from autoscale_jax.fit.next_run import NextRun
from autoscale_jax.specs import BadInput, Proposal, RunArrays

WEIGHTS = {"code": 0.7, "wiki": 0.3}
UNIFORM, KEEP = {"code": 0.5, "wiki": 0.5}, {"code": 0.6, "wiki": 0.4}
RUNS = [
    NextRun("code x3", {"code": 3.0}, 1.0, 2.0, 1.0),
    NextRun("wiki x3", {"wiki": 3.0}, 1.0, 0.5, 1.0),
]
ARRAYS = RunArrays(
    ("code", "wiki"), ("code", "wiki", "news"), ("a", "b"), np.ones((2, 2)),
    np.array([[1.0, 2, 3], [4, 5, 6]]), np.zeros(2),
)  # fmt: skip


def proposal(reference):
    mixtures = {"reference": reference, "uniform": UNIFORM, "keep": KEEP}
    return Proposal(
        "auto", 1000, WEIGHTS, {"code": 0.6, "wiki": 0.25}, {"code": 0.75, "wiki": 0.4}, 9, 8, 10,
        details={"candidates": {n: {"weights": w} for n, w in mixtures.items()}},
    )  # fmt: skip


@pytest.fixture
def axes():
    return Figure().subplots()


def test_weights_are_bars_with_their_intervals_and_references_marks(axes):
    plots.draw_weights(axes, proposal(UNIFORM))
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.7, 0.3])
    (bars,) = axes.collections
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([0.6, 0.75]), pytest.approx([0.25, 0.4])]
    marks = {
        line.get_label(): line.get_ydata() for line in axes.lines if line.get_label()[0] != "_"
    }
    assert {n: list(y) for n, y in marks.items()} == {"uniform": [0.5, 0.5], "keep": [0.6, 0.4]}


def test_a_reference_of_its_own_is_drawn_too(axes):
    plots.draw_weights(axes, proposal({"code": 0.2, "wiki": 0.8}))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["reference", "uniform", "keep", "proposal"]


def test_predicted_losses_stand_over_the_measured_ones(axes):
    predicted_RxE = ARRAYS.loss_RxE + 0.5
    plots.draw_fit(axes, ARRAYS, predicted_RxE)
    *points, line = axes.lines
    assert [p.get_label() for p in points] == list(ARRAYS.eval_domains)
    np.testing.assert_array_equal([p.get_xdata() for p in points], ARRAYS.loss_RxE.T)
    np.testing.assert_array_equal([p.get_ydata() for p in points], predicted_RxE.T)
    assert list(line.get_xdata()) == list(line.get_ydata()) == [1, 6]


def test_next_runs_are_drawn_best_first(axes):
    plots.draw_next(axes, RUNS)
    assert [bar.get_width() for bar in axes.patches] == [1, 0.25]
    assert axes.yaxis_inverted()
    plots.draw_next(axes, [NextRun("worthless", {"code": 1.0}, 1.0, 0.0, 1.0)])
    assert axes.patches[-1].get_width() == 0


@pytest.mark.parametrize("ending", plots.FORMATS)
def test_every_format_is_written(ending, tmp_path):
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending]
    for runs in ((), RUNS):
        path = tmp_path / f"p{ending}"
        plots.check_format(path)
        plots.save(path, proposal(UNIFORM), ARRAYS, ARRAYS.loss_RxE, runs)
        assert path.read_bytes().startswith(start)


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"--plot = p\.gif: end the name in \.png, \.svg, \.pdf"):
        plots.check_format(tmp_path.relative_to(tmp_path) / "p.gif")
