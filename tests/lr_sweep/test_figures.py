import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from lr_sweep.sweep_records import RATES, baselines, changed, longer, sweep, trial, unfinished, write
from merging import merge_fields
from plumbline.core.files import write_json
from plumbline.core.measure.spans import SPANS
from plumbline.core.present.plotting import style
from plumbline.lr_sweep.figures import DRAWINGS, FiguresSpec, figures
from plumbline.lr_sweep.plots.panels import SweepData
from plumbline.lr_sweep.record import Curve, TrialRecord
from plumbline.lr_sweep.settings import FIGURES
from plumbline.lr_sweep.summarize import SummarizeSpec, summarize

REFINED = (0.001, 0.002, 0.00283, 0.004, 0.00566, 0.008, 0.064, 1.0, 4.0)
GRIDS = {
    "usual": sweep(),
    "no edge": sweep(kinds={}),
    "all diverged": sweep(kinds=dict.fromkeys(RATES, "diverged")),
    "one seed": sweep(seeds=(0,)),
    "one trial": [trial(0.01, 0)],
    "two machines": [*sweep(seeds=(0,)), *sweep(seeds=(1, 2), cpu="EPYC")],
    "refined": [trial(rate, seed) for rate in REFINED for seed in (0, 1)],
    "no loss": [unfinished(0.01, 0)],
}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def grids() -> dict[str, SweepData]:
    found = {name: SweepData(records=records) for name, records in GRIDS.items()}
    return found | {"with tables": SweepData.of([*sweep(), longer(0.03, loss=2.5)], baselines())}


def drawn(name: str, data: SweepData | list[TrialRecord]) -> Figure:
    with style():
        return DRAWINGS[name](data if isinstance(data, SweepData) else SweepData(records=data))


def texts(figure: Figure) -> list[Text]:
    """What a reader sees written: without empty texts and without labels of ticks beyond the axes' ends."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        beyond |= {id(label) for t in ticks if not low <= t.get_loc() <= high for label in (t.label1, t.label2)}
    found = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible())
    return [text for text in found if text.get_text().strip() and id(text) not in beyond]


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def test_every_figure_is_written_as_pdf_and_png(tmp_path: Path) -> None:
    head = {"code": "", "inputs": ""}
    records, results = [*sweep(), longer(0.03)], tmp_path / "results.json"
    write_json(tmp_path / "baselines.json", baselines().model_dump())
    paths = write(records, tmp_path / "trials")
    summarize(SummarizeSpec(**merge_fields(records)), paths, tmp_path / "baselines.json", results)
    figures(FiguresSpec(**head), results, tmp_path / "figures" / "loss_by_rate.pdf")
    expected = {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert not plt.get_fignums()


@pytest.mark.parametrize("grid", ["usual", "all diverged", "one trial", "two machines", "with tables", "refined"])
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another_or_leaves_the_page(name: str, grid: str, grids: dict[str, SweepData]) -> None:
    figure = drawn(name, grids[grid])
    with style():
        figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    shown = [text for text in texts(figure) if text.get_text() != "×"]
    boxes = [Text.get_window_extent(text, renderer) for text in shown]
    assert shown
    for (one, first), (two, second) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        shared = type(first).intersection(first, second)
        assert shared is None or min(shared.width, shared.height) < 2, (one.get_text(), two.get_text())
    page = figure.bbox
    for text, box in zip(shown, boxes, strict=True):
        inside = page.x0 - 2 <= box.x0 and box.x1 <= page.x1 + 2 and page.y0 - 2 <= box.y0 and box.y1 <= page.y1 + 2
        assert inside, text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_sweep_of_a_single_seed_is_still_drawn(name: str, grids: dict[str, SweepData]) -> None:
    assert drawn(name, grids["one seed"]).axes[0].lines or name == "time_spent"


@pytest.mark.parametrize("name", FIGURES)
def test_sweep_without_a_loss_says_so_in_the_figure(name: str, grids: dict[str, SweepData]) -> None:
    assert said(drawn(name, grids["no loss"])).startswith("No trial")


def test_a_diverged_rate_has_one_cross_off_the_scale(grids: dict[str, SweepData]) -> None:
    figure = drawn("loss_by_rate", grids["usual"])
    crosses = [text for text in texts(figure) if text.get_text() == "×"]
    assert [cross.xy[0] for cross in crosses] == [10.0]
    assert "off scale" in said(figure)
    assert "Diverged" in said(figure)
    assert " of 2" not in said(figure)


def test_a_rate_at_which_some_seeds_diverged_says_how_many() -> None:
    records = sweep()
    records[-1] = trial(10.0, 1)
    assert "1 of 2" in said(drawn("loss_by_rate", records))


def test_edge_shows_the_peak_and_the_time_above_the_initial_loss_of_every_trial(grids: dict[str, SweepData]) -> None:
    peak, share = drawn("edge", grids["usual"]).axes
    found = {}
    for name, axes in (("peak", peak), ("share", share)):
        for line in axes.lines:
            if line.get_marker() == "^":
                found[name] = [np.asarray(values).tolist() for values in line.get_data()]
    assert found == {"peak": [[1e-3] * 2, [2.1] * 2], "share": [[1e-3] * 2, [12.0] * 2]}
    crosses = next(line for line in peak.lines if line.get_marker() == "x")
    assert crosses.get_data()[1] == pytest.approx(peak.get_ylim()[1])


def test_tables_and_the_longer_training_are_drawn_beside_the_rates(grids: dict[str, SweepData]) -> None:
    axes = drawn("loss_by_rate", grids["with tables"]).axes[0]
    levels = {line.get_label(): line.get_ydata()[0] for line in axes.lines if "table" in str(line.get_label())}
    assert levels == {"Unigram table": 5.05, "Bigram table": 3.6, "Trigram table": 2.8}
    star = next(line for line in axes.lines if line.get_marker() == "*")
    assert star.get_data() == ([0.03], [2.5])
    assert axes.get_ylim()[0] < 2.5


def test_minimum_of_the_parabola_is_marked_between_the_neighbours_of_the_best_rate(grids: dict[str, SweepData]) -> None:
    data = grids["refined"]
    (marker,) = (line for line in drawn("loss_by_rate", data).axes[0].lines if line.get_marker() == "D")
    (rate,), (loss,) = marker.get_data()
    optimum = data.analysis.optimum
    assert rate == optimum.value
    assert optimum.low < rate < optimum.high
    assert loss <= data.analysis.best_loss


def lab(colour: object) -> np.ndarray:
    """CIELAB coordinates of a colour, for white D65."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_no_two_rates_have_colours_that_look_alike(grids: dict[str, SweepData]) -> None:
    legend = drawn("curves", grids["usual"]).axes[0].get_legend()
    assert legend is not None
    colours = [lab(line.get_color()) for line in legend.get_lines()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2)) > 20


def test_curve_above_the_panel_is_marked_at_its_top_edge() -> None:
    records = sweep(kinds={})
    curve = records[0].curve
    assert curve is not None
    losses = [*curve.validation_loss[:3], 40.0, *curve.validation_loss[4:]]
    records[0] = changed(records[0], curve=Curve(step=curve.step, validation_loss=losses))
    axes = drawn("curves", records).axes[0]
    triangles = [line for line in axes.lines if line.get_marker() == "^"]
    assert [line.get_data()[0].tolist() for line in triangles] == [[150.0]]
    assert triangles[0].get_data()[1] == pytest.approx(axes.get_ylim()[1])


def test_every_rate_has_a_line_of_its_own_in_the_legend_of_the_curves(grids: dict[str, SweepData]) -> None:
    figure = drawn("curves", grids["usual"])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == len(RATES)
    assert sum("(best)" in text.get_text() for text in legend.get_texts()) == 1
    looks = {(line.get_color(), line.get_marker()) for line in legend.get_lines()}
    assert len(looks) == len(RATES)


def test_band_of_two_seeds_is_called_their_range_and_one_seed_has_none(grids: dict[str, SweepData]) -> None:
    text = said(drawn("loss_by_rate", grids["usual"]))
    assert "Range of the seeds" in text
    assert "95%" not in text
    assert "seeds" not in said(drawn("loss_by_rate", grids["one seed"]))


def test_resumed_trial_says_so_beside_its_bar() -> None:
    records = sweep()
    records[0] = changed(records[0], restarts=2)
    text = said(drawn("time_spent", records))
    assert text.count("resumed") == 1
    assert "lr0.001-seed0 (resumed 2 ×)" in text


@pytest.mark.parametrize("name", ["loss_by_rate", "curves", "edge"])
def test_no_divergence_is_shown_where_there_was_none(name: str, grids: dict[str, SweepData]) -> None:
    assert "Diverged" not in said(drawn(name, grids["no edge"]))


def test_mean_line_has_a_gap_at_a_rate_with_a_diverged_seed() -> None:
    records = sweep(kinds={})
    records[9] = trial(0.1, 1, "diverged")
    axes = drawn("loss_by_rate", records).axes[0]
    line = next(line for line in axes.lines if line.get_label() == "Mean over seeds")
    assert [rate for rate, mean in zip(*line.get_data(), strict=True) if np.isnan(mean)] == [0.1]


def test_unreached_edge_is_not_drawn_and_said(grids: dict[str, SweepData]) -> None:
    text = said(drawn("edge", grids["no edge"]))
    assert "edge of stability not reached" in text
    assert "The edge is in this gap" not in text


def test_stable_region_reaches_as_far_as_was_measured_and_no_further() -> None:
    records = sweep(kinds={1e-3: "diverged", 3.0: "plateaued", 10.0: "diverged"})
    figure = drawn("edge", records)
    region = figure.axes[0].patches[0]
    assert (region.get_x(), region.get_x() + region.get_width()) == pytest.approx((3e-3, 3.0))


def test_bars_of_a_trial_add_up_to_its_spans(grids: dict[str, SweepData]) -> None:
    data = grids["usual"]
    axes = drawn("time_spent", data).axes[0]
    assert len(axes.patches) == len(SPANS) * len(data.records)
    for row, record in enumerate(data.records):
        bars = [bar for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == row]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(sum(record.spans.values()))


@pytest.mark.parametrize("name", ["throughput", "time_spent"])
def test_different_machines_are_said_in_figures_of_time(name: str, grids: dict[str, SweepData]) -> None:
    assert "different machines" in said(drawn(name, grids["two machines"]))
    assert "different machines" not in said(drawn(name, grids["usual"]))
