"""The planned contrasts: named before any result was seen.

- `visual_drop`: visual layers only against all layers, for each view and representation;
- `counterpart`: the product view of a representation against its factor-view counterpart;
- `over_best_statistic`: a product representation that is not one of the nine statistics (energies, probes, flat
  product, ...) against the best factor statistic;
- `mean_of_counterparts`: the average over the nine statistics, product against factor;
- `best_of`: the best product representation against the best factor statistic, where the former is one of the nine;
- `learned`: canonical tokens, read by a Transformer, against the best other representation with each classifier;
- `classifier`: each further classifier against the first, on the same features.

All but the last two are drawn within each classifier.

"Best" means highest mean validation accuracy, never the test accuracy that is then compared. It is chosen within a
classifier: `mlp` chooses its epoch by validation accuracy and `linear` does not, which favours `mlp` between them. Runs
are paired by seed:
the same seed has the same split in every trial. Runs share adapters, so intervals and p-values are those of the
corrected resampled t-test. P-values are corrected (Holm) within a family: the drops of one view, the
product-against-factor contrasts of one layer set, each with one classifier, the learned representation in all layer
sets, or the classifiers in one layer set. A family counts all its planned contrasts, also those that were not tested.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.formatting import MISSING
from plumbline.core.statistics.contrasts import Contrast, paired_contrast
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm
from plumbline.core.statistics.resampled import corrected_interval

MEASURE = "test_accuracy"
NONE = MISSING
ONE_RUN = "one split and no random part"
"""Why trials whose runs are copies have no interval and no test."""

Trials = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedContrast:
    """One side against the other. A side is the mean over its trials, run by run."""

    kind: str
    family: str
    layers: str
    view: str
    representation: str
    classifier: str
    baseline_layers: str
    baseline_view: str
    baseline_representation: str
    baseline_classifier: str
    trials: Trials
    baseline_trials: Trials


def contrasts_frame(summary: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per contrast: both means with intervals, the paired difference, p-values and effect sizes.

    Accuracies and their differences are fractions. A contrast that has no pairs because a trial failed has that
    trial's outcome and no numbers. One without a p-value says why in `untested`.
    """
    summary, runs = _by_classifier(summary), _by_classifier(runs)
    contrasts: list[PlannedContrast] = []
    for _, own in summary.groupby("classifier", sort=False):
        contrasts += [*_visual_drops(own), *_product_against_factor(own)]
    contrasts += [*_learned(summary), *_classifiers(summary)]
    accuracy, trials = _accuracy_by_trial(runs), summary.set_index("trial")
    rows = [_row(contrast, accuracy, trials) for contrast in contrasts]
    columns = [*COLUMNS[:-2], "p_holm", "significant"]
    frame = pd.DataFrame(rows, columns=columns)
    for _, family in frame.groupby("family"):
        p_values = family["p_value"].to_numpy(dtype=np.float64)
        frame.loc[family.index, "p_holm"] = holm(np.nan_to_num(p_values, nan=1.0)) + 0 * p_values  # NaN stays NaN
    frame["significant"] = frame["p_holm"] <= ALPHA
    return frame


def _by_classifier(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the classifier in each trial's name, which makes the names of its trials unique."""
    return frame.assign(trial=frame["trial"] + "/" + frame["classifier"])


def best_trial(summary: pd.DataFrame) -> pd.Series | None:
    """The trial with the highest mean validation accuracy (ties: narrower features); None when every trial failed."""
    good = summary[summary["runs_ok"] > 0]
    if good.empty:
        return None
    order = good.sort_values(["validation_accuracy", "feature_width", "trial"], ascending=[False, True, True])
    return order.iloc[0]


def shared_representations(summary: pd.DataFrame, layers: str) -> list[str]:
    """Representations that both views have in this layer set, in the study's order."""
    chosen = summary[summary["layers"] == layers]
    views = chosen.groupby("representation")["view"].agg(set)
    both = [str(name) for name, have in views.items() if {"factor", "product"} <= have]
    known = [*FACTOR_STATISTICS, "flat"]
    return sorted(both, key=lambda name: (known.index(name) if name in known else len(known), name))


def _visual_drops(summary: pd.DataFrame) -> Iterator[PlannedContrast]:
    """summary: of one classifier."""
    classifier = str(summary["classifier"].iloc[0])
    for (view, representation), group in summary.groupby(["view", "representation"], sort=False):
        trials = dict(zip(group["layers"], group["trial"], strict=True))
        if {"all_layers", "visual_only"} <= trials.keys():
            yield PlannedContrast(
                kind="visual_drop",
                family=f"visual_drop/{view}/{classifier}",
                layers="visual_only",
                view=str(view),
                representation=str(representation),
                classifier=classifier,
                baseline_layers="all_layers",
                baseline_view=str(view),
                baseline_representation=str(representation),
                baseline_classifier=classifier,
                trials=(trials["visual_only"],),
                baseline_trials=(trials["all_layers"],),
            )


def _product_against_factor(summary: pd.DataFrame) -> Iterator[PlannedContrast]:
    """summary: of one classifier."""
    classifier = str(summary["classifier"].iloc[0])
    for layers, group in summary.groupby("layers", sort=False):
        trial = {(str(row.view), str(row.representation)): str(row.trial) for row in group.itertuples()}
        shared = shared_representations(summary, str(layers))

        def contrast(
            kind: str,
            name: str,
            baseline: str,
            trials: Sequence[str],
            against: Sequence[str],
            where: str = str(layers),
        ) -> PlannedContrast:
            return PlannedContrast(
                kind=kind,
                family=f"product_against_factor/{where}/{classifier}",
                layers=where,
                view="product",
                representation=name,
                classifier=classifier,
                baseline_layers=where,
                baseline_view="factor",
                baseline_representation=baseline,
                baseline_classifier=classifier,
                trials=tuple(trials),
                baseline_trials=tuple(against),
            )

        for name in shared:
            yield contrast("counterpart", name, name, [trial["product", name]], [trial["factor", name]])
        products = group[group["view"] == "product"]
        best_product = best_trial(products)
        statistics = group[(group["view"] == "factor") & group["representation"].isin(FACTOR_STATISTICS)]
        best_statistic = best_trial(statistics)
        if best_statistic is not None:
            baseline, against = str(best_statistic["representation"]), [str(best_statistic["trial"])]
            for row in products[~products["representation"].isin(FACTOR_STATISTICS)].itertuples():
                yield contrast("over_best_statistic", str(row.representation), baseline, [str(row.trial)], against)
            if best_product is not None and best_product["representation"] in FACTOR_STATISTICS:
                chosen = str(best_product["representation"])
                yield contrast("best_of", chosen, baseline, [str(best_product["trial"])], against)
        good = set(group.loc[group["runs_ok"] > 0, "trial"])
        whole = [
            name
            for name in shared
            if name in FACTOR_STATISTICS and {trial["product", name], trial["factor", name]} <= good
        ]
        if len(whole) > 1:
            sides = [[trial[view, name] for name in whole] for view in ("product", "factor")]
            yield contrast("mean_of_counterparts", NONE, NONE, sides[0], sides[1])


def _learned(summary: pd.DataFrame) -> Iterator[PlannedContrast]:
    for layers, group in summary.groupby("layers", sort=False):
        of_tokens = group["classifier"] == "transformer"
        for _, others in group[~of_tokens].groupby("classifier", sort=False):
            best = best_trial(others)
            if best is None:
                continue
            for row in group[of_tokens].itertuples():
                yield PlannedContrast(
                    kind="learned",
                    family="learned",
                    layers=str(layers),
                    view=str(row.view),
                    representation=str(row.representation),
                    classifier=str(row.classifier),
                    baseline_layers=str(layers),
                    baseline_view=str(best["view"]),
                    baseline_representation=str(best["representation"]),
                    baseline_classifier=str(best["classifier"]),
                    trials=(str(row.trial),),
                    baseline_trials=(str(best["trial"]),),
                )


def _classifiers(summary: pd.DataFrame) -> Iterator[PlannedContrast]:
    for (layers, view, representation), group in summary.groupby(["layers", "view", "representation"], sort=False):
        first, *others = group.itertuples()
        for other in others:
            yield PlannedContrast(
                kind="classifier",
                family=f"classifier/{layers}",
                layers=str(layers),
                view=str(view),
                representation=str(representation),
                classifier=str(other.classifier),
                baseline_layers=str(layers),
                baseline_view=str(view),
                baseline_representation=str(representation),
                baseline_classifier=str(first.classifier),
                trials=(str(other.trial),),
                baseline_trials=(str(first.trial),),
            )


def _accuracy_by_trial(runs: pd.DataFrame) -> dict[str, pd.Series]:
    good = runs[runs["outcome"] == "ok"]
    return {str(trial): group.set_index("seed")[MEASURE] for trial, group in good.groupby("trial")}


def _row(contrast: PlannedContrast, accuracy: dict[str, pd.Series], summary: pd.DataFrame) -> dict[str, Any]:
    """One contrast. summary: indexed by trial."""
    sides = (contrast.trials, contrast.baseline_trials)
    fields = {name: value for name, value in asdict(contrast).items() if not name.endswith("trials")}
    named = [name for side in sides for name in side]
    fields["trials"] = len(named)
    fields["different_machines"] = summary.loc[named, "machine"].nunique() > 1
    bad = {summary["outcome"][name] for name in named if name not in accuracy}
    seeds = [] if bad else sorted(set.intersection(*(set(accuracy[name].index) for name in named)))
    if not seeds:
        outcome = " ".join(sorted(bad)) or "no_pairs"
        return {**fields, "outcome": outcome, "untested": outcome, **dict.fromkeys(VALUES, float("nan")), "pairs": 0}
    copies = bool(summary.loc[named, "copies"].all())
    seeds = seeds[:1] if copies else seeds
    values, baseline = (np.mean([accuracy[name].loc[seeds] for name in side], axis=0) for side in sides)
    ends: dict[str, float] = {}
    shared = float(summary.loc[named, "test_over_train"].max())  # the same for all: their runs have the same splits
    for prefix, series, side in zip(("mean", "baseline_mean"), (values, baseline), sides, strict=True):
        distinct = series[:1] if summary.loc[list(side), "copies"].all() else series
        low, high = np.clip(corrected_interval(distinct, test_over_train=shared), 0, 1)
        ends |= {prefix: float(series.mean()), f"{prefix}_low": float(low), f"{prefix}_high": float(high)}
    found = paired_contrast(values, baseline, test_over_train=shared)
    untested = ""
    if np.isnan(found.p_value):
        single = ONE_RUN if copies else "one pair of runs"
        untested = single if found.pairs == 1 else "all runs differ by the same amount"
    return {**fields, "outcome": "ok", "untested": untested, **ends, **asdict(found)}


VALUES = (
    *(f"{side}{end}" for side in ("mean", "baseline_mean") for end in ("", "_low", "_high")),
    *Contrast.__dataclass_fields__,
)
"""Columns with the numbers of one contrast."""

COLUMNS = (
    *(name for name in PlannedContrast.__dataclass_fields__ if not name.endswith("trials")),
    "trials",
    "different_machines",
    "outcome",
    "untested",
    *VALUES,
    "p_holm",
    "significant",
)
