import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from scipy import stats

from ablation.trial_records import data_of, grid, trial_record, write
from merging import merge_fields
from plumbline.ablation.analysis.contrasts import best_trial
from plumbline.ablation.analysis.findings import findings
from plumbline.ablation.analysis.records import TrialRecord, ordered_records
from plumbline.ablation.settings import TABLES
from plumbline.ablation.summarize import SummarizeSpec, summarize
from plumbline.core.errors import UserError


def summarized(records: list[dict[str, Any]], folder: Path) -> Path:
    spec = SummarizeSpec(**merge_fields(records))
    summarize(spec, write(records, folder / "trials"), folder / "out" / "results.json")
    return folder / "out"


def frames(records: list[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    data = data_of(records)
    return data.summary, data.contrasts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return summarized(grid(), tmp_path_factory.mktemp("whole"))


def test_every_trial_has_a_row_with_the_means_of_its_runs(whole: Path) -> None:
    summary = pd.read_csv(whole / "summary.csv").set_index("trial")
    records = grid()
    assert set(summary.index) == {record["trial"] for record in records}
    for record in records[::7]:
        row = summary.loc[record["trial"]]
        for measure in ("accuracy", "macro_f1", "macro_precision", "macro_recall"):
            values = [run["test"][measure] for run in record["runs"]]
            assert row[f"test_{measure}"] == pytest.approx(np.mean(values))
            assert row[f"test_{measure}_sd"] == pytest.approx(np.std(values, ddof=1))
            assert row[f"test_{measure}_low"] <= np.mean(values) <= row[f"test_{measure}_high"]
        gaps = [run["train"]["accuracy"] - run["test"]["accuracy"] for run in record["runs"]]
        assert row["gap"] == pytest.approx(np.mean(gaps))
        assert row["feature_width"] == record["feature_width"]
        assert row["training_seconds"] == record["seconds"]
    assert (summary["chance"] == 0.1).all()


def test_results_hold_all_records_unchanged_and_runs_all_runs(whole: Path) -> None:
    merged = json.loads((whole / "results.json").read_text())["trials"]
    records = grid()
    assert {record["trial"]: record for record in merged} == {record["trial"]: record for record in records}
    assert len(pd.read_csv(whole / "runs.csv")) == sum(len(record["runs"]) for record in records)


def test_same_records_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    records = [record for record in grid(runs=4) if record["representation"] in ("stats", "flat", "probes")]
    one = summarized(records, tmp_path / "one")
    two = summarized(records[::-1], tmp_path / "two")
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert names == sorted(
        ["summary.csv", "runs.csv", "contrasts.csv", "results.json", "findings.md"]
        + [f"tables/{name}.tex" for name in TABLES]
    )
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_drop_is_paired_by_seed_and_not_by_position() -> None:
    whole_layers = trial_record("factor", "all_layers", "stats", 0.6)
    visual = trial_record("factor", "visual_only", "stats", 0.4)
    before = frames([whole_layers, visual])[1]
    visual["runs"] = visual["runs"][::-1]
    pd.testing.assert_frame_equal(frames([whole_layers, visual])[1], before)
    ours = before[before["kind"] == "visual_drop"].iloc[0]
    by_seed = {run["seed"]: run["test"]["accuracy"] for run in visual["runs"]}
    differences = [by_seed[run["seed"]] - run["test"]["accuracy"] for run in whole_layers["runs"]]
    assert ours["difference"] == pytest.approx(np.mean(differences))
    assert ours["p_value"] == pytest.approx(stats.wilcoxon(np.round(differences, 12)).pvalue)


def test_drops_of_a_view_are_one_family_and_layer_sets_another(whole: Path) -> None:
    contrasts = pd.read_csv(whole / "contrasts.csv")
    sizes = contrasts["family"].value_counts()
    assert sizes["visual_drop/factor"] == 10
    assert sizes["visual_drop/product"] == 14
    assert sizes["product_against_factor/visual_only"] == 10 + 5 + 1  # counterparts; the others and flat; their mean
    for _, family in contrasts.groupby("family"):
        least = family["p_value"].min()
        assert family["p_holm"].min() == pytest.approx(min(1, least * len(family)))
    assert set(contrasts.loc[contrasts["significant"], "p_holm"] <= 0.05) == {True}


def test_best_is_chosen_by_validation_and_compared_by_test_accuracy() -> None:
    lucky, honest = (trial_record("factor", "all_layers", name, 0.5) for name in ("stats", "spectral"))
    for run in lucky["runs"]:
        run["test"]["accuracy"], run["validation"]["accuracy"] = 0.9, 0.3
    product = trial_record("product", "all_layers", "probes", 0.95)
    summary, contrasts = frames([lucky, honest, product])
    assert best_trial(summary[summary["view"] == "factor"])["representation"] == "spectral"
    chosen = contrasts[contrasts["kind"].isin(["over_best_statistic", "best_of"])]
    assert list(chosen["baseline_representation"]) == ["spectral"]
    assert chosen["difference"].min() > 0.3


def test_mean_of_counterparts_averages_runs_before_it_compares() -> None:
    records = [
        trial_record(view, "all_layers", name, level)
        for name in ("stats", "spectral", "frequency")
        for view, level in (("factor", 0.3), ("product", 0.5))
    ]
    contrasts = frames(records)[1]
    row = contrasts[contrasts["kind"] == "mean_of_counterparts"].iloc[0]
    by_view = {
        view: np.mean([[run["test"]["accuracy"] for run in r["runs"]] for r in records if r["view"] == view], axis=0)
        for view in ("factor", "product")
    }
    assert row["mean"] == pytest.approx(by_view["product"].mean())
    assert row["difference"] == pytest.approx((by_view["product"] - by_view["factor"]).mean())


@pytest.mark.parametrize(
    ("outcome", "cell"), [("out_of_memory", "OOM"), ("diverged", "diverged"), ("timeout", "timed out")]
)
def test_failed_trial_is_shown_and_never_dropped(tmp_path: Path, outcome: str, cell: str) -> None:
    records = [trial_record("factor", "all_layers", "stats", 0.4), trial_record("factor", "visual_only", "stats", 0.3)]
    records.append(trial_record("factor", "all_layers", "flat", 0, outcome=outcome))
    records.append(trial_record("factor", "visual_only", "flat", 0.2))
    out = summarized(records, tmp_path)
    row = pd.read_csv(out / "summary.csv").set_index("trial").loc["factor/all_layers/flat"]
    assert (row["outcome"], row["runs_ok"]) == (outcome, 0)
    assert math.isnan(row["test_accuracy"])
    contrast = pd.read_csv(out / "contrasts.csv").set_index("representation").loc["flat"]
    assert contrast["outcome"] == outcome
    assert math.isnan(contrast["p_holm"])
    assert not contrast["significant"]
    for table in TABLES:
        assert cell in (out / f"tables/{table}.tex").read_text()
    assert f"factor/all_layers/flat: {outcome.replace('_', ' ')} (tried to" in (out / "findings.md").read_text()


def test_diverged_runs_leave_the_pairs_and_are_counted(tmp_path: Path) -> None:
    first, second = (trial_record("factor", layers, "stats", 0.4) for layers in ("all_layers", "visual_only"))
    nothing = dict.fromkeys(("train", "validation", "test", "best_epoch", "confusion"))
    second["runs"][3] |= {"outcome": "diverged", **nothing}
    summary, contrasts = frames([first, second])
    assert list(summary["runs_ok"]) == [10, 9]
    assert contrasts["pairs"].iloc[0] == 9
    out = summarized([first, second], tmp_path)
    assert "9 of 10 runs" in (out / "tables/accuracy.tex").read_text()


def test_records_of_two_machines_are_flagged_in_every_place(tmp_path: Path) -> None:
    here = trial_record("factor", "all_layers", "stats", 0.4)
    there = trial_record("factor", "visual_only", "stats", 0.3, cpu_model="EPYC 9554")
    out = summarized([here, there], tmp_path)
    assert pd.read_csv(out / "summary.csv")["different_machines"].all()
    assert pd.read_csv(out / "contrasts.csv")["different_machines"].all()
    for path in [*out.glob("tables/*.tex"), out / "findings.md"]:
        assert re.search(r"EPYC 9554, \d+ cores: 1 trial\b", path.read_text()), path
    alone = summarized([here], tmp_path / "alone")
    assert not pd.read_csv(alone / "summary.csv")["different_machines"].any()
    assert "different machines" not in (alone / "findings.md").read_text()


def test_too_few_runs_for_significance_are_said_to_be(tmp_path: Path) -> None:
    out = summarized([record for record in grid(runs=3) if record["representation"] == "stats"], tmp_path)
    text = (out / "findings.md").read_text()
    assert "3 pairs cannot give a p-value below 0.250" in text
    assert not pd.read_csv(out / "contrasts.csv")["significant"].any()


def test_accuracy_near_chance_is_not_claimed_below_it() -> None:
    record = trial_record("factor", "all_layers", "stats", 0.1)
    for run, accuracy in zip(record["runs"], np.linspace(0.08, 0.11, 10), strict=True):
        run["test"]["accuracy"] = accuracy
    text = findings(*frames([record]))
    assert "1 of 1 trials are not significantly above chance" in text
    for run in record["runs"]:
        run["test"]["accuracy"] = 0.3
    assert "1 of 1 trials are significantly above the chance level of 10.0%" in findings(*frames([record]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 99}, "is not a record of schema 1"),
        ({"study": "throughput"}, "study is 'throughput', not 'ablation'"),
        ({"classes": None}, "classes"),
        ({"runs": []}, "outcome is ok, but no run is"),
    ],
)
def test_record_of_another_study_or_without_its_fields_is_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    paths = write([trial_record("factor", "all_layers", "stats", 0.4, runs=2) | changes], tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        ordered_records(paths)
    assert "stats.json" in str(caught.value)


@pytest.mark.parametrize("field", ["train", "confusion", "best_epoch"])
def test_good_run_without_its_scores_is_not_a_record(field: str) -> None:
    record = trial_record("factor", "all_layers", "stats", 0.4, runs=2)
    record["runs"][1][field] = None
    with pytest.raises(ValidationError, match="scores are missing"):
        TrialRecord.model_validate(record)


def test_trial_recorded_twice_is_refused(tmp_path: Path) -> None:
    record = trial_record("factor", "all_layers", "stats", 0.4, runs=2)
    paths = write([record], tmp_path / "a") + write([record], tmp_path / "b")
    with pytest.raises(UserError, match="recorded twice"):
        ordered_records(paths)


def test_records_of_two_data_sets_are_not_compared(tmp_path: Path) -> None:
    records = [
        trial_record("factor", "all_layers", "stats", 0.4),
        trial_record("factor", "all_layers", "flat", 0.4, classes=["cat", "dog"]),
    ]
    with pytest.raises(UserError, match="different classes"):
        ordered_records(write(records, tmp_path))


def test_no_record_at_all_says_what_to_do() -> None:
    with pytest.raises(UserError, match="run its trials first"):
        ordered_records([])
