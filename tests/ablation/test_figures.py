import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from ablation.trial_records import data_of, grid, tokens, trial_record, write, write_curve
from merging import merge_fields
from plumbline.ablation.analysis.labels import representation_label
from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.figures import DRAWINGS, FiguresSpec, figures
from plumbline.ablation.plots.cost import pareto_front
from plumbline.ablation.plots.panels import FigureData
from plumbline.ablation.plots.training import confusion_shares, held_curves
from plumbline.ablation.settings import FIGURES
from plumbline.ablation.summarize import SummarizeSpec, summarize
from plumbline.core.present.plotting import style


def texts(figure: Figure) -> list[Text]:
    """What a reader sees written: without empty texts, and without the labels of ticks beyond the axes' ends."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond |= {id(tick.label1) for tick in ticks if not low <= tick.get_loc() <= high}
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in found if text.get_text().strip() and id(text) not in beyond]


@pytest.fixture(scope="module")
def with_faults() -> FigureData:
    grid_of_two = grid(runs=4, classifiers=("mlp", "linear"))
    records = [record for record in grid_of_two if record["layers"] != "text_only"]
    records[3] |= {"outcome": "out_of_memory", "runs": []}
    records[21] |= {"outcome": "timeout", "runs": []}
    return data_of([*records, *tokens(runs=4)[:2]])


def test_every_figure_is_written_as_pdf_and_png(tmp_path: Path) -> None:
    records = [record for record in grid(runs=3) if record["representation"] in ("stats", "flat", "probes")]
    spec = SummarizeSpec(**merge_fields(records))
    summarize(spec, write(records, tmp_path / "trials"), write_curve(tmp_path), tmp_path / "results.json")
    names = ["results.json", "runs.csv", "summary.csv", "contrasts.csv", "learning_curve.csv"]
    first = tmp_path / "figures" / f"{FIGURES[0]}.pdf"
    figures(FiguresSpec(code="", inputs=""), *(tmp_path / name for name in names), first)
    expected = {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_a_figure_covers_another(with_faults: FigureData, name: str) -> None:
    with style():
        figure = DRAWINGS[name](with_faults)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        shown = [text for text in texts(figure) if text.get_window_extent(renderer).width > 0]
        boxes = [Text.get_window_extent(text, renderer) for text in shown]
        page = figure.bbox
    plt.close(figure)
    for (one, first), (two, second) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        shared = type(first).intersection(first, second)
        assert shared is None or min(shared.width, shared.height) < 2, (one.get_text(), two.get_text())
    for text, box in zip(shown, boxes, strict=True):
        inside = page.x0 - 2 <= box.x0 and box.x1 <= page.x1 + 2 and page.y0 - 2 <= box.y0 and box.y1 <= page.y1 + 2
        assert inside, text.get_text()


@pytest.mark.parametrize("name", ["accuracy", "drop", "gap", "curves", "invariance"])
def test_failed_trials_are_named_in_the_figure(with_faults: FigureData, name: str) -> None:
    with style():
        figure = DRAWINGS[name](with_faults)
    said = " ".join(text.get_text() for text in texts(figure))
    plt.close(figure)
    assert "OOM" in said
    assert "timed out" in said


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("outcome", ["ok", "out_of_memory"])
def test_grid_of_one_trial_is_still_drawn(name: str, outcome: str) -> None:
    with style():
        figure = DRAWINGS[name](data_of([trial_record("factor", "all_layers", "stats", 0.4, runs=1, outcome=outcome)]))
        figure.draw_without_rendering()
    said = [text.get_text() for text in texts(figure)]
    plt.close(figure)
    assert said


def test_study_without_a_learning_curve_says_so_in_its_figure() -> None:
    with style():
        figure = DRAWINGS["learning_curve"](data_of(tokens(), {"test_over_train": 2 / 7, "curves": [], "rows": []}))
    assert "No learning curve to show" in " ".join(text.get_text() for text in texts(figure))
    plt.close(figure)


def test_marks_show_exactly_the_significant_drops_and_their_direction() -> None:
    data = data_of([record for record in grid(runs=10) if record["layers"] != "text_only"])
    drops = data.contrasts[data.contrasts["kind"] == "visual_drop"]
    with style():
        figure = DRAWINGS["drop"](data)
    marks = [text.get_text() for text in texts(figure) if text.get_text() in "▲▼"]
    plt.close(figure)
    good = drops[drops["significant"]]
    assert marks.count("▲") == (good["difference"] < 0).sum()
    assert marks.count("▼") == (good["difference"] > 0).sum()
    assert 0 < len(marks) < len(drops)


def test_marks_of_the_product_view_show_which_is_better() -> None:
    records = [
        trial_record(view, "all_layers", name, level)
        for name, levels in {"stats": (0.2, 0.6), "spectral": (0.6, 0.2), "frequency": (0.4, 0.4)}.items()
        for view, level in zip(("factor", "product"), levels, strict=True)
    ]
    with style():
        figure = DRAWINGS["invariance"](data_of(records))
    marks = [text.get_text() for text in texts(figure) if text.get_text() in "▲▼"]
    plt.close(figure)
    assert sorted(marks) == ["▲", "▼"]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_names_its_classifiers(with_faults: FigureData, name: str) -> None:
    with style():
        figure = DRAWINGS[name](with_faults)
    said = " ".join(text.get_text() for text in texts(figure))
    plt.close(figure)
    assert "MLP" in said or "linear" in said
    assert name in ("curves", "confusion", "learning_curve") or ("MLP" in said and "linear" in said)


def test_class_names_with_dollars_are_shown_as_they_are() -> None:
    record = trial_record("factor", "all_layers", "stats", 0.4, classes=["$x_1$", "cat"])
    with style():
        figure = DRAWINGS["confusion"](data_of([record]))
        figure.draw_without_rendering()
    ours = [text for text in texts(figure) if text.get_text() == "$x_1$"]
    assert len(ours) == 2
    assert not any(text.get_parse_math() for text in ours)
    plt.close(figure)


def test_pareto_axis_ends_where_accuracy_does(with_faults: FigureData) -> None:
    with style():
        figure = DRAWINGS["pareto"](with_faults)
    assert all(axes.get_ylim()[1] < 105 for axes in figure.axes)
    plt.close(figure)


@pytest.mark.parametrize("least", [0.1, 0.9])
def test_numbers_of_a_front_at_chance_or_at_the_top_stay_in_their_panel(with_faults: FigureData, least: float) -> None:
    order = with_faults.summary.groupby(["layers", "classifier"]).cumcount()
    accuracy = np.where(order < 9, least + 0.01 * order, 0.05)
    summary = with_faults.summary.assign(feature_seconds=1.0 + order, training_seconds=0.0, test_accuracy=accuracy)
    with style():
        figure = DRAWINGS["pareto"](replace(with_faults, summary=summary))
        figure.draw_without_rendering()
    numbers = [(note, axes) for axes in figure.axes for note in axes.texts if note.get_text().isdigit()]
    assert len(numbers) == 9 * len(figure.axes)
    for note, axes in numbers:
        box, panel = Text.get_window_extent(note), axes.get_window_extent()
        assert panel.y0 <= box.y0, note.get_text()
        assert box.y1 <= panel.y1 + 2, note.get_text()
    plt.close(figure)


def test_names_in_figures_are_words() -> None:
    assert representation_label("matrix_norms") == "Matrix norms"
    assert representation_label("my_lab.features:mean_curvature") == "Mean curvature"


points = st.tuples(st.integers(1, 9), st.integers(0, 9))


@given(st.lists(points, min_size=1, max_size=15))
def test_pareto_front_is_what_no_other_point_beats(sample: list[tuple[int, int]]) -> None:
    seconds, accuracy = np.array(sample, dtype=float).T
    front = pareto_front(seconds, accuracy)
    unbeaten = {(s, a) for s, a in sample if not any((t <= s and b >= a) and (t, b) != (s, a) for t, b in sample)}
    assert {(int(seconds[i]), int(accuracy[i])) for i in front} == unbeaten
    assert len(front) == len(unbeaten)
    assert (np.diff(seconds[front]) > 0).all()


def test_confusion_sums_runs_and_each_true_class_to_a_hundred() -> None:
    record = trial_record("factor", "all_layers", "stats", 0.5, runs=3)
    counts = sum(np.array(run["confusion"]) for run in record["runs"])
    shares = confusion_shares(TrialRecord.model_validate(record).good_runs)
    np.testing.assert_allclose(shares, 100 * counts / counts.sum(axis=1, keepdims=True))
    record["runs"] = [run | {"confusion": [[0, 0], [1, 3]]} for run in record["runs"]]
    np.testing.assert_array_equal(
        confusion_shares(TrialRecord.model_validate(record).good_runs), [[np.nan, np.nan], [25, 75]]
    )


def test_stopped_run_stays_in_the_mean_with_the_weights_it_kept() -> None:
    record = trial_record("factor", "all_layers", "stats", 0.5, runs=3)
    record["runs"][0]["curves"]["validation_accuracy"] = [0.1, 0.5, 0.3]
    record["runs"][1]["curves"]["validation_accuracy"] = [0.2, 0.3, 0.4, 0.6, 0.5]
    record["runs"][2]["outcome"] = "diverged"
    held = held_curves(TrialRecord.model_validate(record).good_runs)
    np.testing.assert_array_equal(held.T, [[0.1, 0.5, 0.3, 0.5, 0.5], [0.2, 0.3, 0.4, 0.6, 0.5]])
