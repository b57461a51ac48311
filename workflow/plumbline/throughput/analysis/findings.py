"""The study's questions, answered in sentences with the numbers of its tables."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import bytes_text, percent, plural, reason
from plumbline.core.run.record import Outcome
from plumbline.core.run.records import machine_note, machines
from plumbline.core.statistics.rounds import BAND, Verdict
from plumbline.throughput.analysis.formatting import excess_text, named, range_text, rate_text, ratio_text, share_text
from plumbline.throughput.analysis.frames import main_cell
from plumbline.throughput.analysis.quality import quality_sentences
from plumbline.throughput.analysis.records import cell_text
from plumbline.throughput.analysis.speedups import fastest, rivals
from plumbline.throughput.grid import main_engine
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import ComparisonRecord, MaxBatchRecord, TrialRecord
from plumbline.throughput.settings import BASE

ARRANGEMENTS = {
    "together": "with all candidates loaded",
    "pairs": "pair by pair, because memory did not hold all",
    "reloads": "pair by pair, reloaded for every turn, because memory did not hold two",
}
NEAR = 0.7
"""Share of a ceiling from which on the limit that sets it counts as the bottleneck."""


def findings(
    trials: pd.DataFrame,
    by_variant: pd.DataFrame,
    speedups: pd.DataFrame,
    records: Sequence[TrialRecord],
    comparisons: Sequence[ComparisonRecord],
    max_batches: Sequence[MaxBatchRecord],
    manifests: Sequence[Manifest],
) -> str:
    """Markdown: measurement quality, engines, compression, limits, scaling, outcomes, caveats."""
    sections = {
        "How good the measurements are": [*quality_sentences(trials), *_comparisons(comparisons, speedups)],
        "Which engine is fastest": _engines(trials, comparisons, speedups),
        "What compression buys": _compression(by_variant, trials, speedups),
        "What limits the speed": _limits(trials),
        "How batch size and length matter": _scaling(trials),
        "How the trials ended": _outcomes(trials, by_variant, comparisons, max_batches),
        "Caveats": [*_caveats(trials, records), *_notes(manifests)],
    }
    return findings_text("Findings of the throughput study", sections)


def _comparisons(comparisons: Sequence[ComparisonRecord], speedups: pd.DataFrame) -> Iterator[str]:
    """How each comparison was made, and what its baseline reached against itself."""
    for record in comparisons:
        rows = speedups[speedups["comparison"] == record.trial]
        if rows.empty:
            continue
        controls = rows.drop_duplicates("control")
        reached = ", ".join(ratio_text(row, "control") for _, row in controls.iterrows())
        rounds = " and ".join(f"{count:,}" for count in dict.fromkeys(rows["rounds"]))
        how = " and ".join(ARRANGEMENTS[name] for name in dict.fromkeys(rows["arrangement"]))
        how += f", in {rows['processes'].max()} processes"
        text = f"Comparison {record.trial}: {rounds} rounds {how}; {record.baseline} against itself (A/A) {reached}"
        if not rows["precise"].all():
            share = f"{record.spec['comparison']['precision']:.0%}" if "comparison" in record.spec else "the precision"
            text += f". The time was used up before every interval was within {share}"
        yield f"{text}."


def _engines(trials: pd.DataFrame, comparisons: Sequence[ComparisonRecord], speedups: pd.DataFrame) -> Iterator[str]:
    judged = [record for record in comparisons if record.question == "engines" and record.ok]
    for record in judged:
        where = f"{BASE} at {cell_text(record.model_dump())}"
        yield f"{where}: {_fastest(record)}."
        rows = speedups[speedups["comparison"] == record.trial].sort_values("ratio", ascending=False)
        for _, row in rows.iterrows():
            rate = trials.loc[trials["trial"] == row["trial"]].iloc[0]
            yield f"{where}: {row['candidate']} {_versus(row)}. In its own trial: {rate_text(rate)} tokens per second."
    if not judged:
        yield "No engines were compared."


def _fastest(record: ComparisonRecord) -> str:
    best = fastest(record)
    near, of = rivals(record, best), f"{len(record.candidates)} engines"
    if near:
        return f"{best} is among the fastest of {of}; {', '.join(near)} may be as fast"
    return f"{best} is the fastest of {of}"


def _versus(row: pd.Series) -> str:
    """`reaches 2.31 [2.25, 2.40] times the tokens per second of generate: faster`."""
    said = f"no difference beyond {BAND:.0%}" if row["verdict"] == Verdict.NO_DIFFERENCE else row["verdict"]
    return f"reaches {ratio_text(row)} times the tokens per second of {row['baseline']}: {said}"


def _compression(by_variant: pd.DataFrame, trials: pd.DataFrame, speedups: pd.DataFrame) -> Iterator[str]:
    base = by_variant[by_variant["variant"] == BASE]
    reference = base.iloc[0] if len(base) else None
    compared = speedups[speedups["question"] == "variants"]
    if reference is not None and list(by_variant["perplexity"].notna()).count(True) == 1:
        yield f"{BASE} has a perplexity of {reference['perplexity']:,.2f}; no other variant has one."
    for _, row in by_variant[by_variant["variant"] != BASE].iterrows():
        mine = compared[compared["variant"] == row["variant"]]
        if len(mine):
            cells = "; ".join(f"at {cell_text(each)} it {_versus(each)}" for _, each in mine.iterrows())
            engine = mine["engine"].iloc[0]
            yield f"{row['variant']}{_size(row, reference)} with engine {engine}: {cells}{_perplexity(row, reference)}."
        elif text := _perplexity(row, reference):
            yield f"{row['variant']}{_size(row, reference)}: no speed was compared{text}."
    place = main_cell(trials, speedups)
    for _, row in by_variant[by_variant["peak_bytes"] > 0].iterrows():
        where = f"{row['variant']} at {cell_text(place)} with engine {place['engine']}"
        yield f"Memory of {where}: {_memory(row, reference)}."
    yield from _methods(by_variant)


def _memory(row: pd.Series, base: pd.Series | None) -> str:
    """How much of the peak weights and cache take, and how both compare with the base."""
    live = row["weights_bytes"] + row["kv_bytes"]
    text = (
        f"weights and KV cache take {bytes_text(live)}, {percent(live / row['peak_bytes'])} of the process's peak of "
        f"{bytes_text(row['peak_bytes'])}"
    )
    if base is None or row["variant"] == BASE or not base["peak_bytes"] > 0:
        return text
    times = live / (base["weights_bytes"] + base["kv_bytes"])
    peaks = row["peak_bytes"] / base["peak_bytes"]
    return (
        f"{text}. That is {times:.2f} times the base's weights and cache, and the peak, of one process each, is"
        f" {peaks:.2f} times the base's"
    )


def _size(row: pd.Series, base: pd.Series | None) -> str:
    """` (ratio 0.8, 87% of all parameters)`. The ratio of a user-supplied folder is the one in its name."""
    parts = []
    if not math.isnan(row["ratio"]):
        share = share_text(row["ratio"], row["reached"])
        parts.append(
            f"ratio {share}" + (" by its name" if row["method"] == "user" and math.isnan(row["reached"]) else "")
        )
    if base is not None and not (pd.isna(row["parameters"]) or pd.isna(base["parameters"])):
        parts.append(f"{row['parameters'] / base['parameters']:.0%} of all parameters")
    return f" ({', '.join(parts)})" if parts else ""


def _perplexity(row: pd.Series, base: pd.Series | None) -> str:
    if math.isnan(row["perplexity"]) or base is None or math.isnan(base["perplexity"]):
        return ""
    text = f"; its perplexity is {row['perplexity']:,.2f}, the base's {base['perplexity']:,.2f}"
    return text if math.isnan(row["excess_nats"]) else f"{text} (loss {excess_text(row)} nats per token)"


def _methods(by_variant: pd.DataFrame) -> Iterator[str]:
    known = by_variant[by_variant["perplexity"].notna()]
    if known.empty:
        yield "No variant has a perplexity: there is no tokenizer or no text."
        return
    table = known[known["method"].isin(["plain", "whitened"])].pivot(
        index="ratio", columns="method", values="perplexity"
    )
    if not {"plain", "whitened"} <= set(table.columns):
        return
    both = table.dropna().sort_index(ascending=False)
    if both.empty:
        return
    better = int((both["whitened"] < both["plain"]).sum())
    parts = ", ".join(
        f"{ratio:.3g}: {row['whitened']:,.1f} against {row['plain']:,.1f}" for ratio, row in both.iterrows()
    )
    yield (
        f"Whitened SVD has the lower perplexity at {better} of {plural(len(both), 'ratio')} "
        f"(whitened against plain at {parts})."
    )


def _limits(trials: pd.DataFrame) -> Iterator[str]:
    known = trials[trials["ceiling_share"].notna()]
    apart = known["latency_agrees"] == False  # noqa: E712 a column of objects, where None is not known
    if apart.any():
        yield (
            f"Shares of the ceiling are given for {plural(int((~apart).sum()), 'trial')}; in the other {apart.sum()}, "
            "decoding ran at another speed in the token-latency pass than in the timed batches."
        )
    known = known[~apart]
    if known.empty:
        return
    for limit, group in known.groupby("binds"):
        near = int((group["ceiling_share"] >= NEAR).sum())
        name = {"bandwidth": "memory bandwidth", "compute": "the matmul rate"}[str(limit)]
        yield (
            f"Where {name} sets the ceiling, decoding reaches {range_text(group['ceiling_share'])} of it; "
            f"{near} of {plural(len(group), 'trial')} {'reaches' if near == 1 else 'reach'} {NEAR:.0%} or more."
        )
    best = known.sort_values("ceiling_share", ascending=False).iloc[0]
    where = f"{best['trial']} comes closest to its ceiling, at {percent(best['ceiling_share'])}"
    if best["ceiling_share"] > 1:
        yield f"{where}. That is above the measured limit, so the limit was measured too low."
    elif best["ceiling_share"] >= NEAR:
        yield f"{where}: the limit is its bottleneck."
    else:
        yield (
            f"{where}. So neither limit alone is the bottleneck of these trials; overhead between operations and slower"
            " kernels are left."
        )


def _scaling(trials: pd.DataFrame) -> Iterator[str]:
    good = trials[(trials["outcome"] == "ok") & (trials["variant"] == BASE)]
    good = good[good["engine"] == main_engine(list(trials["engine"]))]
    for axis, others in (("batch", ["prompt", "generated"]), ("generated", ["prompt", "batch"])):
        groups = [group for _, group in good.groupby(others) if group[axis].nunique() > 1]
        if not groups:
            continue
        group = max(groups, key=lambda group: (group[axis].nunique(), -group[others[1]].iloc[0])).sort_values(axis)
        rates = "; ".join(f"{rate_text(row)} at {cell_text(row)}" for _, row in group.iterrows())
        name = "batch size" if axis == "batch" else "generated length"
        engine = group.iloc[0]["engine"]
        yield f"{BASE} with {engine}, by {name}, in tokens per second, each from its own trial: {rates}."


def _outcomes(
    trials: pd.DataFrame,
    by_variant: pd.DataFrame,
    comparisons: Sequence[ComparisonRecord],
    max_batches: Sequence[MaxBatchRecord],
) -> Iterator[str]:
    counts = [(outcome.replace("_", " "), int((trials["outcome"] == outcome).sum())) for outcome in Outcome]
    parts = ", ".join(f"{count} {name}" for name, count in counts if count)
    yield f"Of {plural(len(trials), 'trial')}: {parts}."
    for title, frame in (("trial", trials), ("variant", by_variant)):
        failed = frame[frame["outcome"] != "ok"]
        for (outcome, message), group in failed.groupby(["outcome", failed["message"].fillna("")], sort=False):
            yield f"{', '.join(group[title])}: {reason(str(outcome), str(message))}."
    for compared in comparisons:
        for lost in compared.left_out:
            why = reason(lost.outcome, lost.message)
            yield f"Left out of the comparison {compared.trial}: {lost.name}: {why}."
        if not compared.ok:
            yield f"No comparison {compared.trial}: {reason(compared.outcome, compared.message)}."
    for record in max_batches:
        if record.ok:
            yield f"The largest batch that fits, {record.trial}: {_bracket(record)}."
        else:
            yield f"No batch fits, {record.trial}: {reason(record.outcome, record.message)}."


def _bracket(record: MaxBatchRecord) -> str:
    """`at least 36,894; 37,590 did not fit`: the search ends where the two are close."""
    beyond = [each.batch for each in record.tried_batches if not each.fits]
    others = {Outcome.TIMEOUT: "timed out", Outcome.UNAVAILABLE: "is more than the engine takes"}
    why = "did not fit" if record.bound is None else others.get(record.bound, "did not fit")
    return f"at least {record.largest:,}" + (f"; {min(beyond):,} {why}" if beyond else "")


def _caveats(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Iterator[str]:
    yield (
        "Only comparisons say what is faster or slower: their candidates took turns in random order, with the same "
        "dtype and threads. A verdict rests on the interval over rounds and processes, widened by what the baseline "
        f"reached against itself (A/A); a ratio within {BAND:.0%} of 1 is no difference. Trials run one after another "
        "on a machine whose speed changes, so their rates are not compared."
    )
    good = trials[trials["outcome"] == "ok"]
    loose = good[good["converged"] == False]  # noqa: E712 a column of objects, where None is not known
    if len(loose):
        yield f"The interval did not reach the requested precision in {named(loose)}."
    if "random" in set(trials["weights"]):
        yield "The weights are random: speed and memory are meaningful, the generated text is not."
    configs = good[["dtype", "attention"]].drop_duplicates()
    if len(configs) > 1:
        parts = ", ".join(f"{row['dtype']} with {row['attention']}" for _, row in configs.iterrows())
        yield (
            f"Not all trials compute in the same way ({parts}): each used the fastest configuration that gave the same "
            "tokens; summary.csv lists them, and speedups.csv those of the comparisons."
        )
    if note := machine_note(machines(records)):
        yield note


def _notes(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What the variants' manifests note; what all of them share is said once."""
    by_note: dict[str, list[str]] = {}
    for manifest in manifests:
        for note in manifest.notes:
            by_note.setdefault(note, []).append(manifest.variant)
    for note, variants in by_note.items():
        yield f"{', '.join(variants) if len(variants) < len(manifests) else 'All variants'}: {note}."
