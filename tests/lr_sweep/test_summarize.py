import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lr_sweep.sweep_records import (
    ENTROPY,
    INITIAL,
    RATES,
    baselines,
    changed,
    head,
    longer,
    sweep,
    trial,
    unfinished,
    write,
)
from merging import merge_fields
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.core.run.records import read_results
from plumbline.lr_sweep.analysis.frames import overall_speed, rates_frame, trials_frame
from plumbline.lr_sweep.record import TrialRecord, read_trials
from plumbline.lr_sweep.settings import TABLES
from plumbline.lr_sweep.summarize import SummarizeSpec, summarize


def summarized(records: list[TrialRecord], folder: Path) -> Path:
    spec = SummarizeSpec(**merge_fields(records))
    write_json(folder / "baselines.json", baselines().model_dump())
    summarize(spec, write(records, folder / "trials"), folder / "baselines.json", folder / "out" / "results.json")
    return folder / "out"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return summarized(sweep(), tmp_path_factory.mktemp("whole"))


def answers(folder: Path) -> str:
    return (folder / "lr_sweep_analysis.md").read_text()


def test_every_trial_has_a_row_with_its_numbers(whole: Path) -> None:
    summary = pd.read_csv(whole / "summary.csv").set_index("trial")
    records = sweep()
    assert set(summary.index) == {record.trial for record in records}
    for record in records:
        row = summary.loc[record.trial]
        for name in ("rate", "seed", "tokens", "tokens_per_second", "peak_rss_bytes", "parameters"):
            assert row[name] == getattr(record, name)
        assert (row["class"], row["outcome"]) == (record.stability, record.outcome)
        assert row["backward_seconds"] == record.spans["backward_seconds"]
        assert str(row["final_validation_loss"]) == str(record.final_validation_loss)


def test_every_rate_has_the_mean_of_its_seeds_and_the_count_of_each_class(whole: Path) -> None:
    rates = pd.read_csv(whole / "rates.csv").set_index("rate")
    assert list(rates.index) == sorted(RATES)
    for rate in RATES[:-1]:
        values = [record.final_validation_loss for record in sweep() if record.rate == rate]
        assert rates.loc[rate, "final_validation_loss"] == pytest.approx(np.mean(values))
        assert min(values) <= rates.loc[rate, "final_validation_loss_low"] <= np.mean(values)
    assert rates.loc[10.0, "diverged"] == 2
    assert math.isnan(rates.loc[10.0, "final_validation_loss"])
    assert rates.loc[10.0, "capped_loss"] == INITIAL


def test_speed_of_a_rate_is_all_tokens_over_all_seconds() -> None:
    records = [changed(trial(0.01, seed), tokens_per_second=speed) for seed, speed in ((0, 100.0), (1, 300.0))]
    assert overall_speed(trials_frame(records)) == pytest.approx(150)
    assert rates_frame(trials_frame(records))["tokens_per_second"].item() == pytest.approx(150)


def test_results_hold_all_records_unchanged(whole: Path) -> None:
    records, _ = read_results(whole / "results.json", TrialRecord)
    assert [record.to_json() for record in records] == [record.to_json() for record in sweep()]


def test_non_finite_losses_are_strings_in_json_and_never_bare(whole: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    merged = json.loads((whole / "results.json").read_text(), parse_constant=refuse)
    assert merged["trials"][-1]["final_validation_loss"] == "nan"
    assert "inf" in merged["trials"][-1]["curve"]["validation_loss"]


def test_answers_name_the_best_rate_the_edge_and_every_class(whole: Path) -> None:
    text = answers(whole)
    analysis = json.loads((whole / "results.json").read_text())["analysis"]
    for said in (
        f"{analysis['best_rate']:.3g} is the best of 9 rates: its final validation loss is ",
        "Training starts to diverge between 3 and 10",
        f"{analysis['sensitivity']['value']:.3f} [",
        f"a unigram {ENTROPY:.3f} ± 0.020, a bigram 3.600 ± 0.020, a trigram 2.800 ± 0.020 nats per token",
        "12 converged, 2 spiked, 2 plateaued, 2 diverged",
        "Diverged (not finite) at 10.",
        "Spiked (peak above the initial loss) at 0.001; at worst the loss peaked at 2.1 times the initial one",
        "the optimum is between ",
        "With fewer than 5 seeds there is no interval",
    ):
        assert said in text, said


def test_longer_training_is_compared_with_the_tables_and_is_in_no_mean_of_the_sweep(tmp_path: Path) -> None:
    folder = summarized([*sweep(), longer(0.03, loss=2.5)], tmp_path)
    said = "long-lr0.03, after 3,000 steps: 2.500 ± 0.010 nats, 0.300 ± 0.010 below the trigram (paired over windows)"
    assert said in answers(folder)
    assert "better than unigram, bigram, trigram" in answers(folder)
    assert "long-lr0.03" not in set(pd.read_csv(folder / "summary.csv")["trial"])
    assert pd.read_csv(folder / "rates.csv").set_index("rate").loc[0.03, "seeds"] == 2
    compared = pd.read_csv(folder / "baselines.csv").set_index("model")
    assert compared.loc["long-lr0.03", "over_trigram"] == pytest.approx(-0.3)
    assert "long-lr0.03" in (folder / "tables" / "baselines.tex").read_text()


def test_model_no_better_than_the_tables_is_said_to_be(tmp_path: Path) -> None:
    text = answers(summarized([*sweep(), longer(0.03, loss=5.2)], tmp_path))
    assert "2.400 ± 0.010 above the trigram (paired over windows); better than none of the tables." in text


def test_table_has_a_dash_and_no_nan_where_a_loss_is_not_finite(whole: Path) -> None:
    text = (whole / "tables" / "rates.tex").read_text()
    row = next(line for line in text.splitlines() if line.startswith("10 &"))
    assert row.split(" & ")[1] == "--"
    assert "nan" not in text


def test_unreached_edge_and_best_rate_at_the_end_are_said(tmp_path: Path) -> None:
    records = [trial(rate, seed, loss=4 - 0.1 * place) for place, rate in enumerate(RATES) for seed in (0, 1)]
    text = answers(summarized(records, tmp_path))
    assert "Not reached: no rate above the best one diverged, up to 10; raise `lr_sweep.extend_at_most`" in text
    assert "is at an end of the grid" in text


@pytest.mark.parametrize(("seeds", "said", "unsaid"), [(2, "range of the seeds", "95%"), (5, "95% interval", "range")])
def test_spread_over_seeds_is_called_what_it_is(tmp_path: Path, seeds: int, said: str, unsaid: str) -> None:
    folder = summarized(sweep(seeds=range(seeds)), tmp_path)
    for text in (answers(folder), (folder / "tables" / "rates.tex").read_text()):
        assert said in text.replace("95\\%", "95%")
        assert unsaid not in text.replace("95\\%", "95%")
    row = pd.read_csv(folder / "rates.csv").set_index("rate").loc[0.01]
    losses = [record.final_validation_loss for record in sweep(seeds=range(seeds)) if record.rate == 0.01]
    ends = row["final_validation_loss_low"], row["final_validation_loss_high"]
    assert (ends == (min(losses), max(losses))) is (seeds < 5)


def test_stable_rates_that_learned_next_to_nothing_are_named(tmp_path: Path) -> None:
    records = sweep(kinds={3.0: "plateaued", 10.0: "diverged"})
    records[12:14] = [trial(1.0, seed, loss=ENTROPY - 0.05) for seed in (0, 1)]
    assert "Not diverging does not mean learning: at 1, 3, the model gained less" in answers(
        summarized(records, tmp_path)
    )


def test_sweep_that_wholly_diverged_claims_no_best_rate(tmp_path: Path) -> None:
    text = answers(summarized(sweep(kinds=dict.fromkeys(RATES, "diverged")), tmp_path))
    assert "There is no best rate" in text
    assert "nan" not in text


def test_single_seed_is_said_to_give_no_interval(tmp_path: Path) -> None:
    text = answers(summarized(sweep(seeds=(0,)), tmp_path))
    assert "only one seed, so no spread" in text
    assert "1 seeds" not in text
    assert "nan" not in text
    assert "[" not in text


def test_different_machines_are_said_so_and_one_machine_is_not(whole: Path, tmp_path: Path) -> None:
    mixed = summarized([*sweep(seeds=(0,)), *sweep(seeds=(1,), cpu="EPYC")], tmp_path)
    for text in (answers(mixed), (mixed / "tables" / "rates.tex").read_text()):
        assert "different machines (Xeon: 9 trials; EPYC: 9 trials)" in text
    assert pd.read_csv(mixed / "summary.csv")["different_machines"].all()
    assert "different machines" not in answers(whole)


def test_trial_that_ran_out_of_memory_is_named_and_in_no_mean(tmp_path: Path) -> None:
    folder = summarized([*sweep()[:-1], unfinished(10.0, 1)], tmp_path)
    assert "lr10-seed1: out of memory (tried to get 9 GiB); it is left out of all means." in answers(folder)
    row = pd.read_csv(folder / "rates.csv").set_index("rate").loc[10.0]
    assert (row["seeds"], row["with_loss"], row["diverged"]) == (2, 1, 1)
    assert "1 diverged, 1 without a loss" in (folder / "tables" / "rates.tex").read_text()


def test_every_table_of_the_settings_is_written(whole: Path) -> None:
    assert {path.stem for path in (whole / "tables").iterdir()} == set(TABLES)


def test_same_records_in_another_order_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    other = summarized(sweep()[::-1], tmp_path)
    for name in ("summary.csv", "rates.csv", "results.json", "lr_sweep_analysis.md", "tables/rates.tex"):
        assert (other / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 99}, "is not a record of schema 1"),
        ({"study": "ablation"}, "study is 'ablation', not 'lr_sweep'"),
        ({"spans": {}}, "spans: missing, and the outcome is ok"),
        ({"curve": None}, "curve: missing, and the outcome is ok"),
        ({"final_validation_loss": "much"}, "final_validation_loss: Input should be a valid number"),
    ],
)
def test_file_that_is_not_a_record_of_a_trial_is_named(tmp_path: Path, changes: dict, said: str) -> None:
    write_json(tmp_path / "record.json", trial(0.01, 0).to_json() | changes)
    with pytest.raises(UserError, match=rf"record\.json: {said}.*delete it to have it rebuilt"):
        read_trials([tmp_path / "record.json"])


def test_trial_without_a_loss_needs_no_measurements(tmp_path: Path) -> None:
    write_json(tmp_path / "record.json", head(0.01, 0, outcome="out_of_memory"))
    (record,) = read_trials([tmp_path / "record.json"])
    assert not record.trained
