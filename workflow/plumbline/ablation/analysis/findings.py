"""The study's questions, answered in sentences with the numbers of its tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from plumbline.ablation.analysis.contrasts import best_trial
from plumbline.ablation.analysis.labels import layers_label, outcome_label, representation_label, view_label
from plumbline.ablation.analysis.records import machine_note
from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.formatting import number, p_text, with_interval
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm


def findings(summary: pd.DataFrame, contrasts: pd.DataFrame) -> str:
    """Markdown: best representation, product against factor, visual only, chance, and what to beware of."""
    sections = {
        "Which representation predicts best": _best(summary),
        "Do the invariant (product) representations beat the factor statistics": _invariance(contrasts),
        "What survives in the visual layers alone": _drop(contrasts),
        "Against chance": _against_chance(summary),
        "To be careful about": _cautions(summary, contrasts),
    }
    text = "# What the ablation study found\n"
    for title, sentences in sections.items():
        lines = list(sentences) or ["This grid has no trials that answer it."]
        text += f"\n## {title}\n\n" + "".join(f"- {line}\n" for line in lines)
    return text


def accuracy_text(row: pd.Series, name: str = "test_accuracy") -> str:
    """`98.8% [98.1, 99.2]`."""
    mean, low, high = (100 * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return with_interval(mean, low, high).replace(" [", "% [", 1)


def difference_text(row: pd.Series) -> str:
    """`+12.3 points [11.0, 13.6] (p = 0.002, Holm 0.031)`."""
    points = with_interval(100 * row["difference"], 100 * row["low"], 100 * row["high"], signed=True)
    mean, _, ends = points.partition(" ")
    return f"{mean} points {ends} (p {_equals(row['p_value'])}, Holm {_equals(row['p_holm'])})"


def _best(summary: pd.DataFrame) -> Iterator[str]:
    for layers, group in summary.groupby("layers", sort=False):
        for title, chosen in (
            ("the best of all is", group),
            (
                "the best of the factor statistics is",
                group[(group["view"] == "factor") & group["representation"].isin(FACTOR_STATISTICS)],
            ),
        ):
            best = best_trial(chosen)
            if best is not None:
                yield (
                    f"{layers_label(str(layers))}: {title} {_name(best)}, by validation accuracy; "
                    f"test accuracy {accuracy_text(best)} over {best['runs_ok']} runs."
                )


def _invariance(contrasts: pd.DataFrame) -> Iterator[str]:
    chosen = contrasts[contrasts["family"].str.startswith("product_against_factor")]
    for layers, group in chosen.groupby("layers", sort=False):
        where = layers_label(str(layers))
        good = group[group["outcome"] == "ok"]
        for _, row in good[good["kind"] == "mean_of_twins"].iterrows():
            yield (
                f"{where}: over the {row['trials'] // 2} statistics, the mean test accuracy on products against that "
                f"on factors is {_against(row)}: {difference_text(row)}."
            )
        twins = good[(good["kind"] == "twin") & good["representation"].isin(FACTOR_STATISTICS)]
        if len(twins):
            better = int((twins["significant"] & (twins["difference"] > 0)).sum())
            worse = int((twins["significant"] & (twins["difference"] < 0)).sum())
            yield (
                f"{where}: of these {len(twins)} statistics the product one is better for {better} and worse for "
                f"{worse}; undecided at {100 * ALPHA:.0f}% after Holm's correction: {len(twins) - better - worse}."
            )
        for _, row in good[good["kind"].isin(["over_best_statistic", "best_of"])].iterrows():
            yield (
                f"{where}: the product's {representation_label(row['representation'])} "
                f"against the best factor statistic ({representation_label(row['baseline_representation'])}) "
                f"is {_against(row)}: {difference_text(row)}."
            )


def _drop(contrasts: pd.DataFrame) -> Iterator[str]:
    chosen = contrasts[(contrasts["kind"] == "visual_drop") & (contrasts["outcome"] == "ok")]
    for view, group in chosen.groupby("view", sort=False):
        lower = int((group["significant"] & (group["difference"] < 0)).sum())
        yield (
            f"{view_label(str(view))}: {lower} of {len(group)} representations lose accuracy significantly "
            f"(Holm, {100 * ALPHA:.0f}%) when only self-attention layers are seen; the change is "
            f"{number(100 * group['difference'].min(), signed=True)} to "
            f"{number(100 * group['difference'].max(), signed=True)} points."
        )
        row = group.sort_values("baseline_mean").iloc[-1]
        relative = with_interval(
            100 * row["relative"], 100 * row["relative_low"], 100 * row["relative_high"], signed=True
        ).replace(" [", "% [", 1)
        yield (
            f"{view_label(str(view))}: its most accurate on all layers, "
            f"{representation_label(row['representation'])}, goes from "
            f"{accuracy_text(row, 'baseline_mean')} to {accuracy_text(row, 'mean')}: "
            f"{difference_text(row)}, relative {relative}."
        )


def _against_chance(summary: pd.DataFrame) -> Iterator[str]:
    good = summary[summary["runs_ok"] > 0]
    if good.empty:
        return
    level = good["chance"].iloc[0]
    yield f"Chance, one over the number of classes, is {100 * level:.1f}%."
    p_values = [_chance_p(row["test_accuracy"], int(row["test_rows"]), level) for _, row in good.iterrows()]
    above = holm(np.array(p_values)) < ALPHA
    yield (
        f"{above.sum()} of {len(good)} trials are above chance: exact binomial test of the mean accuracy as that of a "
        f"single run's {int(good['test_rows'].min())} or more test adapters, Holm-corrected at {100 * ALPHA:.0f}%."
    )
    if not above.all():
        names = ", ".join(f"{row['trial']} {accuracy_text(row)}" for _, row in good[~above].iterrows())
        yield f"{(~above).sum()} of {len(good)} trials are not told apart from chance: {names}."


def _chance_p(accuracy: float, rows: int, level: float) -> float:
    """One-sided p-value of `accuracy` on `rows` test rows against guessing. Runs share adapters: they add no rows."""
    return float(binomtest(round(accuracy * rows), rows, level, alternative="greater").pvalue) if rows else 1.0


def _cautions(summary: pd.DataFrame, contrasts: pd.DataFrame) -> Iterator[str]:
    yield (
        "An interval is a 95% bootstrap interval of the mean over a trial's runs: it covers the split, the "
        "initialisation and the batches, on these adapters. The runs share adapters, so that it is narrower than "
        "an interval over new adapters would be, and the p-values are smaller."
    )
    if skipped := int(summary["adapters_skipped"].max()):
        yield f"{skipped} adapters could not be read and were skipped; adapters/manifest.json names each."
    good = contrasts[contrasts["outcome"] == "ok"]
    for family, group in good.groupby("family", sort=False):
        least = group["p_floor"].min() * len(group)
        if least > ALPHA:
            yield (
                f"{family}: {int(group['pairs'].max())} pairs cannot give a p-value below "
                f"{p_text(group['p_floor'].min())}, so that with {len(group)} contrasts in the family the first "
                "step of Holm's correction passes 5% whatever was found; train more runs per trial."
            )
    failed = summary[summary["outcome"] != "ok"]
    for _, row in failed.iterrows():
        reason = f" ({row['message']})" if isinstance(row["message"], str) else ""
        yield f"{row['trial']}: {outcome_label(row['outcome'])}{reason}; it is in no mean."
    partial = summary[(summary["runs_ok"] > 0) & (summary["runs_ok"] < summary["runs"])]
    for _, row in partial.iterrows():
        yield f"{row['trial']}: {row['runs_ok']} of {row['runs']} runs ended well; its figures are theirs."
    if note := machine_note(summary):
        yield note


def _against(row: pd.Series) -> str:
    return f"{accuracy_text(row, 'mean')} against {accuracy_text(row, 'baseline_mean')}"


def _name(row: pd.Series) -> str:
    return f"{representation_label(row['representation'])} ({view_label(row['view']).lower()})"


def _equals(p_value: float) -> str:
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"
