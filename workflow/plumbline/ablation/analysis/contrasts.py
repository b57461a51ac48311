"""The planned contrasts: named before any result was seen.

- `visual_drop`: visual layers only against all layers, for each view and representation;
- `counterpart`: the product view of a representation against its factor-view counterpart;
- `over_best_statistic`: a product representation that is not one of the nine statistics (energies, probes, flat
  product, ...) against the best factor statistic;
- `mean_of_counterparts`: the average over the nine statistics, product against factor;
- `best_of`: the best product representation against the best factor statistic, where the former is one of the nine.

"Best" means highest mean validation accuracy, never the test accuracy that is then compared. Runs are paired by seed:
the same seed draws the same split. P-values are corrected (Holm) within a family: the drops of one view, or the
product-against-factor contrasts of one layer set. Families are small on purpose: n pairs cannot give a p-value below
2^(1-n), which is 0.002 for ten runs, so in a family of more than 25 nothing could be significant at 0.05.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.formatting import MISSING
from plumbline.core.statistics.bootstrap import bootstrap_interval
from plumbline.core.statistics.contrasts import Contrast, paired_contrast
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm

MEASURE = "test_accuracy"
NONE = MISSING

Trials = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PlannedContrast:
    """One side against the other. A side is the mean over its trials, run by run."""

    kind: str
    family: str
    layers: str
    view: str
    representation: str
    baseline_layers: str
    baseline_view: str
    baseline_representation: str
    trials: Trials
    baseline_trials: Trials


def contrasts_frame(summary: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row per contrast: both means with intervals, the paired difference, p-values and effect sizes.

    Accuracies and their differences are fractions. A contrast that has no pairs because a trial failed has that
    trial's outcome and no numbers.
    """
    contrasts = [*_visual_drops(summary), *_product_against_factor(summary)]
    accuracy = _accuracy_by_trial(runs)
    outcomes = dict(zip(summary["trial"], summary["outcome"], strict=True))
    machines = dict(zip(summary["trial"], summary["machine"], strict=True))
    rows = [_row(contrast, accuracy, outcomes, machines) for contrast in contrasts]
    columns = [*COLUMNS[:-2], "p_holm", "significant"]
    frame = pd.DataFrame(rows, columns=columns)
    for _, family in frame.groupby("family"):
        frame.loc[family.index, "p_holm"] = holm(family["p_value"].to_numpy(dtype=np.float64))
    frame["significant"] = frame["p_holm"] <= ALPHA
    return frame


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
    for (view, representation), group in summary.groupby(["view", "representation"], sort=False):
        trials = dict(zip(group["layers"], group["trial"], strict=True))
        if {"all_layers", "visual_only"} <= trials.keys():
            yield PlannedContrast(
                kind="visual_drop",
                family=f"visual_drop/{view}",
                layers="visual_only",
                view=str(view),
                representation=str(representation),
                baseline_layers="all_layers",
                baseline_view=str(view),
                baseline_representation=str(representation),
                trials=(trials["visual_only"],),
                baseline_trials=(trials["all_layers"],),
            )


def _product_against_factor(summary: pd.DataFrame) -> Iterator[PlannedContrast]:
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
                family=f"product_against_factor/{where}",
                layers=where,
                view="product",
                representation=name,
                baseline_layers=where,
                baseline_view="factor",
                baseline_representation=baseline,
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


def _accuracy_by_trial(runs: pd.DataFrame) -> dict[str, pd.Series]:
    good = runs[runs["outcome"] == "ok"]
    return {str(trial): group.set_index("seed")[MEASURE] for trial, group in good.groupby("trial")}


def _row(
    contrast: PlannedContrast, accuracy: dict[str, pd.Series], outcomes: dict[str, str], machines: dict[str, str]
) -> dict[str, Any]:
    sides = (contrast.trials, contrast.baseline_trials)
    fields = {name: value for name, value in asdict(contrast).items() if not name.endswith("trials")}
    named = [name for side in sides for name in side]
    fields["trials"] = len(named)
    fields["different_machines"] = len({machines[name] for name in named}) > 1
    bad = {outcomes[name] for name in named if name not in accuracy}
    seeds = [] if bad else sorted(set.intersection(*(set(accuracy[name].index) for name in named)))
    if not seeds:
        outcome = " ".join(sorted(bad)) or "no_pairs"
        return {**fields, "outcome": outcome, **dict.fromkeys(VALUES, float("nan")), "pairs": 0}
    values, baseline = (np.mean([accuracy[name].loc[seeds] for name in side], axis=0) for side in sides)
    ends: dict[str, float] = {}
    for prefix, series in (("mean", values), ("baseline_mean", baseline)):
        low, high = bootstrap_interval(series)
        ends |= {prefix: float(series.mean()), f"{prefix}_low": float(low), f"{prefix}_high": float(high)}
    return {**fields, "outcome": "ok", **ends, **asdict(paired_contrast(values, baseline))}


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
    *VALUES,
    "p_holm",
    "significant",
)
