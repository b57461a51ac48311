"""Comparisons to speed-ups: how many times as fast each candidate is, with interval, verdict and A/A control."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.registry import short_name
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.core.statistics.rounds import Verdict, verdict
from plumbline.throughput.record import ComparisonRecord

COLUMNS = (
    "comparison", "question", "candidate", "baseline", "trial", "variant", "engine", "batch", "prompt", "generated",
    "ratio", "ratio_low", "ratio_high", "verdict", "control", "control_low", "control_high", "rounds", "processes",
    "precise", "arrangement", "dtype", "attention", "threads",
)  # fmt: skip
RATIO = ("ratio", "ratio_low", "ratio_high", "verdict", "control", "control_low", "control_high")


def speedups_frame(records: Sequence[ComparisonRecord]) -> pd.DataFrame:
    """One row per candidate and comparison: how many times as fast as the baseline it is.

    `ratio` has its 95% interval over rounds and processes in `_low` and `_high`; `control` is the baseline against
    itself in the same rounds (A/A), which widens the interval that `verdict` rests on.
    """
    rows = [row for record in records for row in _rows(record)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rivals(record: ComparisonRecord, name: str) -> list[str]:
    """The candidates that may be as fast as `name`: it is not `faster` than they are in the rounds that both were in.

    Where they share none, because memory held only pairs, not faster means that their intervals overlap.
    """
    mine = _ratio(record, name)
    found = []
    for other in (each.name for each in record.candidates if each.name != name):
        part = next((part for part in record.rounds if {name, other} <= set(part.names)), None)
        if part is None:
            faster = mine.low > _ratio(record, other).high
        else:
            rounds = part.rounds()
            theirs, ours = (rounds.seconds[:, part.names.index(each)] for each in (other, name))
            ratio = ratio_over_rounds(theirs, ours, rounds.processes)
            faster = verdict(ratio, rounds.ratio(CONTROL)) is Verdict.FASTER
        if not faster:
            found.append(other)
    return found


def fastest(record: ComparisonRecord) -> str:
    """The candidate with the highest ratio, the baseline being at 1."""
    return max((each.name for each in record.candidates), key=lambda name: _ratio(record, name).value)


def _ratio(record: ComparisonRecord, name: str) -> Ratio:
    if name == record.baseline:
        return Ratio(value=1.0, low=1.0, high=1.0)
    return next(part for part in record.rounds if name in part.names).rounds().ratio(name)


def _rows(record: ComparisonRecord) -> Iterator[dict[str, Any]]:
    for part in record.rounds if record.ok else []:
        rounds = part.rounds()
        control = rounds.ratio(CONTROL)
        for candidate in record.candidates:
            if candidate.name == record.baseline or candidate.name not in part.names:
                continue
            ratio = rounds.ratio(candidate.name)
            row: dict[str, Any] = {"comparison": record.trial, "question": record.question}
            row |= {"candidate": candidate.name, "baseline": record.baseline, "trial": candidate.trial}
            row |= {"variant": candidate.variant, "engine": short_name(candidate.engine)}
            row |= {"batch": record.batch, "prompt": record.prompt, "generated": record.generated}
            row |= {"ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high}
            row |= {"verdict": verdict(ratio, control).value}
            row |= {"control": control.value, "control_low": control.low, "control_high": control.high}
            row |= {"rounds": len(part.seconds), "processes": max(part.processes) + 1}
            row |= {"precise": part.precise, "arrangement": part.arrangement}
            yield row | candidate.engine_config.model_dump(include={"dtype", "attention", "threads"})
