"""Stage `ablation.summarize`: tidy tables, LaTeX tables and findings from the records of all trials."""

from pathlib import Path

import pandas as pd

from plumbline.ablation.analysis.contrasts import contrasts_frame
from plumbline.ablation.analysis.findings import findings
from plumbline.ablation.analysis.frames import learning_curve_frame, runs_frame, summary_frame
from plumbline.ablation.analysis.labels import METRICS, classifier_label, layers_label, representation_label, view_label
from plumbline.ablation.analysis.records import ordered_records
from plumbline.ablation.settings import TABLES
from plumbline.core.files import read_json, write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING, number, outcome_label, p_text, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.records import machine_note, write_results
from plumbline.core.run.stage import stage

KINDS = {
    "visual_drop": "Visual only − all layers",
    "counterpart": "Product − factor counterpart",
    "over_best_statistic": "Product − best factor statistic",
    "mean_of_counterparts": "Mean of the nine statistics, product − factor",
    "best_of": "Best product − best factor statistic",
    "learned": "Canonical tokens − best other representation",
    "classifier": "Classifier",
}


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the trials' specs."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], learning_curve: Path, output: Path) -> None:
    """Merges the records `trials` into `output` and writes everything computed from them beside it.

    summary.csv has a row per trial, runs.csv a row per run, contrasts.csv a row per contrast, learning_curve.csv a row
    per representation and number of training adapters, from the stage `learning_curve`; results.json holds the records
    themselves; findings.md answers the study's questions; tables/ has a `.tex` for each name in TABLES. Raises
    UserError when a record cannot be read or does not belong with the others.
    """
    records = ordered_records(trials, spec.records)
    runs = runs_frame(records)
    summary = summary_frame(records, runs)
    contrasts = contrasts_frame(summary, runs)
    found = read_json(learning_curve)
    curve = learning_curve_frame(found, summary, runs)
    source = records[0].adapters.model_dump()
    write_csv(curve, output.parent / "learning_curve.csv")
    write_csv(summary, output.parent / "summary.csv")
    write_csv(runs, output.parent / "runs.csv")
    write_csv(contrasts, output.parent / "contrasts.csv")
    write_results(output, records)
    write_text(output.parent / "findings.md", findings(summary, contrasts, curve, found["curves"], source))
    write_tables(summary, contrasts, curve, output.parent / "tables")


def write_tables(summary: pd.DataFrame, contrasts: pd.DataFrame, curve: pd.DataFrame, folder: Path) -> None:
    """Writes the tables named in TABLES to `folder`. Each caption says what the numbers are."""
    note = machine_note(summary["machine"], "times")
    about = "Means over the runs of a trial, with corrected resampled 95% intervals"
    level = f"chance is {100 * summary['chance'].iloc[0]:.1f}%"
    captions = {
        "accuracy": f"Test accuracy in %, and its drop from all layers to visual layers only. {about}; {level}.",
        "metrics": f"All measures in %. {about}; {level}. F1, precision and recall are macro averages.",
        "contrasts": "Paired contrasts of test accuracy, in points, with corrected resampled 95% intervals. p: "
        "two-sided corrected resampled t-test (Nadeau and Bengio 2003); p (Holm): corrected within the "
        "product-against-factor contrasts of a layer set, the drops of a view, the learned representation in all layer "
        "sets and the classifiers of a layer set. r: "
        "matched-pairs rank-biserial correlation.",
        "learning_curve": f"Test accuracy in % of the linear classifier by number of training adapters, on the test "
        f"sides of the trials. {about}; {level}.",
    }
    frames = {
        "accuracy": accuracy_table(summary, contrasts),
        "metrics": metrics_table(summary),
        "contrasts": contrasts_table(contrasts),
        "learning_curve": learning_curve_table(curve),
    }
    for name in TABLES:
        frame, path, caption = frames[name], folder / f"{name}.tex", f"{captions[name]} {note}".strip()
        write_latex(frame, path, caption=caption, label=f"tab:ablation-{name}", group_by=frame.columns[0])


def accuracy_table(summary: pd.DataFrame, contrasts: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy by view, classifier and representation in each layer set, and the drop to the visual layers."""
    lost = contrasts[contrasts["kind"] == "visual_drop"]
    drops = {(row["view"], row["classifier"], row["representation"]): row for _, row in lost.iterrows()}
    rows = []
    layer_sets = list(dict.fromkeys(summary["layers"]))
    keys = ["view", "classifier", "representation"]
    for (view, classifier, representation), group in summary.groupby(keys, sort=False):
        row = {"View": f"{view_label(str(view))}, {classifier_label(str(classifier))}"}
        row["Representation"] = representation_label(str(representation))
        cells = {trial["layers"]: _percent(trial, "test_accuracy") for _, trial in group.iterrows()}
        row |= {layers_label(name): cells.get(name, MISSING) for name in layer_sets}
        drop = drops.get((view, classifier, representation))
        if drops:
            row["Drop (points)"] = MISSING if drop is None else _points(-drop[["difference", "high", "low"]])
            columns = ["relative", "relative_high", "relative_low"]
            row["Drop (%)"] = MISSING if drop is None else _points(-drop[columns])
        rows.append(row)
    return pd.DataFrame(rows)


def metrics_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The four test measures, the train accuracy and the feature width of every trial and classifier."""
    rows = []
    for _, trial in summary.iterrows():
        row = {
            "View": f"{view_label(trial['view'])}, {layers_label(trial['layers']).lower()}, "
            f"{classifier_label(trial['classifier'])}"
        }
        row["Representation"] = representation_label(trial["representation"])
        width = trial["feature_width"]
        row["Width"] = MISSING if pd.isna(width) else f"{int(width)}"
        row |= {title: _percent(trial, f"test_{name}") for name, title in METRICS.items()}
        row["Train accuracy"] = _percent(trial, "train_accuracy")
        rows.append(row)
    return pd.DataFrame(rows)


def contrasts_table(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The difference, p-values and effect size of every contrast."""
    rows = []
    for _, row in contrasts.iterrows():
        name, baseline = (representation_label(row[f"{side}representation"]) for side in ("", "baseline_"))
        good = row["outcome"] == "ok"
        where = view_label(row["view"]) if row["kind"] == "visual_drop" else layers_label(row["layers"])
        cells = {"Contrast": f"{KINDS[row['kind']]}, {where.lower()}"}
        cells["Classifier"] = classifier_label(row["classifier"])
        if row["classifier"] != row["baseline_classifier"]:
            cells["Classifier"] += f" − {classifier_label(row['baseline_classifier'])}"
        cells["Representation"] = name if name == baseline else f"{name} − {baseline}"
        cells["Difference"] = _points(row[["difference", "low", "high"]]) if good else outcome_label(row["outcome"])
        if good and row["untested"]:
            cells["Difference"] = f"{number(100 * row['difference'], signed=True)} (not tested: {row['untested']})"
        cells["p"], cells["p (Holm)"] = p_text(row["p_value"]), p_text(row["p_holm"])
        cells["r"] = MISSING if row["untested"] else number(row["rank_biserial"], digits=2)
        rows.append(cells)
    columns = ["Contrast", "Classifier", "Representation", "Difference", "p", "p (Holm)", "r"]
    return pd.DataFrame(rows, columns=columns)


def learning_curve_table(curve: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy by view and representation, a column per number of training adapters."""
    rows = []
    for (view, representation), group in curve.groupby(["view", "representation"], sort=False):
        row = {"View": view_label(str(view)), "Representation": representation_label(str(representation))}
        for _, point in group.iterrows():
            ends = (100 * point[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
            row[f"{point['adapters']:.0f}"] = with_interval(*ends)
        rows.append(row)
    sizes = list(dict.fromkeys(name for row in rows for name in row if name not in ("View", "Representation")))
    return pd.DataFrame(rows, columns=["View", "Representation", *sorted(sizes, key=int)]).fillna(MISSING)


def _percent(trial: pd.Series, name: str) -> str:
    """The measure with its interval in percent, or the outcome of a trial that has none."""
    if trial["runs_ok"] == 0:
        return outcome_label(trial["outcome"])
    text = with_interval(*(100 * trial[f"{name}{end}"] for end in ("", "_low", "_high")))
    return text if trial["runs_ok"] == trial["runs"] else f"{text} ({trial['runs_ok']} of {trial['runs']} runs)"


def _points(ends: pd.Series) -> str:
    mean, low, high = (100 * float(value) for value in ends)
    return with_interval(mean, low, high, signed=True)


if __name__ == "__main__":
    summarize.main()
