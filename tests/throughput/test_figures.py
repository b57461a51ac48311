import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from merging import merge_fields
from plumbline.core.present.plotting import style
from plumbline.throughput.analysis.records import read_trials
from plumbline.throughput.figures import DRAWINGS, FiguresSpec, figures
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.plots.resources import memory_parts
from plumbline.throughput.plots.results import Results
from plumbline.throughput.plots.tradeoffs import pareto_front
from plumbline.throughput.record import TrialRecord
from plumbline.throughput.settings import FIGURES
from plumbline.throughput.summarize import SummarizeSpec, summarize
from throughput.grid_records import changed, failed, grid, manifest, manifests, trial, write, write_manifests

VARIANTS = ("base", "whitened-0.8", "whitened-0.2")
WITH_FAILURES = [
    *(trial(name, "generate", batch) for name in VARIANTS for batch in (64, 128)),
    *(trial(name, "generate", 16, 4, generated) for name in VARIANTS for generated in (16, 256)),
    *(failed("out_of_memory", name, "generate", 256) for name in VARIANTS[:2]),
    trial("whitened-0.2", "generate", 256),
    failed("timeout", "whitened-0.2", "generate", 512),
]
CASES: dict[str, tuple[list[TrialRecord], list[Manifest]]] = {
    "usual": (grid(), manifests()),
    "some failed": (WITH_FAILURES, manifests()),
    "only failures": ([failed("out_of_memory", "base", "lean", batch) for batch in (1, 8)], manifests()),
    "one trial": ([trial()], [manifest()]),
    "random weights": (grid(weights="random"), manifests(perplexity=None, evaluation_tokens=None)),
    "noisy": ([changed(record, drifted=record.batch == 8) for record in grid()], manifests()),
    "engine without a speed": (
        [*grid(), *(failed("unavailable", name, "paged", 2) for name in VARIANTS)],
        manifests(),
    ),
    "two machines": ([trial(), trial("base", "lean", 8, cpu="EPYC")], [manifest()]),
}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    return {name: results_of(*case, tmp_path_factory.mktemp("case")) for name, case in CASES.items()}


def results_of(records: list[TrialRecord], variants: list[Manifest], folder: Path) -> Results:
    return Results(records=read_trials(write(records, folder)), manifests=variants)


def drawn(name: str, results: Results) -> Figure:
    with style():
        return DRAWINGS[name](results)


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
    records = grid()[:6]
    written = write_manifests(manifests(), tmp_path / "models"), write(records, tmp_path / "trials")
    results, first = tmp_path / "results.json", tmp_path / "figures" / f"{FIGURES[0]}.pdf"
    summarize(SummarizeSpec(**merge_fields(records)), *written, [], results)
    figures(FiguresSpec(code="", inputs=""), results, first)
    expected = {f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == expected
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_caption_for_the_report(name: str) -> None:
    report = Path(__file__).parents[2] / "workflow" / "report"
    assert len((report / f"throughput-{name}.rst").read_text()) > 100


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another_or_leaves_the_page(name: str, case: str, cases: dict[str, Results]) -> None:
    figure = drawn(name, cases[case])
    with style():
        figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    shown = texts(figure)
    boxes = [Text.get_window_extent(text, renderer) for text in shown]
    assert shown
    for (one, first), (two, second) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        signs = [one.get_text(), two.get_text()].count("×")
        allowed = (2, 6, 25)[signs]  # pixels; the box of × is taller than the sign
        shared = type(first).intersection(first, second)
        assert shared is None or min(shared.width, shared.height) < allowed, (one.get_text(), two.get_text())
    page = figure.bbox
    for text, box in zip(shown, boxes, strict=True):
        inside = page.x0 - 2 <= box.x0 and box.x1 <= page.x1 + 2 and page.y0 - 2 <= box.y0 and box.y1 <= page.y1 + 2
        assert inside, text.get_text()


@pytest.mark.parametrize("name", ["pareto", "compression"])
def test_missing_perplexity_is_stated(name: str, cases: dict[str, Results]) -> None:
    assert said(drawn(name, cases["random weights"])).startswith("No variant has a perplexity")


@pytest.mark.parametrize("name", ["throughput_by_batch", "efficiency"])
def test_each_failed_trial_is_a_cross_with_its_outcome_above(name: str, cases: dict[str, Results]) -> None:
    figure = drawn(name, cases["some failed"])
    words = said(figure).splitlines()
    assert [words.count(word) for word in ("×", "OOM", "timed out")] == [3, 1, 1]
    with style():
        figure.draw_without_rendering()
    axes = figure.axes[0]
    lowest = min(text.get_window_extent().y0 for text in texts(figure) if text.get_text() == "×")
    highest = max(
        axes.transData.transform((1, value))[1] for line in axes.lines for value in np.asarray(line.get_ydata(), float)
    )
    assert lowest > highest


@pytest.mark.parametrize(("name", "count"), [("ceiling", 3), ("phases", 3), ("memory", 3), ("throughput_by_batch", 3)])
def test_no_failed_trial_is_left_out(name: str, count: int, cases: dict[str, Results]) -> None:
    text = said(drawn(name, cases["some failed"]))
    assert text.count("×") == count
    assert "OOM" in text
    assert "timed out" in text
    assert "×" not in said(drawn(name, cases["usual"]))


def test_lines_are_the_rates_of_a_variant_with_their_intervals(cases: dict[str, Results]) -> None:
    axes = drawn("throughput_by_batch", cases["usual"]).axes[0]
    base = {r.batch: r for r in grid() if (r.variant, r.engine, r.generated) == ("base", "lean", 32)}
    line = next(line for line in axes.lines if line.get_color() == "black" and line.get_linestyle() == "-")
    assert dict(zip(*line.get_data(), strict=True)) == {b: base[b].tokens_per_second for b in (1, 8, 64)}
    bars = np.array(axes.containers[0].lines[2][0].get_segments())[:, :, 1]
    np.testing.assert_allclose(bars, [base[batch].interval for batch in (1, 8, 64)])
    assert len(axes.containers) == 5


def test_intervals_of_efficiency_are_scaled_like_their_points(cases: dict[str, Results]) -> None:
    axes = drawn("efficiency", cases["usual"]).axes[0]
    first = next(r for r in grid() if r.trial == "base/lean/b1-p4-g32")
    bar = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose(bar, np.array(first.interval) / (first.peak_bytes or 0) * 1e9)


def test_panels_of_length_share_batch_and_prompt(cases: dict[str, Results]) -> None:
    figure = drawn("throughput_by_length", cases["usual"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["lean, batch 8, prompt 4"]


def test_pareto_front_holds_the_unbeaten_points() -> None:
    rng = np.random.default_rng(0)
    speed, perplexity = rng.integers(0, 8, (2, 40)).astype(float)
    front = pareto_front(speed, perplexity)
    points = set(zip(speed, perplexity, strict=True))
    unbeaten = {(s, p) for s, p in points if not any((t >= s and q <= p) and (t, q) != (s, p) for t, q in points)}
    assert {(speed[i], perplexity[i]) for i in front} == unbeaten
    assert len(front) == len(unbeaten)
    assert list(speed[front]) == sorted(speed[front])


def test_pareto_labels_every_variant_and_lists_the_missing_ones(cases: dict[str, Results]) -> None:
    assert {"1 (base)", "0.8", "0.6", "0.4", "0.2"} <= set(said(drawn("pareto", cases["usual"])).splitlines())
    assert "Not shown: OOM: 1 (base), 0.8" in said(drawn("pareto", cases["some failed"]))


def test_memory_parts_add_up_to_the_peak(cases: dict[str, Results]) -> None:
    trials = cases["usual"].trials
    for _, row in trials.iterrows():
        parts = memory_parts(row)
        assert sum(parts.values()) == pytest.approx(row["peak_bytes"])
        assert (parts["weights"], parts["kv"]) == (row["weights_bytes"], row["kv_bytes"])
    tight = trials.iloc[0].copy()
    tight["peak_bytes"] = tight["weights_bytes"] + 10
    assert memory_parts(tight) == {"weights": tight["weights_bytes"], "kv": 10, "loaded": 0, "rest": 0}


def test_ceiling_says_which_limit_binds(tmp_path: Path) -> None:
    records = [trial(binds="bandwidth"), trial(batch=8, binds="compute", ceiling_share=1.3)]
    figure = drawn("ceiling", results_of(records, [manifest()], tmp_path))
    assert {"Memory bandwidth", "Matmul rate"} <= set(said(figure).splitlines())
    assert figure.axes[0].get_xlim()[1] > 130


def test_intervals_stay_inside_their_panel(tmp_path: Path) -> None:
    wide = [trial(interval=[1000.0, 20_000.0]), trial(batch=8)]
    results = results_of(wide, [manifest()], tmp_path)
    for name, scale in (("throughput_by_batch", 1.0), ("efficiency", 1e9 / (wide[0].peak_bytes or 0))):
        low, high = drawn(name, results).axes[0].get_ylim()
        assert low < 1000 * scale
        assert high > 20_000 * scale


def test_interval_of_the_share_of_the_ceiling_is_over_decode_steps(cases: dict[str, Results]) -> None:
    row = cases["usual"].trials.set_index("trial").loc["base/lean/b8-p4-g56"]
    assert row["ceiling_share_low"] < row["ceiling_share"] < row["ceiling_share_high"]
    assert row["ceiling_share_high"] / row["ceiling_share_low"] < 1.03  # 55 steps that spread by 2%


def test_phases_of_a_single_generated_token_are_all_prefill(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        ("time_per_output_token_seconds", "ceiling_share", "mbu", "mfu", "decode_tokens_per_second")
    )
    record = trial(generated=1, time_to_first_token_seconds=0.002, **nothing)
    assert "2 ms, 100% prefill" in said(drawn("phases", results_of([record], [manifest()], tmp_path)))


def test_engines_are_ordered_by_speed_with_their_ratio(cases: dict[str, Results]) -> None:
    figure = drawn("engines", cases["usual"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["lean", "static", "generate", "continuous"]
    assert said(figure).count("× generate") == 3


SPEED_FIGURES = ["throughput_by_batch", "throughput_by_length", "efficiency", "pareto", "ceiling", "phases"]


@pytest.mark.parametrize("name", SPEED_FIGURES)
def test_noisy_trials_are_marked_and_the_mark_is_explained(name: str, cases: dict[str, Results]) -> None:
    assert "oisy measurement" in said(drawn(name, cases["noisy"]))
    assert "oisy" not in said(drawn(name, cases["usual"]))
    caption = (Path(__file__).parents[2] / "workflow" / "report" / f"throughput-{name}.rst").read_text()
    assert "the machine was busy" in " ".join(caption.split())


def test_only_noisy_points_are_hollow(cases: dict[str, Results]) -> None:
    axes = drawn("throughput_by_batch", cases["noisy"]).axes[0]
    marked = [line for line in axes.lines if line.get_marker() == "o" and line.get_linestyle() == "None"]
    batches = {line.get_markerfacecolor(): list(line.get_xdata()) for line in marked}
    assert batches == {"black": [1, 64], "white": [8]}


def test_only_noisy_bars_are_pale(cases: dict[str, Results]) -> None:
    results = cases["noisy"]
    bars = drawn("phases", results).axes[0].patches
    pale = [bar.get_alpha() is not None for bar in bars]
    assert pale == [*(results.trials["noisy"] != "")] * 2


def test_intervals_of_engines_stay_inside_the_axes(tmp_path: Path) -> None:
    records = [trial(interval=[10.0, 90_000.0]), trial("base", "static")]
    low, high = drawn("engines", results_of(records, [manifest()], tmp_path)).axes[0].get_xlim()
    assert low < 10
    assert high > 90_000


def test_engine_that_failed_everywhere_is_named_where_it_has_no_panel(cases: dict[str, Results]) -> None:
    results = cases["engine without a speed"]
    assert "paged, 1 (base), 0.8, 0.2: unavailable" in said(drawn("throughput_by_batch", results))
    assert "no panel" not in said(drawn("throughput_by_batch", cases["usual"]))


def test_panels_go_by_batch_then_lengths(tmp_path: Path) -> None:
    places = [(8, 4, 32), (64, 4, 8), (8, 4, 8), (1, 16, 8)]
    records = [trial(name, "lean", *place) for name in ("base", "whitened-0.2") for place in places]
    figure = drawn("pareto", results_of(records, manifests(), tmp_path))
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == [
        f"lean, batch {batch}, prompt {prompt}, generated {generated}" for batch, prompt, generated in sorted(places)
    ]


def test_panel_without_a_speed_says_so_and_the_next_one_has_the_label(tmp_path: Path) -> None:
    records = [failed("out_of_memory", "base", "generate", batch) for batch in (1, 8)]
    records += [trial("base", "lean", batch) for batch in (1, 8)]
    empty, full = drawn("throughput_by_batch", results_of(records, [manifest()], tmp_path)).axes
    if full.get_title(loc="left").startswith("generate"):
        empty, full = full, empty
    assert [text.get_text() for text in empty.texts if "trial" in text.get_text()] == ["no trial succeeded"]
    assert (empty.get_ylabel(), full.get_ylabel()) == ("", "Tokens per second")


def test_legend_of_pareto_names_only_what_is_drawn(cases: dict[str, Results]) -> None:
    records = [trial(), trial("whitened-0.8"), failed("timeout", "whitened-0.2")]
    variants = [manifest(), manifest("whitened-0.8"), manifest("whitened-0.2")]
    figure = drawn("pareto", Results(records=records, manifests=variants))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1 (base)", "0.8", "Pareto front"]


def test_figures_and_summary_have_the_same_main_engine(tmp_path: Path) -> None:
    records = [trial("base", engine) for engine in ("static", "continuous")]
    assert results_of(records, [manifest()], tmp_path).main_engine == "static"


def test_plain_does_not_hide_whitened(cases: dict[str, Results]) -> None:
    lines = {line.get_label(): line for line in drawn("compression", cases["usual"]).axes[0].lines}
    whitened, plain = lines["Whitened SVD"], lines["Plain SVD"]
    assert whitened.get_zorder() > plain.get_zorder()
    assert plain.get_markersize() > whitened.get_markersize()
    assert plain.get_markerfacecolor() == "none"


def test_compression_draws_a_line_per_method_and_the_base(cases: dict[str, Results]) -> None:
    axes = drawn("compression", cases["usual"]).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines.keys() == {"Whitened SVD", "Plain SVD", "Base (30.40)"}
    assert list(lines["Plain SVD"].get_xdata()) == [0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize("name", ["throughput_by_batch", "ceiling", "phases", "memory"])
def test_different_machines_are_stated(name: str, cases: dict[str, Results]) -> None:
    assert "different machines" in said(drawn(name, cases["two machines"]))
    assert "different machines" not in said(drawn(name, cases["usual"]))
