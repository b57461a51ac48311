"""The study's questions, answered in sentences with the numbers of its tables."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import bytes_text, percent, plural, reason
from plumbline.core.run.record import Outcome
from plumbline.core.run.records import machine_note, machines
from plumbline.core.statistics.rates import Ratio, rate_ratio
from plumbline.throughput.analysis.formatting import named, range_text, rate_text, ratio_text
from plumbline.throughput.analysis.frames import CELL, main_cell
from plumbline.throughput.analysis.quality import noise_text, quality_sentences
from plumbline.throughput.analysis.rates import timed
from plumbline.throughput.analysis.records import NOISE, cell_text, main_engine
from plumbline.throughput.record import MaxBatchRecord, TrialRecord
from plumbline.throughput.settings import BASE

NEAR = 0.7
"""Share of a ceiling from which on the limit that sets it counts as the bottleneck."""
CELLS_AT_MOST = 8


def findings(
    trials: pd.DataFrame,
    by_variant: pd.DataFrame,
    contrasts: pd.DataFrame,
    records: Sequence[TrialRecord],
    max_batches: Sequence[MaxBatchRecord],
) -> str:
    """Markdown: measurement quality, engines, compression, limits, scaling, outcomes, caveats."""
    sections = {
        "How good the measurements are": quality_sentences(trials),
        "Which engine is fastest": _engines(trials, contrasts, records),
        "What compression buys": _compression(by_variant, trials),
        "What limits the speed": _limits(trials),
        "How batch size and length matter": _scaling(trials),
        "How the trials ended": _outcomes(trials, by_variant, max_batches),
        "Caveats": _caveats(trials, records),
    }
    return findings_text("Findings of the throughput study", sections)


def _engines(trials: pd.DataFrame, contrasts: pd.DataFrame, records: Sequence[TrialRecord]) -> Iterator[str]:
    good = trials[trials["outcome"] == "ok"]
    by_trial = {record.trial: record for record in records}
    count = 0
    for key, group in good.groupby(["variant", *CELL], sort=False):
        if len(group) < 2:
            continue
        count += 1
        if count > CELLS_AT_MOST:
            yield "Further cells with several engines are in summary.csv."
            return
        ordered = group.sort_values("tokens_per_second", ascending=False)
        where = f"{key[0]} at {cell_text(ordered.iloc[0])}"
        yield f"{where}: {_fastest(ordered, by_trial)}."
        against = contrasts[(contrasts["kind"] == "engine") & contrasts["trial"].isin(group["trial"])]
        for _, row in against.sort_values("ratio", ascending=False).iterrows():
            yield f"{where}: {row['engine']} {_versus(row, row['baseline_engine'])}."
    if not count:
        yield "No cell has successful trials with more than one engine."


def _fastest(ordered: pd.DataFrame, by_trial: dict[str, TrialRecord]) -> str:
    """Which engine of a cell is fastest, given its trials by falling speed; noisy ones are not judged."""
    judged = ordered[ordered["noisy"] == ""]
    if len(judged) < 2:
        sources = noise_text(" ".join(ordered["noisy"]).split())
        first = f"{ordered['engine'].iloc[0]} was fastest with {rate_text(ordered.iloc[0])} tokens per second"
        return f"{first}, but this is inconclusive: the measurements are noisy ({sources})"
    best = judged.iloc[0]
    batches = timed(by_trial[best["trial"]])
    near = [
        row["engine"]
        for _, row in judged.iloc[1:].iterrows()
        if rate_ratio(batches, timed(by_trial[row["trial"]])).direction(NOISE) != "faster"
    ]
    others = ", ".join(ordered.loc[ordered["noisy"] != "", "engine"])
    of = f"{len(judged)} engines" + (f" (too noisy to judge: {others})" if others else "")
    rate = f"{rate_text(best)} tokens per second"
    if near:
        return f"{best['engine']} is among the fastest of {of}, with {rate}; {', '.join(near)} may be as fast"
    return f"{best['engine']} is the fastest of {of}, with {rate}"


def _versus(row: pd.Series, baseline: str, name: str = "ratio") -> str:
    """`reaches 2.31 [2.25, 2.40] times the tokens per second of generate`, and what keeps that from being a verdict."""
    text = f"reaches {ratio_text(row, name)} times the tokens per second of {baseline}"
    if row["dtypes"]:
        text += f" ({row['dtypes']})"
    if row["noisy"]:
        return f"{text}: inconclusive, the measurements are noisy ({noise_text(row['noisy'].split())})"
    direction = Ratio(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"]).direction(NOISE)
    return (
        text
        + {
            "faster": "",
            "slower": "",
            "equal": f": no difference beyond {NOISE:.0%}",
            "unclear": f": inconclusive, the interval is not all on one side of {NOISE:.0%}",
            "unknown": ": inconclusive, a single batch has no interval",
        }[direction]
    )


def _compression(by_variant: pd.DataFrame, trials: pd.DataFrame) -> Iterator[str]:
    base = by_variant[by_variant["variant"] == BASE]
    place = main_cell(trials)
    reference = base.iloc[0] if len(base) else None
    where = f"at {cell_text(place)} with engine {place['engine']}"
    for _, row in by_variant[by_variant["variant"] != BASE].iterrows():
        if not math.isnan(row["speedup"]):
            versus = _versus(row, "the base", "speedup")
            yield f"{row['variant']}{_size(row, reference)} {where} {versus}{_perplexity(row, reference)}."
    for _, row in by_variant[by_variant["peak_bytes"] > 0].iterrows():
        yield f"Memory of {row['variant']} {where}: {_memory(row, reference)}."
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
    return f"{text}. That is {times:.2f} times the base's weights and cache, and {peaks:.2f} times its peak"


def _size(row: pd.Series, base: pd.Series | None) -> str:
    """` (ratio 0.8, 87% of all parameters)`. The ratio of a user-supplied folder is the one in its name."""
    parts = []
    if not math.isnan(row["ratio"]):
        parts.append(f"ratio {row['ratio']:.3g}" + (" by its name" if row["method"] == "user" else ""))
    if base is not None and not (pd.isna(row["parameters"]) or pd.isna(base["parameters"])):
        parts.append(f"{row['parameters'] / base['parameters']:.0%} of all parameters")
    return f" ({', '.join(parts)})" if parts else ""


def _perplexity(row: pd.Series, base: pd.Series | None) -> str:
    if math.isnan(row["perplexity"]) or base is None or math.isnan(base["perplexity"]):
        return ""
    return f"; its perplexity is {row['perplexity']:,.2f}, the base's {base['perplexity']:,.2f}"


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
    if best["noisy"]:
        where += f" (noisy: {noise_text(best['noisy'].split())})"
    if best["ceiling_share"] > 1:
        yield f"{where}. That is above the measured limit: it reads from a cache, or the limit was measured too low."
    elif best["ceiling_share"] >= NEAR:
        yield f"{where}: the limit is its bottleneck."
    else:
        yield f"{where}. Neither limit is the bottleneck of any trial: overhead between the operations is."


def _scaling(trials: pd.DataFrame) -> Iterator[str]:
    good = trials[(trials["outcome"] == "ok") & (trials["variant"] == BASE)]
    good = good[good["engine"] == main_engine(list(trials["engine"]))]
    for axis, others in (("batch", ["prompt", "generated"]), ("generated", ["prompt", "batch"])):
        groups = [group for _, group in good.groupby(others) if group[axis].nunique() > 1]
        if not groups:
            continue
        group = max(groups, key=lambda group: (group[axis].nunique(), -group[others[1]].iloc[0])).sort_values(axis)
        first, last = group.iloc[0], group.iloc[-1]
        sources = [*first["noisy"].split(), *last["noisy"].split()]
        doubt = f" This is inconclusive: the measurements are noisy ({noise_text(sources)})." if sources else ""
        times = last["tokens_per_second"] / first["tokens_per_second"]
        yield (
            f"{BASE} with {first['engine']}: {last[axis] / first[axis]:.3g} times the "
            f"{'batch size' if axis == 'batch' else 'generated length'} changes the rate by a factor of {times:.3g}, "
            f"from {rate_text(first)} tokens per second at {cell_text(first)} to {rate_text(last)} at "
            f"{cell_text(last)}.{doubt}"
        )


def _outcomes(trials: pd.DataFrame, by_variant: pd.DataFrame, max_batches: Sequence[MaxBatchRecord]) -> Iterator[str]:
    counts = [(outcome.replace("_", " "), int((trials["outcome"] == outcome).sum())) for outcome in Outcome]
    parts = ", ".join(f"{count} {name}" for name, count in counts if count)
    yield f"Of {plural(len(trials), 'trial')}: {parts}."
    for title, frame in (("trial", trials), ("variant", by_variant)):
        failed = frame[frame["outcome"] != "ok"]
        for (outcome, message), group in failed.groupby(["outcome", failed["message"].fillna("")], sort=False):
            yield f"{', '.join(group[title])}: {reason(str(outcome), str(message))}."
    for record in max_batches:
        if record.ok:
            yield f"The largest batch that fits, {record.trial}: {_bracket(record)}."
        else:
            yield f"No batch fits, {record.trial}: {reason(record.outcome, record.message)}."


def _bracket(record: MaxBatchRecord) -> str:
    """`at least 36,894; 37,590 did not fit`: the search ends where the two are close."""
    beyond = [each.batch for each in record.tried_batches if not each.fits]
    why = "timed out" if record.bound is Outcome.TIMEOUT else "did not fit"
    return f"at least {record.largest:,}" + (f"; {min(beyond):,} {why}" if beyond else "")


def _caveats(trials: pd.DataFrame, records: Sequence[TrialRecord]) -> Iterator[str]:
    yield (
        "Intervals cover the spread of batches within one process, and two processes of the same trial differ by more. "
        f"A difference is therefore only reported where the whole interval is beyond {NOISE:.0%}, and ruled out only "
        f"where the whole interval is within {NOISE:.0%}. `plumbline compare` of two runs shows how well this machine "
        "repeats itself."
    )
    good = trials[trials["outcome"] == "ok"]
    loose = good[good["converged"] == False]  # noqa: E712 a column of objects, where None is not known
    if len(loose):
        yield f"The interval did not reach the requested precision in {named(loose)}."
    batches, slowed = good["successful_batches"].sum(), good.loc[good["slowed"] == False, "slowed_batches"].sum()  # noqa: E712
    if slowed:
        yield (
            f"{slowed:,.0f} of {batches:,.0f} batches were discarded, because the machine ran slower beside them: a "
            "small fixed piece of work that is timed between batches took longer."
        )
    if "random" in set(trials["weights"]):
        yield "The weights are random: speed and memory are meaningful, the generated text is not."
    configs = good[["dtype", "attention"]].drop_duplicates()
    if len(configs) > 1:
        parts = ", ".join(f"{row['dtype']} with {row['attention']}" for _, row in configs.iterrows())
        yield (
            f"Not all trials compute in the same way ({parts}): each used the fastest configuration that gave the same "
            "tokens; summary.csv lists them."
        )
    if note := machine_note(machines(records)):
        yield note
