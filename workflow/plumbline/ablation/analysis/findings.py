"""The study's questions, answered in sentences with the numbers of its tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from plumbline.ablation.analysis.contrasts import best_trial
from plumbline.ablation.analysis.labels import layers_label, representation_label, view_label
from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import number, p_text, plural, reason, with_interval
from plumbline.core.run.records import machine_note
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm

LEVEL = f"{100 * ALPHA:.0f}%, Holm-corrected"


def findings(summary: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """Markdown: the best representation, product against factor view, visual layers only, chance, and caveats."""
    sections = {
        "Which representation predicts best?": _best(summary),
        "Do the invariant (product) representations beat the factor statistics?": _invariance(contrasts),
        "How much survives in the visual layers alone?": _drop(contrasts),
        "Which trials beat chance?": _against_chance(summary),
        "Caveats": _caveats(summary, contrasts),
    }
    return findings_text("Findings of the ablation study", sections)


def accuracy_text(row: pd.Series, name: str = "test_accuracy") -> str:
    """`98.8% [98.1, 99.2]`."""
    mean, low, high = (100 * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return with_interval(mean, low, high).replace(" [", "% [", 1)


def difference_text(row: pd.Series) -> str:
    """`+12.3 points [+11.0, +13.6] (p = 0.002, Holm = 0.031)`."""
    points = with_interval(100 * row["difference"], 100 * row["low"], 100 * row["high"], signed=True)
    mean, _, ends = points.partition(" ")
    return f"{mean} points {ends} (p {_equals(row['p_value'])}, Holm {_equals(row['p_holm'])})"


def _best(summary: pd.DataFrame) -> Iterator[str]:
    statistics = summary[(summary["view"] == "factor") & summary["representation"].isin(FACTOR_STATISTICS)]
    for layers in summary["layers"].unique():
        for title, trials in (("best representation", summary), ("best factor statistic", statistics)):
            best = best_trial(trials[trials["layers"] == layers])
            if best is not None:
                yield (
                    f"{layers_label(layers)}: the {title} is {_with_view(best)}, with a test accuracy of "
                    f"{accuracy_text(best)} over {plural(best['runs_ok'], 'run')} "
                    "(chosen by validation accuracy)."
                )


def _invariance(contrasts: pd.DataFrame) -> Iterator[str]:
    chosen = contrasts[contrasts["family"].str.startswith("product_against_factor") & (contrasts["outcome"] == "ok")]
    for layers, group in chosen.groupby("layers", sort=False):
        where = layers_label(str(layers))
        for _, row in group[group["kind"] == "mean_of_counterparts"].iterrows():
            yield (
                f"{where}: averaged over the {row['trials'] // 2} statistics, the product view is {_verdict(row)} "
                f"the factor view: {_comparison(row)}."
            )
        pairs = group[(group["kind"] == "counterpart") & group["representation"].isin(FACTOR_STATISTICS)]
        if len(pairs):
            better = int((pairs["significant"] & (pairs["difference"] > 0)).sum())
            worse = int((pairs["significant"] & (pairs["difference"] < 0)).sum())
            yield (
                f"{where}: the product view is significantly better for {better} of the {len(pairs)} statistics, "
                f"significantly worse for {worse} and not significantly different for {len(pairs) - better - worse} "
                f"({LEVEL})."
            )
        for _, row in group[group["kind"].isin(["over_best_statistic", "best_of"])].iterrows():
            yield (
                f"{where}: {_with_view(row)} is {_verdict(row)} the best factor statistic, "
                f"{representation_label(row['baseline_representation'])}: {_comparison(row)}."
            )


def _drop(contrasts: pd.DataFrame) -> Iterator[str]:
    chosen = contrasts[(contrasts["kind"] == "visual_drop") & (contrasts["outcome"] == "ok")]
    for view, group in chosen.groupby("view", sort=False):
        lower = int((group["significant"] & (group["difference"] < 0)).sum())
        least, most = (number(100 * end, signed=True) for end in (group["difference"].max(), group["difference"].min()))
        yield (
            f"{view_label(str(view))}: {lower} of {len(group)} representations are significantly less accurate when "
            f"only self-attention layers are seen ({LEVEL}). The change ranges from {most} to {least} points."
        )
        row = group.sort_values("baseline_mean").iloc[-1]
        relative = with_interval(*(100 * row[f"relative{end}"] for end in ("", "_low", "_high")), signed=True)
        yield (
            f"{view_label(str(view))}: {representation_label(row['representation'])}, the most accurate on all "
            f"layers, changes by {difference_text(row)}, or {relative.replace(' [', '% [', 1)} relative: from "
            f"{accuracy_text(row, 'baseline_mean')} to {accuracy_text(row, 'mean')}."
        )


def _against_chance(summary: pd.DataFrame) -> Iterator[str]:
    good = summary[summary["runs_ok"] > 0]
    if good.empty:
        return
    level = good["chance"].iloc[0]
    p_values = [_chance_p(row["test_accuracy"], int(row["test_rows"]), level) for _, row in good.iterrows()]
    above = holm(np.array(p_values)) < ALPHA
    yield (
        f"{above.sum()} of {len(good)} trials are significantly above the chance level of {100 * level:.1f}% "
        f"({LEVEL}). The exact binomial test counts the test adapters of one run, at least "
        f"{int(good['test_rows'].min())}, because runs share adapters."
    )
    if not above.all():
        names = ", ".join(f"{row['trial']} {accuracy_text(row)}" for _, row in good[~above].iterrows())
        yield f"{(~above).sum()} of {len(good)} trials are not significantly above chance: {names}."


def _chance_p(accuracy: float, rows: int, level: float) -> float:
    """One-sided p-value of `accuracy` on `rows` test rows against guessing. Runs share adapters: they add no rows."""
    return float(binomtest(round(accuracy * rows), rows, level, alternative="greater").pvalue) if rows else 1.0


def _caveats(summary: pd.DataFrame, contrasts: pd.DataFrame) -> Iterator[str]:
    yield (
        "Intervals are 95% bootstrap intervals of the mean over a trial's runs. They cover the split, the "
        "initialization and the batch order, but not new adapters: the runs share adapters, so intervals are narrower "
        "and p-values smaller than they would be over new ones."
    )
    if skipped := int(summary["adapters_skipped"].max()):
        yield f"Skipped: {plural(skipped, 'adapter')} that could not be read; adapters/manifest.json lists them."
    good = contrasts[contrasts["outcome"] == "ok"]
    for family, group in good.groupby("family", sort=False):
        floor = group["p_floor"].min()
        if floor * len(group) > ALPHA:
            yield (
                f"{family}: {int(group['pairs'].max())} pairs cannot give a p-value below {p_text(floor)}, so nothing "
                f"in this family of {plural(len(group), 'contrast')} can be significant at {LEVEL}. "
                "Train more runs per trial."
            )
    for _, row in summary[summary["outcome"] != "ok"].iterrows():
        yield f"{row['trial']}: {reason(row['outcome'], row['message'])}. The trial is in no mean."
    for _, row in summary[(summary["runs_ok"] > 0) & (summary["runs_ok"] < summary["runs"])].iterrows():
        yield f"{row['trial']}: {row['runs'] - row['runs_ok']} of {row['runs']} runs diverged and are in no mean."
    if note := machine_note(summary["machine"], "times"):
        yield note


def _verdict(row: pd.Series) -> str:
    if not row["significant"]:
        return "not significantly different from"
    return f"significantly {'better' if row['difference'] > 0 else 'worse'} than"


def _comparison(row: pd.Series) -> str:
    """The difference, then the accuracies it is the difference of."""
    return f"{difference_text(row)}, {accuracy_text(row, 'mean')} against {accuracy_text(row, 'baseline_mean')}"


def _with_view(row: pd.Series) -> str:
    return f"{representation_label(row['representation'])} ({view_label(row['view']).lower()})"


def _equals(p_value: float) -> str:
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"
