"""The study's questions, answered in sentences with the numbers of its tables."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import pandas as pd

from plumbline.ablation.analysis.contrasts import ONE_RUN, best_trial
from plumbline.ablation.analysis.labels import classifier_label, layers_label, representation_label, view_label
from plumbline.ablation.analysis.source_notes import source_notes
from plumbline.ablation.settings import FACTOR_STATISTICS
from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import MISSING, number, p_text, plural, reason, with_interval
from plumbline.core.run.records import machine_note
from plumbline.core.statistics.hypothesis_tests import ALPHA

LEVEL = f"{100 * ALPHA:.0f}%, Holm-corrected"


NAMED = 6
"""So many trials are named in a sentence."""


def findings(
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    curve: pd.DataFrame,
    curves: Sequence[Mapping[str, Any]] = (),
    source: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Markdown: best representation, product against factor view, visual layers, classifiers, chance, and caveats.

    curves: the learning curves that were planned, with why one was skipped, as stage `learning_curve` wrote them;
    source: what the source says of the adapters.
    """
    sections = {
        "Which representation predicts best?": _best(summary),
        "Do the invariant (product) representations beat the factor statistics?": _invariance(contrasts),
        "Does a learned representation beat the others?": _learned(contrasts),
        "How much survives in the visual layers alone?": _drop(summary, contrasts),
        "How many training adapters does it take?": _learning_curve(curve, curves),
        "Do the answers depend on the classifier?": _classifiers(summary, contrasts),
        "Which trials beat chance?": _against_chance(summary),
        "Intervals and caveats": chain(_caveats(summary), source_notes(source, int(summary["rows"].max()))),
    }
    return findings_text("Findings of the ablation study", sections)


def accuracy_text(row: pd.Series, name: str = "test_accuracy") -> str:
    """`98.8% [98.1, 99.2]`."""
    mean, low, high = (100 * row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return with_interval(mean, low, high).replace(" [", "% [", 1)


def difference_text(row: pd.Series) -> str:
    """`+12.3 points [+11.0, +13.6] (p = 0.002, Holm = 0.031)`, or `+12.3 points, not tested (…)`."""
    if row["untested"]:
        return f"{number(100 * row['difference'], signed=True)} points, not tested ({row['untested']})"
    points = with_interval(100 * row["difference"], 100 * row["low"], 100 * row["high"], signed=True)
    mean, _, ends = points.partition(" ")
    return f"{mean} points {ends} (p {_equals(row['p_value'])}, Holm {_equals(row['p_holm'])})"


def _best(summary: pd.DataFrame) -> Iterator[str]:
    statistics = summary[(summary["view"] == "factor") & summary["representation"].isin(FACTOR_STATISTICS)]
    of_features = summary[summary["classifier"] != "transformer"]
    for layers, classifier in of_features[["layers", "classifier"]].drop_duplicates().itertuples(index=False):
        for title, trials in (("best representation", summary), ("best factor statistic", statistics)):
            best = best_trial(trials[(trials["layers"] == layers) & (trials["classifier"] == classifier)])
            if best is not None:
                yield (
                    f"{_where(layers, classifier)}: the {title} is {_with_view(best)}, with a test accuracy of "
                    f"{accuracy_text(best)} over {plural(best['runs_ok'], 'run')} "
                    "(chosen by validation accuracy)."
                )


def _invariance(contrasts: pd.DataFrame) -> Iterator[str]:
    chosen = contrasts[contrasts["family"].str.startswith("product_against_factor") & (contrasts["outcome"] == "ok")]
    for (layers, classifier), group in chosen.groupby(["layers", "classifier"], sort=False):
        where = _where(str(layers), str(classifier))
        for _, row in group[group["kind"] == "mean_of_counterparts"].iterrows():
            yield (
                f"{where}: averaged over the {row['trials'] // 2} statistics, the product view is {_verdict(row)} "
                f"the factor view: {_comparison(row)}."
            )
        pairs = group[(group["kind"] == "counterpart") & group["representation"].isin(FACTOR_STATISTICS)]
        if len(pairs):
            yield f"{where}: the product view is {_counted(pairs, 'the factor view', 'statistics')}."
        for _, row in group[group["kind"].isin(["over_best_statistic", "best_of"])].iterrows():
            yield (
                f"{where}: {_with_view(row)} is {_verdict(row)} the best factor statistic, "
                f"{representation_label(row['baseline_representation'])}: {_comparison(row)}."
            )


def _drop(summary: pd.DataFrame, contrasts: pd.DataFrame) -> Iterator[str]:
    chosen = contrasts[(contrasts["kind"] == "visual_drop") & (contrasts["outcome"] == "ok")]
    for (view, classifier), group in chosen.groupby(["view", "classifier"], sort=False):
        where = f"{view_label(str(view))}, {classifier_label(str(classifier))}"
        tested = group[group["untested"] == ""]
        lower = int((tested["significant"] & (tested["difference"] < 0)).sum())
        least, most = (number(100 * end, signed=True) for end in (group["difference"].max(), group["difference"].min()))
        answer = (
            f"{lower} of {plural(len(tested), 'representation')} {'is' if len(tested) == 1 else 'are'} significantly "
            f"less accurate when only self-attention layers are seen ({LEVEL}){_others_untested(group)}. "
        )
        span = f"ranges from {most} to {least}" if len(group) > 1 else f"is {most}"
        yield f"{where}: {answer if len(tested) else ''}The change {span} points."
        own = (summary["view"] == view) & (summary["classifier"] == classifier) & (summary["layers"] == "all_layers")
        best = best_trial(summary[own & summary["representation"].isin(group["representation"])])
        if best is None:
            continue
        row = group[group["representation"] == best["representation"]].iloc[0]
        relative = with_interval(*(100 * row[f"relative{end}"] for end in ("", "_low", "_high")), signed=True)
        relative = relative.replace(" [", "% [", 1).removesuffix(f" [{MISSING}]")
        yield (
            f"{where}: {representation_label(row['representation'])}, the best on all layers by validation accuracy, "
            f"changes by {difference_text(row)}, or {relative} relative: from "
            f"{accuracy_text(row, 'baseline_mean')} to {accuracy_text(row, 'mean')}."
        )


def _learned(contrasts: pd.DataFrame) -> Iterator[str]:
    for _, row in contrasts[(contrasts["kind"] == "learned") & (contrasts["outcome"] == "ok")].iterrows():
        best = f"{representation_label(row['baseline_representation'])}, {view_label(row['baseline_view']).lower()}"
        yield (
            f"{layers_label(row['layers'])}: canonical tokens, read by a Transformer, are {_verdict(row)} the best "
            f"other representation with {classifier_label(row['baseline_classifier'])} ({best}): {_comparison(row)}."
        )


def _learning_curve(curve: pd.DataFrame, curves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for skipped in (one for one in curves if one["skipped"]):
        name = f"{skipped['view']}/{skipped['layers']}/{skipped['representation']}"
        yield f"{name}: no smaller training sets, {skipped['skipped']}."
    points = curve.groupby(["view", "representation"], sort=False)
    for group in (group for _, group in points if len(group) > 1):
        first, last = group.iloc[0], group.iloc[-1]
        yield (
            f"{_where(first['layers'], 'linear')}: {_with_view(first)} goes from {accuracy_text(first)} with "
            f"{first['adapters']} training adapters to {accuracy_text(last)} with {last['adapters']}."
        )


def _classifiers(summary: pd.DataFrame, contrasts: pd.DataFrame) -> Iterator[str]:
    compared = contrasts[(contrasts["kind"] == "classifier") & (contrasts["outcome"] == "ok")]
    for (layers, one, two), group in compared.groupby(["layers", "baseline_classifier", "classifier"], sort=False):
        where, names = layers_label(str(layers)), (classifier_label(str(one)), classifier_label(str(two)))
        yield f"{where}: {names[1]} is {_counted(group, names[0], 'view and representation pairs')}."
        own = summary[summary["layers"] == layers]
        best = [
            _with_view(row) for name in (one, two) if (row := best_trial(own[own["classifier"] == name])) is not None
        ]
        ranks = float(group["mean"].corr(group["baseline_mean"], method="spearman"))
        answer = f"{best[0]} is best with both."
        if best[0] != best[1]:
            answer = f"Which is best depends on the classifier: {best[0]} with {names[0]}, {best[1]} with {names[1]}."
        yield f"{where}: the two rankings have a rank correlation of {number(ranks, 2)}. {answer}"
        turned = _verdicts_that_differ(contrasts[contrasts["layers"] == layers], str(one), str(two))
        if turned:
            yield f"{where}: whether the product view is better depends on the classifier for {', '.join(turned)}."


def _verdicts_that_differ(contrasts: pd.DataFrame, one: str, two: str) -> list[str]:
    """Representations whose product-against-factor verdict is not the same with two classifiers."""
    pairs = contrasts[(contrasts["kind"] == "counterpart") & (contrasts["untested"] == "")]
    verdicts = pairs.assign(verdict=[_verdict(row) for _, row in pairs.iterrows()])
    table = verdicts.pivot(index="representation", columns="classifier", values="verdict")
    if not {one, two} <= set(table):
        return []
    both = table[[one, two]].dropna()
    return [representation_label(str(name)) for name in both.index[both[one] != both[two]]]


def _against_chance(summary: pd.DataFrame) -> Iterator[str]:
    good = summary[summary["runs_ok"] > 0]
    if good.empty:
        return
    level = good["chance"].iloc[0]
    above = good["chance_p_holm"] <= ALPHA
    yield (
        f"{above.sum()} of {len(good)} trials are significantly above the chance level of {100 * level:.1f}% "
        f"({LEVEL}); each trial counts once per classifier. The test counts each adapter once, with the share of its "
        "runs that named its class, and treats adapters that share images as dependent (one-sided t-test with the "
        "cluster-robust variance over groups)."
    )
    if not above.all():
        named = [f"{_trial(row)} {accuracy_text(row)}" for _, row in good[~above].iterrows()]
        more = f" and {len(named) - NAMED} more (summary.csv)" if len(named) > NAMED else ""
        shown = ", ".join(named[:NAMED]) + more
        yield f"{len(named)} of {len(good)} trials are not significantly above chance: {shown}."


def _caveats(summary: pd.DataFrame) -> Iterator[str]:
    good = summary[summary["runs_ok"] > 0]
    if (good["test_over_train"] > 0).any():
        yield (
            "Intervals are 95% corrected resampled t intervals of the mean over a trial's runs, and contrasts are "
            "paired corrected resampled t-tests (Nadeau & Bengio 2003; Bouckaert & Frank 2004). They allow for the "
            "adapters that the runs share."
        )
        least, most = int(good["times_tested_least"].min()), int(good["times_tested_most"].max())
        yield f"Each adapter is tested in {plural(most, 'run') if least == most else f'{least} to {most} runs'}."
    elif len(good):
        yield (
            "All runs have the same split. Intervals are 95% t intervals over the runs: they cover the initial weights "
            "and the batch order, and neither the split nor new adapters."
        )
    for classifier in good.loc[good["copies"], "classifier"].drop_duplicates():
        yield (
            f"The runs of {classifier_label(str(classifier))} are copies ({ONE_RUN}): they count as one run, without "
            "an interval, and contrasts among them are not tested."
        )
    for _, row in summary[summary["outcome"] != "ok"].iterrows():
        yield f"{_trial(row)}: {reason(row['outcome'], row['message'])}. The trial is excluded from all means."
    for _, row in summary[(summary["runs_ok"] > 0) & (summary["runs_ok"] < summary["runs"])].iterrows():
        failed = row["runs"] - row["runs_ok"]
        yield f"{_trial(row)}: {failed} of {row['runs']} runs diverged and are excluded from all means."
    if note := machine_note(summary["machine"], "times"):
        yield note


def _counted(group: pd.DataFrame, baseline: str, noun: str) -> str:
    """For how many contrasts the sample is significantly better or worse than the baseline, and how many are untested.

    Without a test, for how many it is more accurate.
    """
    tested = group[group["untested"] == ""]
    if tested.empty:
        higher = int((group["difference"] > 0).sum())
        return f"more accurate than {baseline} for {higher} of {len(group)} {noun}{_others_untested(group)}"
    better = int((tested["significant"] & (tested["difference"] > 0)).sum())
    worse = int((tested["significant"] & (tested["difference"] < 0)).sum())
    return (
        f"significantly better than {baseline} for {better} of {len(tested)} {noun}, significantly worse for {worse} "
        f"and not significantly different for {len(tested) - better - worse} ({LEVEL}){_others_untested(group)}"
    )


def _others_untested(group: pd.DataFrame) -> str:
    """`; 3 not tested (one split and no random part)`; nothing where all were tested."""
    reasons = group.loc[group["untested"] != "", "untested"].value_counts(sort=False)
    return "".join(f"; {count} not tested ({why})" for why, count in reasons.items())


def _verdict(row: pd.Series) -> str:
    if row["untested"]:
        signs = {True: "more accurate than", False: "less accurate than"}
        return signs[row["difference"] > 0] if row["difference"] else "as accurate as"
    if not row["significant"]:
        return "not significantly different from"
    return f"significantly {'better' if row['difference'] > 0 else 'worse'} than"


def _comparison(row: pd.Series) -> str:
    """The difference, then the accuracies it is the difference of."""
    return f"{difference_text(row)}, {accuracy_text(row, 'mean')} against {accuracy_text(row, 'baseline_mean')}"


def _trial(row: pd.Series) -> str:
    return f"{row['trial']} ({classifier_label(row['classifier'])})"


def _where(layers: str, classifier: str) -> str:
    return f"{layers_label(layers)}, {classifier_label(classifier)}"


def _with_view(row: pd.Series) -> str:
    return f"{representation_label(row['representation'])} ({view_label(row['view']).lower()})"


def _equals(p_value: float) -> str:
    text = p_text(p_value)
    return text if text.startswith("<") else f"= {text}"
