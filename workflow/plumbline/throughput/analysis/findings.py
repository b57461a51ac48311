"""The study's questions, answered in sentences with the numbers of its tables."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from plumbline.core.run.record import Outcome
from plumbline.core.statistics.rates import Ratio, rate_ratio
from plumbline.throughput.analysis.formatting import (
    bytes_text,
    named,
    percent,
    plural,
    range_text,
    rate_text,
    ratio_text,
)
from plumbline.throughput.analysis.frames import CELL, main_cell
from plumbline.throughput.analysis.quality import disturbance_text
from plumbline.throughput.analysis.quality_findings import disturbed_sentences
from plumbline.throughput.analysis.rates import timed
from plumbline.throughput.analysis.records import NOISE, cell_text, machine_note, main_engine
from plumbline.throughput.settings import BASE

NEAR = 0.7
"""Share of a ceiling from which on the limit that sets it is called what holds a trial back."""
CELLS_AT_MOST = 8


def findings(
    trials: pd.DataFrame,
    by_variant: pd.DataFrame,
    contrasts: pd.DataFrame,
    records: Sequence[dict[str, Any]],
    largest: Sequence[dict[str, Any]],
) -> str:
    """Markdown: how disturbed the run was, engines, compression, limits, what became of each trial, cautions."""
    sections = {
        "How undisturbed the measurements were": disturbed_sentences(trials),
        "Which engine is the fastest": _engines(trials, contrasts, records),
        "What compression buys": _compression(by_variant, trials),
        "What limits the speed": _limits(trials),
        "How batch and length matter": _scaling(trials),
        "What became of the trials": _outcomes(trials, by_variant, largest),
        "To be careful about": _cautions(trials, records),
    }
    text = "# What the throughput study found\n"
    for title, sentences in sections.items():
        lines = list(sentences) or ["Nothing to report."]
        text += f"\n## {title}\n\n" + "".join(f"- {line}\n" for line in lines)
    return text


def _engines(trials: pd.DataFrame, contrasts: pd.DataFrame, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    good = trials[trials["outcome"] == "ok"]
    by_trial = {record["trial"]: record for record in records}
    told = 0
    for key, group in good.groupby(["variant", *CELL], sort=False):
        if len(group) < 2:
            continue
        told += 1
        if told > CELLS_AT_MOST:
            yield "Further cells with several engines are in summary.csv."
            return
        ordered = group.sort_values("tokens_per_second", ascending=False)
        where = f"{key[0]} at {cell_text(ordered.iloc[0])}"
        yield f"{where}: {_fastest(ordered, by_trial)}."
        against = contrasts[(contrasts["kind"] == "engine") & contrasts["trial"].isin(group["trial"])]
        for _, row in against.sort_values("ratio", ascending=False).iterrows():
            yield f"{where}: {row['engine']} {_versus(row, row['baseline_engine'])}."
    if not told:
        yield "No cell has a good trial with more than one engine."


def _fastest(ordered: pd.DataFrame, by_trial: dict[str, dict[str, Any]]) -> str:
    """Which engine of a cell is the fastest, the trials by falling speed; only undisturbed ones are judged."""
    judged = ordered[ordered["disturbed"] == ""]
    if len(judged) < 2:
        disturbed = " ".join(ordered["disturbed"]).split()
        text = f"{ordered['engine'].iloc[0]} gave most, {rate_text(ordered.iloc[0])} tokens per second"
        return f"which engine is the fastest cannot be told, measured while {disturbance_text(disturbed)}; {text}"
    best = judged.iloc[0]
    batches = timed(by_trial[best["trial"]])
    near = [
        row["engine"]
        for _, row in judged.iloc[1:].iterrows()
        if rate_ratio(batches, timed(by_trial[row["trial"]])).direction(NOISE) != "faster"
    ]
    others = ", ".join(ordered.loc[ordered["disturbed"] != "", "engine"])
    of = f"{len(judged)} engines" + (f" (measured while disturbed, not judged: {others})" if others else "")
    if near:
        names = f"{best['engine']}, {', '.join(near)}"
        return f"among the fastest of {of}: {names}; {best['engine']} gave {rate_text(best)} tokens per second"
    return f"{best['engine']} is the fastest of {of}, {rate_text(best)} tokens per second"


def _versus(row: pd.Series, baseline: str, name: str = "ratio") -> str:
    """`gives 2.31 [2.25, 2.40] times the tokens per second of generate`, with what keeps that from being a verdict."""
    text = f"gives {ratio_text(row, name)} times the tokens per second of {baseline}"
    if row["dtypes"]:
        text += f" ({row['dtypes']})"
    if row["disturbed"]:
        return f"{text}: cannot tell, measured while {disturbance_text(row['disturbed'].split())}"
    direction = Ratio(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"]).direction(NOISE)
    return (
        text
        + {
            "faster": "",
            "slower": "",
            "equal": f": no difference beyond {NOISE:.0%}",
            "unclear": f": cannot tell, the interval reaches across {NOISE:.0%}",
            "unknown": ": cannot tell, a single batch has no interval",
        }[direction]
    )


def _compression(by_variant: pd.DataFrame, trials: pd.DataFrame) -> Iterator[str]:
    base = by_variant[by_variant["variant"] == BASE]
    place = main_cell(trials)
    reference = base.iloc[0] if len(base) else None
    where = f"at {cell_text(place)} with engine {place['engine']}"
    for _, row in by_variant[by_variant["variant"] != BASE].iterrows():
        if not math.isnan(row["speedup"]):
            size = _size(row, reference)
            yield (
                f"{row['variant']}{size} {where} {_versus(row, 'the base', 'speedup')}{_perplexity(row, reference)}."
            )
    for _, row in by_variant[by_variant["peak_bytes"] > 0].iterrows():
        yield f"Memory of {row['variant']} {where}: {_memory(row, reference)}."
    yield from _methods(by_variant)


def _memory(row: pd.Series, base: pd.Series | None) -> str:
    """What weights and cache take of the peak; then how both compare with the base's."""
    live = row["weights_bytes"] + row["kv_bytes"]
    text = (
        f"weights and KV cache take {bytes_text(live)}, {percent(live / row['peak_bytes'])} of the process's peak of "
        f"{bytes_text(row['peak_bytes'])}"
    )
    if base is None or row["variant"] == BASE or not base["peak_bytes"] > 0:
        return text
    times = live / (base["weights_bytes"] + base["kv_bytes"])
    return f"{text}; that is {times:.2f} times the base's, the peak {row['peak_bytes'] / base['peak_bytes']:.2f} times"


def _size(row: pd.Series, base: pd.Series | None) -> str:
    """` (ratio 0.8, 87% of all parameters)`; of a folder of one's own it is only named so."""
    parts = []
    if not math.isnan(row["ratio"]):
        parts.append(f"ratio {row['ratio']:.3g}" + (" as named" if row["method"] == "own" else ""))
    parts += _parameters(row, base)
    return f" ({', '.join(parts)})" if parts else ""


def _parameters(row: pd.Series, base: pd.Series | None) -> list[str]:
    if base is None or pd.isna(row["parameters"]) or pd.isna(base["parameters"]):
        return []
    return [f"{row['parameters'] / base['parameters']:.0%} of all parameters"]


def _perplexity(row: pd.Series, base: pd.Series | None) -> str:
    if math.isnan(row["perplexity"]) or base is None or math.isnan(base["perplexity"]):
        return ""
    return f"; its perplexity is {row['perplexity']:,.2f}, the base's {base['perplexity']:,.2f}"


def _methods(by_variant: pd.DataFrame) -> Iterator[str]:
    known = by_variant[by_variant["perplexity"].notna()]
    if known.empty:
        yield "No variant has a perplexity: there was no tokenizer, or no text."
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
        which = {"bandwidth": "the memory's bandwidth", "compute": "the matmul rate"}.get(str(limit), str(limit))
        yield (
            f"Where {which} sets the ceiling, a trial decodes at {range_text(group['ceiling_share'])} of it; "
            f"{near} of {plural(len(group), 'trial')} {'reaches' if near == 1 else 'reach'} {NEAR:.0%} or more."
        )
    best = known.sort_values("ceiling_share", ascending=False).iloc[0]
    where = f"The nearest is {best['trial']}, at {percent(best['ceiling_share'])}"
    if best["disturbed"]:
        where += f" (measured while {disturbance_text(best['disturbed'].split())})"
    if best["ceiling_share"] > 1:
        yield (
            f"{where}: more than the limits as measured, so that what it reads lies in a cache, or the limit was "
            "measured low."
        )
    elif best["ceiling_share"] >= NEAR:
        yield f"{where}: there the limit is what holds it back."
    else:
        yield f"{where}: neither limit holds a trial back, but what happens between the operations: overhead."


def _scaling(trials: pd.DataFrame) -> Iterator[str]:
    mine = trials[(trials["outcome"] == "ok") & (trials["variant"] == BASE)]
    mine = mine[mine["engine"] == main_engine(list(trials["engine"]))]
    for axis, others in (("batch", ["prompt", "generated"]), ("generated", ["prompt", "batch"])):
        groups = [group for _, group in mine.groupby(others) if group[axis].nunique() > 1]
        if not groups:
            continue
        group = max(groups, key=lambda group: (group[axis].nunique(), -group[others[1]].iloc[0])).sort_values(axis)
        first, last = group.iloc[0], group.iloc[-1]
        flags = [*first["disturbed"].split(), *last["disturbed"].split()]
        doubt = f" (cannot be relied on, measured while {disturbance_text(flags)})" if flags else ""
        yield (
            f"{BASE} with {first['engine']}: {rate_text(first)} tokens per second at {cell_text(first)}, "
            f"{rate_text(last)} at {cell_text(last)}: {_times(last, first)} for {last[axis] / first[axis]:.3g} "
            f"times the {'batch' if axis == 'batch' else 'generated length'}{doubt}."
        )


def _times(last: pd.Series, first: pd.Series) -> str:
    return f"{last['tokens_per_second'] / first['tokens_per_second']:.3g} times the rate"


def _outcomes(trials: pd.DataFrame, by_variant: pd.DataFrame, largest: Sequence[dict[str, Any]]) -> Iterator[str]:
    counts = [(outcome.replace("_", " "), int((trials["outcome"] == outcome).sum())) for outcome in Outcome]
    parts = ", ".join(f"{count} {name}" for name, count in counts if count)
    yield f"Of {plural(len(trials), 'trial')}: {parts}."
    for title, frame in (("trial", trials), ("variant", by_variant)):
        failed = frame[frame["outcome"] != "ok"]
        for (outcome, message), group in failed.groupby(["outcome", failed["message"].fillna("")], sort=False):
            names = ", ".join(group[title])
            text = _reason(str(outcome), str(message))
            yield f"{names}: {text}."
    for record in largest:
        if record["outcome"] == Outcome.OK:
            yield f"Largest batch that fits, {record['trial']}: {_bracket(record)}."
        else:
            yield f"No largest batch, {record['trial']}: {_reason(record['outcome'], record['message'])}."


def _bracket(record: dict[str, Any]) -> str:
    """`at least 36,894; 37,590 did not fit`: the search ends where the two are near each other."""
    beyond = [int(probe["batch"]) for probe in record["probes"] if not probe["fits"]]
    why = "took too long to tell" if record["bound"] == Outcome.TIMEOUT else "did not fit"
    return f"at least {record['largest']:,}" + (f"; {min(beyond):,} {why}" if beyond else "")


def _reason(outcome: str, message: str | None) -> str:
    """`out of memory (asked for 9 GB)`."""
    return outcome.replace("_", " ") + (f" ({message})" if message else "")


def _cautions(trials: pd.DataFrame, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        "An interval covers the spread of batches within one process. Two processes of one trial differ by more: "
        f"a difference is only called one where the whole interval is beyond {NOISE:.0%}, and absent only where it is "
        "whole within. `plumbline compare` of two runs shows how far this machine repeats itself."
    )
    good = trials[trials["outcome"] == "ok"]
    loose = good[good["converged"] == False]  # noqa: E712 a column of objects, where None is not known
    if len(loose):
        yield f"The interval did not reach the precision asked for in {named(loose)}."
    batches, slowed = good["successful_batches"].sum(), good.loc[good["slowed"] == False, "slowed_batches"].sum()  # noqa: E712
    if slowed:
        yield (
            f"{slowed:,.0f} of {batches:,.0f} batches do not count: the machine went slower beside them, as a small "
            "fixed piece of work showed that was timed between any two."
        )
    if "random" in set(trials["weights"]):
        yield "The weights are random: speed and memory mean something, the text does not."
    choices = good[["dtype", "attention"]].drop_duplicates()
    if len(choices) > 1:
        parts = ", ".join(f"{row['dtype']} with {row['attention']}" for _, row in choices.iterrows())
        yield f"Not all trials compute alike ({parts}): each took what was fastest with equal tokens; see summary.csv."
    if note := machine_note(records):
        yield note
