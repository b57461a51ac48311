"""The study's questions, answered in sentences with the numbers of its tables."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from plumbline.core.record import Outcome
from plumbline.core.tables import with_interval
from plumbline.throughput.frames import CELL, main_cell, main_engine
from plumbline.throughput.rates import Ratio
from plumbline.throughput.records import NOISE, cell_text, machine_note
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
    """Markdown: engines, compression, limits, memory, what became of each trial, cautions."""
    sections = {
        "Which engine is the fastest": _engines(trials, contrasts),
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


def rate_text(row: pd.Series) -> str:
    """`812 [801, 824]`, tokens per second; more digits where it is slow."""
    value = row["tokens_per_second"]
    digits = 0 if math.isnan(value) or value >= 100 else 1 if value >= 10 else 2
    return with_interval(value, row["tokens_per_second_low"], row["tokens_per_second_high"], digits=digits)


def ratio_text(row: pd.Series, name: str = "ratio") -> str:
    """`1.21 [1.19, 1.23]`."""
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits=2)


def _engines(trials: pd.DataFrame, contrasts: pd.DataFrame) -> Iterator[str]:
    good = trials[trials["outcome"] == "ok"]
    told = 0
    for key, group in good.groupby(["variant", *CELL], sort=False):
        if len(group) < 2:
            continue
        told += 1
        if told > CELLS_AT_MOST:
            yield "Further cells with several engines are in summary.csv."
            return
        best = group.sort_values("tokens_per_second", ascending=False).iloc[0]
        where = f"{key[0]} at {cell_text(best)}"
        yield f"{where}: {best['engine']} is the fastest of {len(group)} engines, {rate_text(best)} tokens per second."
        against = contrasts[(contrasts["kind"] == "engine") & contrasts["trial"].isin(group["trial"])]
        for _, row in against.sort_values("ratio", ascending=False).iterrows():
            yield f"{where}: {row['engine']} {_versus(row, row['baseline_engine'])}"
    if not told:
        yield "No cell has a good trial with more than one engine."


def _versus(row: pd.Series, baseline: str, name: str = "ratio") -> str:
    """`gives 2.31 [2.25, 2.40] times the tokens per second of generate.`"""
    text = f"gives {ratio_text(row, name)} times the tokens per second of {baseline}"
    ratio = Ratio(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"])
    if ratio.direction() in ("faster", "slower"):
        return f"{text}."
    return f"{text}: no difference beyond the {NOISE:.0%} by which two processes may differ."


def _compression(by_variant: pd.DataFrame, trials: pd.DataFrame) -> Iterator[str]:
    base = by_variant[by_variant["variant"] == BASE]
    place = main_cell(trials)
    reference = base.iloc[0] if len(base) else None
    for _, row in by_variant[by_variant["variant"] != BASE].iterrows():
        clauses = []
        if not math.isnan(row["speedup"]):
            clauses.append(_versus(row, "the base", "speedup").rstrip("."))
        if reference is not None and row["peak_bytes"] > 0 and reference["peak_bytes"] > 0:
            clauses.append(f"its peak memory is {row['peak_bytes'] / reference['peak_bytes']:.2f} times the base's")
        if clauses:
            size = "" if math.isnan(row["ratio"]) else f" (ratio {row['ratio']:.3g}{_parameters(row, reference)})"
            where = f" at {cell_text(place)} with engine {place['engine']}"
            yield f"{row['variant']}{size}{where} {'; '.join(clauses)}{_perplexity(row, reference)}."
    yield from _methods(by_variant)


def _parameters(row: pd.Series, base: pd.Series | None) -> str:
    if base is None or pd.isna(row["parameters"]) or pd.isna(base["parameters"]):
        return ""
    return f", {row['parameters'] / base['parameters']:.0%} of all parameters"


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
        f"Whitened SVD has the lower perplexity at {better} of {_plural(len(both), 'ratio')} "
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
            f"Where {which} sets the ceiling, a trial decodes at {_percent(group['ceiling_share'].min())} to "
            f"{_percent(group['ceiling_share'].max())} of it; {near} of {_plural(len(group), 'trial')} "
            f"{'reaches' if near == 1 else 'reach'} {NEAR:.0%} or more."
        )
    best = known.sort_values("ceiling_share", ascending=False).iloc[0]
    where = f"The nearest is {best['trial']}, at {_percent(best['ceiling_share'])}"
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
    mine = trials[(trials["outcome"] == "ok") & (trials["engine"] == main_engine(trials)) & (trials["variant"] == BASE)]
    for axis, others in (("batch", ["prompt", "generated"]), ("generated", ["prompt", "batch"])):
        groups = [group for _, group in mine.groupby(others) if group[axis].nunique() > 1]
        if not groups:
            continue
        group = max(groups, key=lambda group: (group[axis].nunique(), -group[others[1]].iloc[0])).sort_values(axis)
        first, last = group.iloc[0], group.iloc[-1]
        yield (
            f"{BASE} with {first['engine']}: {rate_text(first)} tokens per second at {cell_text(first)}, "
            f"{rate_text(last)} at {cell_text(last)}: {_times(last, first)} for {last[axis] / first[axis]:.3g} "
            f"times the {'batch' if axis == 'batch' else 'generated length'}."
        )


def _times(last: pd.Series, first: pd.Series) -> str:
    return f"{last['tokens_per_second'] / first['tokens_per_second']:.3g} times the rate"


def _outcomes(trials: pd.DataFrame, by_variant: pd.DataFrame, largest: Sequence[dict[str, Any]]) -> Iterator[str]:
    counts = [(outcome.replace("_", " "), int((trials["outcome"] == outcome).sum())) for outcome in Outcome]
    parts = ", ".join(f"{count} {name}" for name, count in counts if count)
    yield f"Of {_plural(len(trials), 'trial')}: {parts}."
    for title, frame in (("trial", trials), ("variant", by_variant)):
        failed = frame[frame["outcome"] != "ok"]
        for (outcome, message), group in failed.groupby(["outcome", failed["message"].fillna("")], sort=False):
            names = ", ".join(group[title])
            text = _reason(str(outcome), str(message))
            yield f"{names}: {text}."
    for record in largest:
        if record["outcome"] == Outcome.OK:
            late = " (larger ones took too long to tell)" if record.get("bound") == Outcome.TIMEOUT else ""
            yield f"Largest batch that fits, {record['trial']}: {record['largest']:,}{late}."
        else:
            yield f"No largest batch, {record['trial']}: {_reason(record['outcome'], record['message'])}."


def _reason(outcome: str, message: str | None) -> str:
    """`out of memory (asked for 9 GB)`."""
    return outcome.replace("_", " ") + (f" ({message})" if message else "")


def _cautions(trials: pd.DataFrame, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield (
        "An interval covers the spread of batches within one process. Two processes of one trial differ by more: "
        f"a difference is only called one where the whole interval is beyond {NOISE:.0%}. `plumbline compare` of two "
        "runs shows how far this machine repeats itself."
    )
    good = trials[trials["outcome"] == "ok"]
    loose = good[good["converged"] == False]  # noqa: E712 a column of objects, where None is not known
    if len(loose):
        yield f"The interval did not reach the precision asked for in {_named(loose)}."
    drifted = good[good["drifted"] == True]  # noqa: E712
    if len(drifted):
        yield f"The batches became faster or slower while timed in {_named(drifted)}."
    if "random" in set(trials["weights"]):
        yield "The weights are random: speed and memory mean something, the text does not."
    choices = good[["dtype", "attention"]].drop_duplicates()
    if len(choices) > 1:
        parts = ", ".join(f"{row['dtype']} with {row['attention']}" for _, row in choices.iterrows())
        yield f"Not all trials compute alike ({parts}): each took what was fastest with equal tokens; see summary.csv."
    if note := machine_note(records):
        yield note


def _named(trials: pd.DataFrame, most: int = 6) -> str:
    names = list(trials["trial"])
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
