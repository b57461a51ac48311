import itertools
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from merging import merge_fields
from plumbline.core.present.plotting import style
from plumbline.throughput.analysis.records import read_trials
from plumbline.throughput.figures import DRAWINGS, FiguresSpec, figures
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.plots.panels import slices
from plumbline.throughput.plots.results import Results
from plumbline.throughput.plots.tradeoffs import pareto_front
from plumbline.throughput.record import ComparisonRecord, TrialRecord
from plumbline.throughput.settings import FIGURES
from plumbline.throughput.summarize import SummarizeSpec, summarize
from throughput.grid_records import (
    changed,
    comparison,
    comparisons,
    failed,
    grid,
    manifest,
    manifests,
    trial,
    without_speed,
    write,
    write_manifests,
)

VARIANTS = ("base", "whitened-0.8", "whitened-0.2")
WITH_FAILURES = [
    *(trial(name, "generate", batch) for name in VARIANTS for batch in (64, 128)),
    *(trial(name, "generate", 16, 4, generated) for name in VARIANTS for generated in (16, 256)),
    *(failed("out_of_memory", name, "generate", 256) for name in VARIANTS[:2]),
    trial("whitened-0.2", "generate", 256),
    failed("timeout", "whitened-0.2", "generate", 512),
]
LOST = [
    {"name": name, "trial": f"{name}/generate/b256-p4-g32", "outcome": "out_of_memory", "message": "9 GB"}
    for name in VARIANTS[1:2]
]
POOR = [
    comparison({"whitened-0.2": 1.2}, batch=64, left_out=LOST),
    without_speed(),
    without_speed("engines", trial="engines/base/b1-p4-g32"),
]
UNSCORED = {"perplexity": None, "evaluation_tokens": None, "window_nats": []}
CASES: dict[str, tuple[list[TrialRecord], list[Manifest], list[ComparisonRecord]]] = {
    "usual": (grid(), manifests(), comparisons()),
    "some failed": (WITH_FAILURES, manifests(), POOR),
    "only failures": ([failed("out_of_memory", "base", "lean", batch) for batch in (1, 8)], manifests(), POOR[1:]),
    "one trial": ([trial()], [manifest()], []),
    "random weights": (
        grid(weights="random"),
        manifests(perplexity=None, evaluation_tokens=None, window_nats=[]),
        comparisons(),
    ),
    "engine without a speed": (
        [*grid(), *(failed("unavailable", name, "paged", 2) for name in VARIANTS)],
        manifests(),
        comparisons(),
    ),
    "two machines": ([trial(), trial("base", "lean", 8, cpu="EPYC")], [manifest()], []),
}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    return {name: results_of(*case, folder=tmp_path_factory.mktemp("case")) for name, case in CASES.items()}


def results_of(
    records: list[TrialRecord],
    variants: list[Manifest],
    compared: list[ComparisonRecord] | None = None,
    *,
    folder: Path,
) -> Results:
    return Results(records=read_trials(write(records, folder)), manifests=variants, comparisons=compared or [])


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
    records = grid()
    written = write_manifests(manifests(), tmp_path / "models"), write(records, tmp_path / "trials")
    results, first = tmp_path / "results.json", tmp_path / "figures" / f"{FIGURES[0]}.pdf"
    compared = comparisons()
    files = write(compared, tmp_path / "comparisons")
    summarize(SummarizeSpec(**merge_fields([*records, *compared])), *written, files, [], results)
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
    needed = (first.weights_bytes or 0) + (first.kv_bytes or 0) + (first.least_activation_bytes or 0)
    np.testing.assert_allclose(bar, np.array(first.interval) / needed * 1e9)


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
    assert "Not shown: OOM: 0.8" in said(drawn("pareto", cases["some failed"]))


def test_pareto_front_goes_beyond_the_base_only_where_a_variant_is_proven_faster(cases: dict[str, Results]) -> None:
    axes = drawn("pareto", cases["usual"]).axes
    fronts = [next(line for line in each.lines if line.get_drawstyle() == "steps-pre") for each in axes[:3]]
    assert [len(front.get_xdata()) for front in fronts] == [1, 3, 5]


def test_pareto_shows_the_speed_relative_to_the_base_with_its_interval(cases: dict[str, Results]) -> None:
    results = cases["usual"]
    axes = drawn("pareto", results).axes[0]
    assert axes.get_xlabel() == "Speed relative to the base"
    row = results.speedups.set_index(["comparison", "candidate"]).loc["variants/lean/b1-p4-g32", "whitened-0.8"]
    container = next(c for c in axes.containers if c.lines[0].get_xdata()[0] == row["ratio"])
    bar = container.lines[2][0].get_segments()[0][:, 0]
    np.testing.assert_allclose(bar, [row["ratio_low"], row["ratio_high"]])


def test_memory_needed_on_a_cpu_is_weights_cache_and_the_least_activations(cases: dict[str, Results]) -> None:
    record = grid()[0]
    row = cases["usual"].trials.iloc[0]
    assert row["needed_bytes"] == record.weights_bytes + record.kv_bytes + record.least_activation_bytes
    bars = [bar.get_height() for bar in drawn("memory", cases["usual"]).axes[0].patches[:3]]
    counted = [record.weights_bytes, record.kv_bytes, record.least_activation_bytes]
    assert bars == pytest.approx([count / 1e6 for count in counted])


def test_memory_needed_on_a_gpu_is_the_allocated_peak(tmp_path: Path) -> None:
    record = trial()
    memory = (record.to_json()["memory"]) | {"method": "torch.cuda", "allocated_peak_bytes": 5_000_000}
    row = results_of([changed(record, memory=memory)], [manifest()], folder=tmp_path).trials.iloc[0]
    assert row["needed_bytes"] == 5_000_000
    assert row["activations_bytes"] == 5_000_000 - record.weights_bytes - record.kv_bytes


def test_last_panel_shows_the_ratios_of_the_comparisons_with_their_intervals(cases: dict[str, Results]) -> None:
    results = cases["usual"]
    rows = results.speedups.set_index(["comparison", "candidate"])
    needed = results.trials.set_index("trial")["needed_bytes"]
    saved = needed["base/lean/b8-p4-g32"] / needed["whitened-0.2/lean/b8-p4-g32"]
    row = rows.loc["variants/lean/b8-p4-g32", "whitened-0.2"]
    for name, factor in (("throughput_by_batch", 1.0), ("efficiency", saved)):
        panel = drawn(name, results).axes[-1]
        assert panel.get_ylabel() == "Relative to the base"
        last = panel.containers[-1]
        assert last.lines[0].get_ydata()[1] == pytest.approx(factor * row["ratio"])
        bar = last.lines[2][0].get_segments()[1][:, 1]
        np.testing.assert_allclose(bar, factor * np.array([row["ratio_low"], row["ratio_high"]]))


def test_ceiling_says_which_limit_binds(tmp_path: Path) -> None:
    records = [trial(binds="bandwidth"), trial(batch=8, binds="compute", ceiling_share=1.3)]
    figure = drawn("ceiling", results_of(records, [manifest()], folder=tmp_path))
    assert {"Memory bandwidth", "Matmul rate"} <= set(said(figure).splitlines())
    assert figure.axes[0].get_xlim()[1] > 130
    assert figure.axes[0].get_xscale() == "log"


def test_intervals_stay_inside_their_panel(tmp_path: Path) -> None:
    wide = [trial(interval=[1000.0, 20_000.0]), trial(batch=8)]
    results = results_of(wide, [manifest()], folder=tmp_path)
    for name, scale in (("throughput_by_batch", 1.0), ("efficiency", 1e9 / results.trials["needed_bytes"][0])):
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
    assert "2 ms, 100% prefill" in said(drawn("phases", results_of([record], [manifest()], folder=tmp_path)))


def test_engines_are_ordered_by_their_ratio_with_interval_and_verdict(cases: dict[str, Results]) -> None:
    figure = drawn("engines", cases["usual"])
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["lean", "static", "generate", "continuous"]
    text = said(figure)
    assert [text.count(word) for word in ("faster", "slower", "A/A", "(the others are relative to it)")] == [2, 1, 1, 1]


def test_candidate_without_a_speed_is_a_row_of_the_engines(tmp_path: Path) -> None:
    lost = {"name": "static", "trial": "base/static/b1-p4-g32", "outcome": "timeout", "message": "took 600 s"}
    compared = comparison({"lean": 8.0}, "engines", left_out=[lost])
    figure = drawn("engines", results_of([trial()], [manifest()], [compared], folder=tmp_path))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["lean", "generate", "static"]
    assert "timed out" in said(figure)


def test_no_figure_marks_noise(cases: dict[str, Results], tmp_path: Path) -> None:
    noisy = [changed(record, drifted=True) for record in grid()]
    results = results_of(noisy, manifests(), comparisons(), folder=tmp_path)
    for name in ("throughput_by_batch", "ceiling", "phases", "pareto"):
        assert said(drawn(name, results)) == said(drawn(name, cases["usual"]))


def test_intervals_of_engines_stay_inside_the_axes(tmp_path: Path) -> None:
    wild = comparison({"lean": 8.0, "static": 0.1}, "engines", noise=1.0, rounds=20)
    results = results_of([trial()], [manifest()], [wild], folder=tmp_path)
    low, high = drawn("engines", results).axes[0].get_xlim()
    assert low < results.speedups["ratio_low"].min()
    assert high > results.speedups["ratio_high"].max()


def test_engine_that_failed_everywhere_is_named_where_it_has_no_panel(cases: dict[str, Results]) -> None:
    results = cases["engine without a speed"]
    assert "paged, 1 (base), 0.8, 0.2: unavailable" in said(drawn("throughput_by_batch", results))
    assert "no panel" not in said(drawn("throughput_by_batch", cases["usual"]))


def test_pareto_has_a_panel_for_each_comparison(cases: dict[str, Results]) -> None:
    titles = [axes.get_title(loc="left") for axes in drawn("pareto", cases["usual"]).axes if axes.get_visible()]
    assert titles == [f"lean, batch {batch}, prompt 4, generated 32" for batch in (1, 8, 64)]


def test_panel_without_a_speed_says_so_and_the_next_one_has_the_label(tmp_path: Path) -> None:
    records = [failed("out_of_memory", "base", "generate", batch) for batch in (1, 8)]
    records += [trial("base", "lean", batch) for batch in (1, 8)]
    empty, full = drawn("throughput_by_batch", results_of(records, [manifest()], folder=tmp_path)).axes
    if full.get_title(loc="left").startswith("generate"):
        empty, full = full, empty
    assert [text.get_text() for text in empty.texts if "trial" in text.get_text()] == ["no trial succeeded"]
    assert (empty.get_ylabel(), full.get_ylabel()) == ("", "Tokens per second")


def test_legend_of_pareto_names_only_what_is_drawn(cases: dict[str, Results]) -> None:
    records = [trial(), trial("whitened-0.8"), failed("timeout", "whitened-0.2")]
    variants = [manifest(), manifest("whitened-0.8"), manifest("whitened-0.2")]
    compared = [comparison({"whitened-0.8": 0.9})]
    figure = drawn("pareto", Results(records=records, manifests=variants, comparisons=compared))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["1 (base)", "0.8", "Pareto front"]


def test_figures_and_summary_have_the_same_main_engine(tmp_path: Path) -> None:
    records = [trial("base", engine) for engine in ("static", "continuous")]
    assert results_of(records, [manifest()], folder=tmp_path).main_engine == "static"


def test_compression_draws_losses_paired_by_window_with_their_intervals(cases: dict[str, Results]) -> None:
    losses = {each.variant: np.array(each.window_nats) for each in manifests()}
    against_base, between = drawn("compression", cases["usual"]).axes
    for panel, container, pairs in (
        (against_base, 0, [(f"whitened-{ratio}", "base") for ratio in (0.2, 0.4, 0.6, 0.8)]),
        (against_base, 1, [(f"plain-{ratio}", "base") for ratio in (0.2, 0.4, 0.6, 0.8)]),
        (between, 0, [(f"whitened-{ratio}", f"plain-{ratio}") for ratio in (0.2, 0.4, 0.6, 0.8)]),
    ):
        drawing = panel.containers[container]
        differences = [losses[one] - losses[other] for one, other in pairs]
        np.testing.assert_allclose(np.asarray(drawing.lines[0].get_xdata(), float), [0.2, 0.4, 0.6, 0.8])
        np.testing.assert_allclose(
            np.asarray(drawing.lines[0].get_ydata(), float), [each.mean() for each in differences]
        )
        for segment, each in zip(drawing.lines[2][0].get_segments(), differences, strict=True):
            half = 1.96 * each.std(ddof=1) / len(each) ** 0.5
            np.testing.assert_allclose(segment[:, 1] - each.mean(), [-half, half], rtol=0.2)


def test_methods_of_compression_differ_in_colour_and_marker_and_none_is_hollow(cases: dict[str, Results]) -> None:
    (legend,) = drawn("compression", cases["usual"]).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Whitened SVD", "Plain SVD", "No difference (base: perplexity 30.40)",
    ]  # fmt: skip
    whitened, plain, _ = legend.get_lines()
    assert whitened.get_color() != plain.get_color()
    assert whitened.get_marker() != plain.get_marker()
    assert "none" not in (whitened.get_markerfacecolor(), plain.get_markerfacecolor())


def test_variants_without_losses_by_window_are_named(tmp_path: Path) -> None:
    variants = [manifest(), manifest("plain-0.8"), manifest("whitened-0.8", perplexity=None, window_nats=[])]
    figure = drawn("compression", results_of([trial()], variants, folder=tmp_path))
    assert "Not shown: no perplexity: whitened-0.8" in said(figure)
    assert len(figure.axes) == 1


@pytest.mark.parametrize("name", ["throughput_by_batch", "ceiling", "phases", "memory"])
def test_different_machines_are_stated(name: str, cases: dict[str, Results]) -> None:
    assert "different machines" in said(drawn(name, cases["two machines"]))
    assert "different machines" not in said(drawn(name, cases["usual"]))


def test_a_variant_with_one_length_has_no_place_among_lines_and_all_have_one_where_no_line_is():
    cells = [("base", 8), ("base", 32), ("v", 32)]
    same = {"engine": "lean", "batch": 8, "prompt": 4}
    trials = pd.DataFrame([{**same, "variant": variant, "generated": count} for variant, count in cells])
    assert [list(group["variant"]) for group in slices(trials, "generated")] == [["base", "base"]]
    assert [list(group["variant"]) for group in slices(trials.iloc[1:], "generated")] == [["base", "v"]]
