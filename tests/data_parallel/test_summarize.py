"""Tables, speed-ups and predictions, against what the records were made from."""

import json
from io import StringIO

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba

from data_parallel import some_records
from plumbline.core.errors import UserError
from plumbline.data_parallel.analysis.frames import epochs_frame, time_to_bleu, trials_frame
from plumbline.data_parallel.analysis.network import HERE, Network, fitted, fixed_seconds, predictions, speedup
from plumbline.data_parallel.analysis.speedups import speedups
from plumbline.data_parallel.figures import DRAWINGS, FiguresSpec, figures
from plumbline.data_parallel.notebook import NotebookSpec, notebook
from plumbline.data_parallel.plots.data import Data
from plumbline.data_parallel.record import ComparisonRecord
from plumbline.data_parallel.settings import FIGURES


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return some_records.write_summary(tmp_path_factory.mktemp("summary"))


def test_times_are_means_over_ranks_rates_sums_over_ranks_and_the_first_epoch_is_left_out():
    record = some_records.trial(2)
    (row,) = trials_frame([record], epochs_frame([record])).to_dict("records")
    times = {(one.epoch, one.rank): one.training_time for one in record.epochs}
    means = [(times[number, 0] + times[number, 1]) / 2 for number in (1, 2)]
    rates = [1000 / times[number, 0] + 1000 / times[number, 1] for number in (1, 2)]
    assert row["training_time_mean"] == pytest.approx(np.mean(means))
    assert row["training_time_deviation"] == pytest.approx(np.std(means, ddof=1))
    assert row["slowest_rank_time_mean"] == pytest.approx(np.mean([times[1, 1], times[2, 1]]))
    assert row["tokens_per_second_mean"] == pytest.approx(np.mean(rates))


def test_time_to_bleu_adds_up_the_slowest_rank_s_epochs_until_the_bleu_that_every_trial_reaches():
    """The BLEU of an epoch is 10 times its number, and one trial has an epoch less."""
    records = [some_records.trial(1), some_records.trial(2, epochs=2)]
    times = [{(one.epoch, one.rank): one.training_time for one in record.epochs} for record in records]
    target, reached = time_to_bleu(epochs_frame(records))
    assert target == 10.0
    assert reached == pytest.approx(
        {"1 process": times[0][0, 0] + times[0][1, 0], "2 × ddp, strong": times[1][0, 1] + times[1][1, 1]}
    )


def test_speedups_are_what_the_turns_were_made_with_in_spite_of_drift():
    found = {one.turns.name: one for one in speedups(some_records.comparison())}
    for name, speed in some_records.SPEEDS.items():
        if name != "1 process":
            assert found[name].ratio.low <= speed * 1.005
            assert found[name].ratio.high >= speed * 0.995
            assert found[name].ratio.value == pytest.approx(speed, rel=0.02)
    weak = found["ddp weak 2"]
    assert weak.of_ceiling.value == pytest.approx(1.8 / 1.9, rel=0.02)
    assert weak.efficiency.value == pytest.approx(0.9, rel=0.02)
    assert weak.efficiency.low == weak.ratio.low / 2
    assert weak.verdict == "faster"


def test_the_network_that_made_the_times_is_found_again():
    network = fitted(some_records.comparison().all_reduces)
    assert network.latency_seconds == pytest.approx(some_records.LATENCY)
    assert network.bytes_per_second == pytest.approx(some_records.BYTES_PER_SECOND)


def test_predictions_follow_the_ring_by_hand():
    network = Network(name="x", latency_seconds=1e-3, bytes_per_second=1e6)
    reduce = 2 * 3 * 1e-3 + 2 * 3 / 4 * 1e4 / 1e6
    strong = speedup(network, step_seconds=1.0, size=1e4, world=4, scaling="strong")
    fixed = speedup(network, step_seconds=1.0, size=1e4, world=4, scaling="strong", divided=0.8)
    weak = speedup(network, step_seconds=1.0, size=1e4, world=4, scaling="weak", divided=0.8, ceiling=0.5)
    assert strong == pytest.approx(1 / (1 / 4 + reduce))
    assert fixed == pytest.approx(1 / (0.2 + 0.8 / 4 + reduce))
    assert weak == pytest.approx(4 / (1 / 0.5 + reduce))


def test_ranks_do_not_divide_the_optimizer_s_time_as_the_epochs_after_the_first_show():
    single = some_records.trial(1)
    assert fixed_seconds([single, some_records.trial(2)]) == pytest.approx((0.05 + 0.01) / 10)
    assert fixed_seconds([]) == 0


@pytest.mark.parametrize(
    ("waited", "expected"),
    [(0.0, ["faster", "faster"]), (42.0, ["inconclusive", "faster"]), (100.0, ["inconclusive", "inconclusive"])],
)
def test_a_verdict_stands_only_if_it_would_with_the_time_given_back_that_others_took(waited, expected):
    """Taking 37.5% of the time makes 1 of a speed of 1.6, and 47% of 1.9. The median round counts."""
    found = speedups(some_records.comparison().model_copy(update={"waited_percent": [0.0, waited, 100.0]}))
    verdicts = {one.turns.name: one.verdict for one in found}
    assert [verdicts["ddp strong 2"], verdicts["2 independent"]] == expected


def test_a_world_larger_than_the_batch_has_no_strong_scaling():
    record = some_records.comparison()
    found = predictions(record, speedups(record), 0.0)
    assert {(one.world, one.scaling) for one in found if one.network != "measured here"} == {
        (8, "strong"),
        (8, "weak"),
        (64, "weak"),
        (1024, "weak"),
    }


def test_without_several_processes_there_is_nothing_to_predict():
    alone = some_records.comparison().model_copy(update={"all_reduces": []})
    assert predictions(alone, [], 0.0) == []


STEP = 0.05


def comparison_of_a_model(contention: float, fixed: float = 0.1, scalings: tuple[str, ...] = ("strong", "weak")):
    """Turns as a machine gives them on which an all-reduce lasts so much longer in training; `fixed`: not divided.

    Also the speed-up of strong scaling on two processes that they were made with.
    """
    step, ceiling, parameters = STEP, 0.9, 1_000_000
    reduce = contention * (2 * some_records.LATENCY + 4 * parameters / some_records.BYTES_PER_SECOND)
    strong = step / (step / ceiling * (fixed + (1 - fixed) / 2) + reduce)
    weak = 2 * step / (step / ceiling + reduce)
    speeds = dict(zip(some_records.SPEEDS, (1.0, 1.0, 2 * ceiling, strong, weak), strict=True))
    template = some_records.comparison()
    turns = [
        each.model_copy(update={"seconds": [step / 500 / speeds[each.name]] * 30})
        for each in template.candidates
        if each.method is None or each.scaling in scalings
    ]
    record = template.model_copy(update={"candidates": turns, "parameters": parameters})
    return record, strong


@pytest.mark.parametrize("contention", [0.4, 1.0, 3.0])
def test_strong_scaling_is_predicted_with_what_an_all_reduce_costs_in_training_as_weak_scaling_shows(contention):
    record, strong = comparison_of_a_model(contention)
    here = {one.scaling: one for one in predictions(record, speedups(record), 0.1 * STEP) if one.network == HERE}
    assert here["weak"].contention == pytest.approx(contention, rel=1e-3)
    assert here["strong"].speedup == pytest.approx(strong, rel=1e-3)
    assert here["weak"].is_fitted
    assert not here["strong"].is_fitted


def test_without_weak_scaling_an_all_reduce_costs_what_it_costs_alone():
    record, strong = comparison_of_a_model(1.0, scalings=("strong",))
    here = {one.scaling: one for one in predictions(record, speedups(record), 0.1 * STEP) if one.network == HERE}
    assert here["strong"].speedup == pytest.approx(strong, rel=1e-3)
    assert not here["weak"].is_fitted


def test_tables_and_findings_are_written_and_say_which_bound_was_broken(results):
    folder = results.parent
    assert len(pd.read_csv(folder / "summary.csv")) == 3
    assert list(pd.read_csv(folder / "speedups.csv")["candidate"]) == list(some_records.SPEEDS)[1:]
    for table in ("trials", "speedups", "equality"):
        assert r"\toprule" in (folder / "tables" / f"{table}.tex").read_text()
    text = (folder / "data_parallel_analysis.md").read_text()
    assert (
        "ddp on 2 in float32: after 20 steps the largest difference from one process is 1.0e-07 (within 1e-05)" in text
    )
    assert "is 1.0e-06 (beyond 1e-10)" in text
    assert "fsdp on 2 in float32: unavailable (not on this backend)" in text
    assert "The machine was busy" not in text
    assert "highest that every trial reaches), in whole epochs of one run each: 1 process 13.3 s;" in text


def test_a_record_of_other_settings_is_refused(tmp_path):
    some_records.write_summary(tmp_path)
    paths = [tmp_path / f"{record.trial}.json" for record in some_records.everything()]
    other = ComparisonRecord.read(paths[-1]).model_copy(update={"spec": {"trial": "x"}})
    paths[-1].write_text(json.dumps(other.to_json()))
    with pytest.raises(UserError, match="speed: recorded with settings or code other than today's"):
        some_records.summarized(some_records.everything(), paths, tmp_path / "again" / "results.json")


def test_every_figure_is_drawn(results, tmp_path):
    figures(FiguresSpec(code="", inputs=""), results, tmp_path / f"{FIGURES[0]}.pdf")
    assert set(DRAWINGS) == set(FIGURES)
    for name in FIGURES:
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    plt.close("all")


def test_bars_carry_their_values(results):
    data = Data.read(results)
    axes = DRAWINGS["tokens_per_second_comparison"](data).axes[0]
    written = {text.get_text() for text in axes.texts}
    assert written == {f"{value:,.0f}" for value in data.trials["tokens_per_second_mean"]}


def test_a_colour_means_the_same_trial_in_every_figure(results):
    data = Data.read(results)
    bars = DRAWINGS["tokens_per_second_comparison"](data).axes[0]
    lines = DRAWINGS["learning"](data).axes[0].lines
    names = [label.get_text() for label in bars.get_xticklabels()]
    colours = dict(zip(names, (bar.get_facecolor() for bar in bars.patches), strict=True))
    assert colours == {line.get_label(): to_rgba(line.get_color()) for line in lines}
    points = {one.get_label(): one[0].get_color() for one in DRAWINGS["scaling"](data).axes[0].containers}
    for kind in ("strong", "weak"):
        assert to_rgba(points[f"ddp, {kind}"]) == colours[f"2 × ddp, {kind}"]
    plt.close("all")


def test_communication_below_the_noise_is_named_above_the_figure(results):
    data = Data.read(results)
    data.epochs.loc[data.epochs["label"] == "2 × ddp, weak", "communication_seconds"] = -0.1
    said = DRAWINGS["time_spent"](data).get_suptitle()
    assert said == "Communication is below the noise: 2 × ddp, weak: rank 0; 2 × ddp, weak: rank 1."


def test_the_notebook_is_executed_and_has_the_numbers_of_the_summary(results, tmp_path, monkeypatch):
    notebook(NotebookSpec(code="", inputs=""), results, tmp_path / "analysis.ipynb")
    made = nbformat.read(tmp_path / "analysis.ipynb", as_version=4)
    outputs = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    tables = [
        pd.read_html(StringIO(output.data["text/html"]))[0]
        for output in outputs
        if "text/html" in output.get("data", {})
    ]
    trials, speeds = tables[0].set_index("Unnamed: 0").T, tables[1]
    summary, written = pd.read_csv(results.with_name("summary.csv")), pd.read_csv(results.with_name("speedups.csv"))
    rates = trials["tokens_per_second_mean"].astype(float).to_numpy()
    np.testing.assert_allclose(rates, summary["tokens_per_second_mean"], rtol=1e-5)
    np.testing.assert_allclose(speeds["speedup"], written["speedup"], atol=1e-5)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == len(FIGURES)
