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

from ablation.trial_records import curve, data_of, grid, tokens, trial_record, write, write_curve
from merging import merge_fields
from plumbline.ablation.analysis.contrasts import best_trial
from plumbline.ablation.analysis.findings import findings
from plumbline.ablation.analysis.records import TrialRecord, ordered_records
from plumbline.ablation.classifier.packed import pack, unpack
from plumbline.ablation.settings import TABLES
from plumbline.ablation.summarize import SummarizeSpec, summarize
from plumbline.core.errors import UserError


def summarized(records: list[dict[str, Any]], folder: Path, found: dict[str, Any] | None = None) -> Path:
    spec = SummarizeSpec(**merge_fields(records))
    paths = write(records, folder / "trials")
    summarize(spec, paths, write_curve(folder, found), folder / "out" / "results.json")
    return folder / "out"


def frames(records: list[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    data = data_of(records)
    return data.summary, data.contrasts, data.learning_curve


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
            reach = stats.t.ppf(0.975, 9) * np.std(values, ddof=1) * (1 / 10 + 200 / 700) ** 0.5
            assert row[f"test_{measure}_low"] == pytest.approx(np.mean(values) - reach)
            assert row[f"test_{measure}_high"] == pytest.approx(min(1, np.mean(values) + reach))
        gaps = [run["train"]["accuracy"] - run["test"]["accuracy"] for run in record["runs"]]
        assert row["gap"] == pytest.approx(np.mean(gaps))
        assert row["feature_width"] == record["feature_width"]
        assert row["training_seconds"] == pytest.approx(sum(run["seconds"] for run in record["runs"]))
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
        ["summary.csv", "runs.csv", "contrasts.csv", "learning_curve.csv", "results.json", "findings.md"]
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
    t = np.mean(differences) / (np.var(differences, ddof=1) * (1 / 10 + 200 / 700)) ** 0.5
    assert ours["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_drops_of_a_view_are_one_family_and_layer_sets_another(whole: Path) -> None:
    contrasts = pd.read_csv(whole / "contrasts.csv")
    sizes = contrasts["family"].value_counts()
    assert sizes["visual_drop/factor/mlp"] == 10
    assert sizes["visual_drop/product/mlp"] == 14
    assert (
        sizes["product_against_factor/visual_only/mlp"] == 10 + 5 + 1
    )  # counterparts; the others and flat; their mean
    for _, family in contrasts.groupby("family"):
        least = family["p_value"].min()
        assert family["p_holm"].min() == pytest.approx(min(1, least * len(family)))
    assert set(contrasts.loc[contrasts["significant"], "p_holm"] <= 0.05) == {True}


def test_best_is_chosen_by_validation_and_compared_by_test_accuracy() -> None:
    lucky, honest = (trial_record("factor", "all_layers", name, 0.5) for name in ("stats", "spectral"))
    for run in lucky["runs"]:
        run["test"]["accuracy"], run["validation"]["accuracy"] = 0.9, 0.3
    product = trial_record("product", "all_layers", "probes", 0.95)
    summary, contrasts, _ = frames([lucky, honest, product])
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
    for table in ("accuracy", "metrics", "contrasts"):  # the learning curve is no table of trials
        assert cell in (out / f"tables/{table}.tex").read_text()
    assert f"factor/all_layers/flat (MLP): {outcome.replace('_', ' ')} (tried to" in (out / "findings.md").read_text()


def test_diverged_runs_leave_the_pairs_and_are_counted(tmp_path: Path) -> None:
    first, second = (trial_record("factor", layers, "stats", 0.4) for layers in ("all_layers", "visual_only"))
    nothing = dict.fromkeys(("train", "validation", "test", "best_epoch", "confusion", "predicted"))
    second["runs"][3] |= {"outcome": "diverged", **nothing}
    summary, contrasts, _ = frames([first, second])
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


def test_findings_say_which_interval_it_is_and_how_often_an_adapter_is_tested(tmp_path: Path) -> None:
    text = (
        summarized([trial_record("factor", "all_layers", "stats", 0.4)], tmp_path / "10") / "findings.md"
    ).read_text()
    assert "corrected resampled t intervals" in text
    assert "Each adapter is tested in 2 runs." in text
    seven = [trial_record("factor", "all_layers", "stats", 0.4, runs=7)]
    assert "tested in 1 to 2 runs." in (summarized(seven, tmp_path / "7") / "findings.md").read_text()


def test_runs_of_one_split_are_not_corrected_for_shared_rows_and_say_what_they_cover(tmp_path: Path) -> None:
    record = trial_record("factor", "all_layers", "stats", 0.4)
    record["runs"] = [run | {"predicted": record["runs"][0]["predicted"]} for run in record["runs"]]
    out = summarized([record], tmp_path)
    row = pd.read_csv(out / "summary.csv").iloc[0]
    values = [run["test"]["accuracy"] for run in record["runs"]]
    reach = stats.t.ppf(0.975, 9) * np.std(values, ddof=1) / 10**0.5
    assert row["test_accuracy_high"] - row["test_accuracy"] == pytest.approx(reach)
    assert "neither the split nor new adapters" in (out / "findings.md").read_text()


def two_classifiers(level: float, factor: dict[str, float], product: dict[str, float]) -> list[dict[str, Any]]:
    """Trials with the given accuracies by MLP, and all at `level` by linear."""
    records = []
    for view, levels in (("factor", factor), ("product", product)):
        for name, accuracy in levels.items():
            record = trial_record(view, "all_layers", name, accuracy, classifiers=("mlp", "linear"))
            flat = trial_record(view, "all_layers", name, level)
            record["runs"][10:] = [run | {"classifier": "linear"} for run in flat["runs"]]
            records.append(record)
    return records


def test_each_classifier_has_its_rows_contrasts_and_families() -> None:
    summary, contrasts, _ = frames(grid(classifiers=("mlp", "linear")))
    assert summary.groupby("classifier").size().to_dict() == {"mlp": 72, "linear": 72}
    alone = frames(grid())[1].drop(columns=["p_holm", "significant", "family"])
    own = contrasts[contrasts["classifier"] == "mlp"].drop(columns=["p_holm", "significant", "family"])
    pd.testing.assert_frame_equal(own.reset_index(drop=True), alone.reset_index(drop=True))
    between = contrasts[contrasts["kind"] == "classifier"]
    assert (between["classifier"] + between["baseline_classifier"] == "linearmlp").all()
    assert between["family"].value_counts().to_dict() == {
        f"classifier/{layers}": 24 for layers in ("all_layers", "visual_only", "text_only")
    }
    assert all(family["p_value"].notna().all() for _, family in contrasts.groupby("family"))


def test_findings_say_where_a_ranking_or_a_verdict_depends_on_the_classifier() -> None:
    factor, product = {"stats": 0.2, "spectral": 0.5}, {"stats": 0.6, "spectral": 0.5}
    text = findings(*frames(two_classifiers(0.4, factor, product)))
    assert "All layers: linear is significantly better than MLP for 1 of 4 view and representation pairs" in text
    assert "Which is best depends on the classifier: Moments (product view) with MLP" in text
    assert "whether the product view is better depends on the classifier for Moments." in text
    same = findings(*frames(grid(classifiers=("mlp", "linear"), runs=5)))
    assert "is best with both." in same
    one = findings(*frames(grid(runs=5)))
    assert "depends on the classifier:" not in one


def test_classifier_whose_runs_all_diverged_is_shown_beside_the_other(tmp_path: Path) -> None:
    record = trial_record("factor", "all_layers", "stats", 0.4, classifiers=("mlp", "linear"))
    nothing = dict.fromkeys(("train", "validation", "test", "best_epoch", "confusion", "predicted"))
    record["runs"][:10] = [run | {"outcome": "diverged", **nothing} for run in record["runs"][:10]]
    summary = frames([record])[0].set_index("classifier")
    assert summary["outcome"].to_dict() == {"mlp": "diverged", "linear": "ok"}
    assert "factor/all_layers/stats (MLP): diverged" in (summarized([record], tmp_path) / "findings.md").read_text()


def with_hits(record: dict[str, Any], right: np.ndarray) -> dict[str, Any]:
    """The record with predictions that are right for exactly these adapters; accuracies stay as they are."""
    labels = unpack(record["labels"])
    answers = np.where(right, labels, (labels + 1) % 10)
    for run in record["runs"]:
        run["predicted"] = pack(np.where(unpack(run["predicted"]) >= 0, answers, -1))
    return record


def test_chance_is_tested_on_the_predictions_of_each_adapter_and_not_on_a_rounded_mean() -> None:
    """The same 13% of the adapters named right: one in each of many groups, or whole groups of ten."""
    record = trial_record("factor", "all_layers", "stats", 0.13)
    groups = unpack(record["groups"])
    spread = np.arange(1000) // 100 + np.arange(1000) % 100 // 10 == 9  # one adapter of each group
    spread |= (groups % 10 == 0) & (np.arange(1000) // 100 < 3)
    assert spread.sum() == 130
    whole = np.isin(groups, np.random.default_rng(0).choice(100, 13, replace=False))
    assert whole.sum() == 130
    said = [findings(*frames([with_hits(record, right)])) for right in (spread, whole)]
    assert "1 of 1 trials are significantly above the chance level of 10.0%" in said[0]
    assert "1 of 1 trials are not significantly above chance" in said[1]


def test_accuracy_below_chance_is_not_claimed_above_it() -> None:
    record = trial_record("factor", "all_layers", "stats", 0.08)
    assert "1 of 1 trials are not significantly above chance" in findings(*frames([record]))
    record = trial_record("factor", "all_layers", "stats", 0.3)
    assert "1 of 1 trials are significantly above the chance level of 10.0%" in findings(*frames([record]))


@pytest.mark.parametrize("text", ["!", "AAAA"])
def test_predictions_that_cannot_be_read_or_miss_adapters_are_not_a_record(text: str) -> None:
    record = trial_record("factor", "all_layers", "stats", 0.4, runs=2)
    record["runs"][1]["predicted"] = text
    with pytest.raises(ValidationError, match="is not base64 of zlib"):
        TrialRecord.model_validate(record)
    record["runs"][1]["predicted"] = pack(np.zeros(999, np.int64))
    with pytest.raises(ValidationError, match="for each of the 1000 adapters"):
        TrialRecord.model_validate(record)


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


@pytest.mark.parametrize("field", ["train", "confusion", "best_epoch", "predicted"])
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


def test_canonical_tokens_are_compared_with_the_best_other_representation_of_each_classifier() -> None:
    others = grid(classifiers=("mlp", "linear"))
    for record in others:  # as if by the perceptron's choice of its epoch
        for run in record["runs"][:10]:
            run["validation"]["accuracy"] = 1.0
    summary, contrasts, learned = frames([*others, *tokens(level=0.3)])
    rows = contrasts[contrasts["kind"] == "learned"]
    layer_sets = ["all_layers", "visual_only", "text_only"]
    assert sorted(zip(rows["layers"], rows["baseline_classifier"], strict=True)) == sorted(
        (layers, classifier) for layers in layer_sets for classifier in ("mlp", "linear")
    )
    for _, row in rows.iterrows():
        own = summary[summary["layers"] == row["layers"]].set_index("classifier")
        best = best_trial(own.loc[[row["baseline_classifier"]]])
        assert row["baseline_representation"] == best["representation"]
        difference = own.loc["transformer", "test_accuracy"] - best["test_accuracy"]
        assert row["difference"] == pytest.approx(difference)
    text = findings(summary, contrasts, learned)
    assert "All layers: canonical tokens, read by a Transformer, are significantly worse than the best other" in text
    assert "All layers, Transformer: the best representation" not in text


def test_learning_curve_has_the_corrected_interval_of_each_size_and_ends_with_the_trial_on_all_adapters() -> None:
    data = data_of(grid(classifiers=("mlp", "linear")))
    frame = data.learning_curve.set_index(["view", "representation", "adapters"])
    given = pd.DataFrame(curve()["rows"])
    for place, row in frame.drop(index=700, level="adapters").iterrows():
        values = given[(given[["view", "representation", "adapters"]] == list(place)).all(axis=1)]["test_accuracy"]
        reach = stats.t.ppf(0.975, 9) * values.std(ddof=1) * (1 / 10 + 2 / 7) ** 0.5
        assert row["test_accuracy"] == pytest.approx(values.mean())
        assert row["test_accuracy_high"] == pytest.approx(min(1, values.mean() + reach))
    summary = data.summary[data.summary["classifier"] == "linear"].set_index("trial")
    for view, name in (("factor", "ensemble"), ("product", "flat"), ("product", "probes")):
        trial = summary.loc[f"{view}/all_layers/{name}"]
        assert frame.loc[view, name, 700]["test_accuracy"] == pytest.approx(trial["test_accuracy"])
    assert "goes from" in findings(data.summary, data.contrasts, data.learning_curve)


def test_learning_curve_without_the_linear_classifier_ends_with_the_largest_given_size() -> None:
    assert set(data_of(grid(classifiers=("mlp",))).learning_curve["adapters"]) == {25, 50, 100, 200}


NO_CURVE: dict[str, Any] = {"test_over_train": 2 / 7, "curves": [], "rows": []}


def test_study_without_a_learning_curve_is_summarized_and_all_tables_have_their_columns(tmp_path: Path) -> None:
    out = summarized(tokens(), tmp_path, NO_CURVE)
    table = pd.read_csv(out / "learning_curve.csv")
    assert table.empty
    assert list(table) == list(frames(grid(runs=2))[2])
    assert "View & Representation" in (out / "tables/learning_curve.tex").read_text()


def test_curve_without_smaller_training_sets_still_has_the_trial_on_all_adapters(tmp_path: Path) -> None:
    found = curve() | {"rows": []}
    data = data_of(grid(classifiers=("mlp", "linear"), runs=5), found)
    assert list(data.learning_curve["adapters"]) == [700] * 3
    trials = data.summary[data.summary["classifier"] == "linear"].set_index("trial")
    for _, point in data.learning_curve.iterrows():
        trial = trials.loc[f"{point['view']}/{point['layers']}/{point['representation']}"]
        for name in ("test_accuracy", "test_accuracy_low", "test_accuracy_high"):
            assert point[name] == trial[name]


def test_findings_say_why_a_learning_curve_was_skipped(tmp_path: Path) -> None:
    found = curve() | {"rows": []}
    found["curves"][0]["skipped"] = "the adapters have no layers in all_layers"
    text = (summarized(grid(runs=2), tmp_path, found) / "findings.md").read_text()
    assert "factor/all_layers/ensemble: no smaller training sets, the adapters have no layers in all_layers." in text


def one_split(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As if all runs had one split: those of `linear` are then the same, those of others only test the same rows."""
    for record in records:
        runs, names = record["runs"], record["spec"]["classifier"]
        first = {name: next(run for run in runs if run["classifier"] == name) for name in names}
        record["runs"] = [
            {**first[run["classifier"]], "seed": run["seed"], "seconds": run["seconds"]}
            if run["classifier"] == "linear"
            else run | {"predicted": first[run["classifier"]]["predicted"]}
            for run in record["runs"]
        ]
    return records


def test_runs_that_are_copies_have_no_interval_no_test_and_no_place_in_the_counts(tmp_path: Path) -> None:
    records = one_split([record for record in grid(classifiers=("mlp", "linear")) if record["layers"] != "text_only"])
    out = summarized(records, tmp_path)
    summary, contrasts = (pd.read_csv(out / f"{name}.csv") for name in ("summary", "contrasts"))
    linear = summary[summary["classifier"] == "linear"]
    assert linear["test_accuracy"].notna().all()
    assert linear[["test_accuracy_low", "test_accuracy_high", "test_accuracy_sd"]].isna().all(axis=None)
    assert summary.loc[summary["classifier"] == "mlp", "test_accuracy_low"].notna().all()
    both = (contrasts["classifier"] == "linear") & (contrasts["baseline_classifier"] == "linear")
    untested = contrasts[both]
    assert untested[["low", "high", "p_value", "p_holm"]].isna().all(axis=None)
    assert set(untested["untested"]) == {"one split and no random part"}
    assert contrasts.loc[~both, "p_value"].notna().all()  # the perceptron's runs differ
    text = (out / "findings.md").read_text()
    said = [line for line in text.splitlines() if "linear: " in line and "MLP" not in line]
    assert not [line for line in said if "significant" in line]
    counted = r"All layers, linear: the product view is more accurate than the factor view for \d of 9 statistics; 9 "
    assert re.search(counted, text)
    assert "points, not tested (one split and no random part)" in text
    assert "The runs of linear are copies" in text
    assert "nan" not in text
    assert "not tested: one split" in (out / "tables/contrasts.tex").read_text()


def test_contrast_that_was_not_tested_stays_in_its_family_and_out_of_the_counts() -> None:
    records = [
        trial_record(view, "all_layers", name, level)
        for name in ("stats", "spectral", "frequency")
        for view, level in (("factor", 0.3), ("product", 0.4))
    ]
    for factor, product in zip(records[0]["runs"], records[1]["runs"], strict=True):
        product["test"]["accuracy"] = factor["test"]["accuracy"] + 0.125
    summary, contrasts, learned = frames(records)
    own = contrasts.set_index(["kind", "representation"])
    assert own.loc[("counterpart", "stats"), "untested"] == "all runs differ by the same amount"
    least = contrasts["p_value"].min()
    assert contrasts["p_holm"].min() == pytest.approx(least * len(contrasts))
    text = findings(summary, contrasts, learned)
    assert re.search(r"of 2 statistics, .*; 1 not tested \(all runs differ by the same amount\)", text)
