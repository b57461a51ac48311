"""Baselines by workloads: how long each takes over local, and why a cell that is missing is missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plumbline.core.present.formatting import reason
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.disaggregation.analysis.decode import Cell
from plumbline.disaggregation.analysis.workloads import WorkloadCell, ratio_text
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import BLIND, CAPTURE, COMPILED, DECODING, FULL, LOCAL, MICRO, OTHERS
from plumbline.disaggregation.workload_record import WorkloadRecord

SEVEN = (LOCAL, CAPTURE, *BLIND, FULL, *(name for name in OTHERS if name != COMPILED))
WORKLOADS = (DECODING, "llm_prefill", "vision_cnn", "multimodal_vqa", MICRO)
NOT_NAMED = ("not named", "not named in `baselines`")


@dataclass(frozen=True, kw_only=True)
class Square:
    """One baseline in one workload on one link."""

    workload: str
    context: int | None
    """Tokens of the prompt, of decoding."""
    link: str
    baseline: str
    ratio: Ratio | None
    """How many times as long as local; of the micro workload, the geometric mean over its programs."""
    missing: str = ""
    """What stands in its place where there is none, in a word."""
    why: str = ""
    """The same in a sentence's words."""

    @property
    def row(self) -> str:
        """What its row is called."""
        return self.workload if self.context is None else f"{self.workload}, {self.context}"


def squares(
    records: Sequence[MeasureRecord],
    others: Sequence[WorkloadRecord],
    found: Sequence[Cell],
    called: Sequence[WorkloadCell],
) -> list[Square]:
    """Every baseline but local in every workload and link that has records, whether it was measured there or not."""
    ratios: dict[tuple[str, int | None, str], dict[str, Ratio]] = {}
    for one in found:
        ratios.setdefault((DECODING, one.context, one.link), {})[one.name] = one.against_local
    for other in called:
        ratios.setdefault((other.workload, None, other.link), {})[other.name] = other.against_local
    ratios |= _micro(others)
    why = _reasons(records, others)
    measured = {(workload, link) for workload, _, link in ratios}
    for workload, link in why:
        if (workload, link) not in measured:
            ratios[workload, None, link] = {}
    asked = {name for own in ratios.values() for name in own} | {name for own in why.values() for name in own}
    names = [name for name in (*SEVEN[1:], COMPILED) if name != COMPILED or name in asked]
    return [
        Square(
            workload=workload,
            context=context,
            link=link,
            baseline=name,
            ratio=own.get(name),
            missing="" if name in own else why[workload, link].get(name, NOT_NAMED)[0],
            why="" if name in own else why[workload, link].get(name, NOT_NAMED)[1],
        )
        for (workload, context, link), own in sorted(ratios.items(), key=lambda one: WORKLOADS.index(one[0][0]))
        for name in names
    ]


def _micro(others: Sequence[WorkloadRecord]) -> dict[tuple[str, int | None, str], dict[str, Ratio]]:
    """Of the micro workload: each variant over local, round by round, in the geometric mean over programs."""
    found: dict[tuple[str, int | None, str], dict[str, Ratio]] = {}
    micro = [one for one in others if one.ok and one.workload == MICRO]
    for link in dict.fromkeys(one.link for one in micro):
        logs: dict[str, list[np.ndarray]] = {}
        lengths = []
        for record in (one for one in micro if one.link == link):
            own: dict[str, list[np.ndarray]] = {}
            for arm in record.arms:
                program, _, variant = arm.name.rpartition("/")
                if program:
                    own.setdefault(variant, []).append(np.log(arm.seconds))
            for variant, each in own.items():
                logs.setdefault(variant, []).append(np.mean(each, axis=0))
            lengths.append(len(record.arms[0].seconds))
        blocks = np.repeat(np.arange(len(lengths)), lengths)
        times = {name: np.exp(np.concatenate(each)) for name, each in logs.items() if len(each) == len(lengths)}
        found[MICRO, None, link] = {name: ratio_over_rounds(own, times[LOCAL], blocks) for name, own in times.items()}
    return found


def _reasons(
    records: Sequence[MeasureRecord], others: Sequence[WorkloadRecord]
) -> dict[tuple[str, str], dict[str, tuple[str, str]]]:
    """Workload and link -> baseline -> why it has no time there, in a word and in more."""
    found: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    every: list[tuple[str, MeasureRecord | WorkloadRecord]] = [(DECODING, one) for one in records]
    for workload, one in [*every, *((one.workload, one) for one in others)]:
        own = found.setdefault((workload, one.link), {})
        own |= {name: ("unavailable", f"unavailable: {text}") for name, text in one.unavailable.items()}
        if not one.ok:
            told = reason(one.outcome, None), reason(one.outcome, one.message)
            asked = [LOCAL, *BLIND, FULL, *one.spec["baselines"]]
            own |= {name: told for name in asked if name not in own}
    return found


def heat_frame(found: Sequence[Square]) -> pd.DataFrame:
    """A row a square."""
    rows = []
    for one in found:
        row: dict[str, object] = {"workload": one.workload, "context": one.context, "link": one.link}
        ends = (np.nan,) * 3 if one.ratio is None else (one.ratio.value, one.ratio.low, one.ratio.high)
        row |= {"baseline": one.baseline}
        row |= dict(zip(("against_local", "against_local_low", "against_local_high"), ends, strict=True))
        rows.append(row | {"missing": one.why})
    return pd.DataFrame(rows).astype({"context": "Int64"} if rows else {})


def heat_table(found: Sequence[Square]) -> pd.DataFrame:
    """A row a workload and link, a column a baseline."""
    names = list(dict.fromkeys(one.baseline for one in found))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for one in found:
        row = rows.setdefault((one.row, one.link), {"Workload": one.row.replace("_", " "), "Link": one.link})
        row[one.baseline.replace("_", " ")] = one.missing if one.ratio is None else ratio_text(one.ratio)
    return pd.DataFrame(rows.values(), columns=["Workload", "Link", *(name.replace("_", " ") for name in names)])


def cells_told(found: Sequence[Square]) -> Iterator[str]:
    """How many of the seven baselines in the five workloads were measured, and which were not."""
    own = [one for one in found if one.baseline != COMPILED]
    if not own:
        return
    seen = {(one.workload, one.baseline) for one in own if one.ratio is not None}
    seen |= {(workload, LOCAL) for workload, _ in seen}
    gone = _missing(own, seen)
    text = (
        f"{len(seen)} of {len(SEVEN) * len(WORKLOADS)} cells (seven baselines, local among them, in five workloads)"
        " were measured, each on"
        " at least one link, and the outputs of every turn agreed with local's: tokens exactly, numbers up to"
        " rounding."
    )
    yield text + (f" Missing: {'; '.join(f'{what} ({why})' for what, why in gone.items())}." if gone else "")


def _missing(own: Sequence[Square], seen: set[tuple[str, str]]) -> Mapping[str, str]:
    """What is measured nowhere -> why."""
    workloads = dict.fromkeys(one.workload for one in own)
    found = {workload: "not named in `workloads`" for workload in WORKLOADS if workload not in workloads}
    reasons = {(one.baseline, one.workload): one.why for one in own if one.ratio is None}
    grouped: dict[tuple[str, str], list[str]] = {}
    for (baseline, workload), why in reasons.items():
        if (workload, baseline) not in seen:
            grouped.setdefault((baseline, why), []).append(workload)
    return found | {f"{name} in {', '.join(where)}": why for (name, why), where in grouped.items()}
