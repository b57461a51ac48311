"""What the turns of all blocks say of the workloads of captured graphs: times, traffic, and how near the bound is."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.present.formatting import MISSING, with_interval
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.core.statistics.rounds import Verdict, verdict
from plumbline.disaggregation.analysis.decode import mean, ratio_columns
from plumbline.disaggregation.settings import FULL, LOCAL, MICRO
from plumbline.disaggregation.workload_record import CEILING, WorkloadRecord

Array = NDArray[np.float64]
UNAVAILABLE = "unavailable"
COLUMNS = ["Workload", "Link", "Variant", "Against local", "Against full", "kB per call", "Round trips"]


@dataclass(frozen=True, kw_only=True)
class WorkloadCell:
    """One variant of a workload on one link, over all blocks."""

    workload: str
    link: str
    name: str
    blocks: int
    rounds: int
    milliseconds: float
    """Of a call of the whole: the median over rounds."""
    units_per_second: float
    against_local: Ratio
    """How many times as long as local; of the control: A/A."""
    against_local_verdict: Verdict
    """Whether it is faster than local, or slower."""
    against_full: Ratio | None
    """How many times as long as `full`. None for local and for `full` itself."""
    against_full_verdict: Verdict | None
    """Whether it is faster than `full`, or slower."""
    bytes: float | None
    """None where nothing is sent, or nothing can count it."""
    round_trips: int | None


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """What two workers gain in a workload on one link, and how near that is to the best that they could."""

    workload: str
    link: str
    unit: str
    serial: str
    speedup: Ratio
    """`full` against the variant in which one worker does all the work."""
    ceiling: Ratio
    """How much work two workers at once do in the time in which one does its own: 2 where neither slows the other."""
    ideal: float
    """The bound for two perfect workers."""
    of_bound: Ratio
    """The speedup over the bound times half of the ceiling, round by round."""
    undivided: Ratio | None
    """`full` against one worker that takes the whole batch in one call, where `serial` takes it in parts."""


def workload_cells(records: Sequence[WorkloadRecord]) -> list[WorkloadCell]:
    """Every variant on every link that was measured, in the records' order; the control is local's second copy.

    Not of the micro workload, which calibrates the cost model.
    """
    return [cell for group in _groups(records) for cell in _cells(group)]


def grouped(records: Sequence[WorkloadRecord]) -> list[list[WorkloadRecord]]:
    """The records of each workload on each link that was measured."""
    return list(_groups(records))


def speedups(records: Sequence[WorkloadRecord]) -> list[Speedup]:
    """One for each workload and link that was measured."""
    return [_speedup(group) for group in _groups(records)]


def _groups(records: Sequence[WorkloadRecord]) -> Iterator[list[WorkloadRecord]]:
    measured = [one for one in records if one.ok and one.workload != MICRO]
    for workload, link in dict.fromkeys((one.workload, one.link) for one in measured):
        yield [one for one in measured if (one.workload, one.link) == (workload, link)]


def _seconds(group: Sequence[WorkloadRecord]) -> tuple[dict[str, Array], NDArray[np.intp]]:
    """Seconds by arm, and the block of each round."""
    arms = [{arm.name: np.array(arm.seconds) for arm in one.arms} for one in group]
    names = [name for name in arms[0] if all(name in one for one in arms)]  # Ray may have been there for some blocks
    seconds = {name: np.concatenate([one[name] for one in arms]) for name in names}
    return seconds, np.repeat(np.arange(len(group)), [len(one[LOCAL]) for one in arms])


def _cells(group: Sequence[WorkloadRecord]) -> Iterator[WorkloadCell]:
    seconds, blocks = _seconds(group)
    first, local = group[0], np.sqrt(seconds[LOCAL] * seconds[CONTROL])
    aa = ratio_over_rounds(seconds[LOCAL], seconds[CONTROL], blocks)
    for arm in first.arms:
        if arm.kind != "variant" or arm.name == LOCAL or arm.name not in seconds:
            continue
        own, full = seconds[arm.name], seconds[FULL]
        base = seconds[LOCAL] if arm.name == CONTROL else local
        is_other = arm.name not in (CONTROL, FULL)
        yield WorkloadCell(
            workload=first.workload,
            link=first.link,
            name=arm.name,
            blocks=len(group),
            rounds=len(blocks),
            milliseconds=1e3 * float(np.median(own)),
            units_per_second=len(own) * (first.units or 1) / float(own.sum()),
            against_local=ratio_over_rounds(own, base, blocks),
            against_local_verdict=verdict(ratio_over_rounds(base, own, blocks), aa),
            against_full=ratio_over_rounds(own, full, blocks) if is_other else None,
            against_full_verdict=verdict(ratio_over_rounds(full, own, blocks), aa) if is_other else None,
            bytes=mean(other.bytes for one in group for other in one.arms if other.name == arm.name),
            round_trips=arm.round_trips,
        )


def _speedup(group: Sequence[WorkloadRecord]) -> Speedup:
    seconds, blocks = _seconds(group)
    first, serial = group[0], seconds[str(group[0].serial)]
    probes = [seconds[arm.name] for arm in first.arms if arm.kind == "probe"]
    ideal = np.full(len(serial), first.bound) if first.bound else np.sum(probes, 0) / np.max(probes, 0)
    return Speedup(
        workload=first.workload,
        link=first.link,
        unit=str(first.unit),
        serial=str(first.serial),
        speedup=ratio_over_rounds(serial, seconds[FULL], blocks),
        ceiling=ratio_over_rounds(2 * serial, seconds[CEILING], blocks),
        ideal=float(np.median(ideal)),
        of_bound=ratio_over_rounds(seconds[CEILING], seconds[FULL] * ideal, blocks),
        undivided=ratio_over_rounds(seconds[first.undivided], seconds[FULL], blocks) if first.undivided else None,
    )


def workloads_frame(cells: Sequence[WorkloadCell], gains: Sequence[Speedup]) -> pd.DataFrame:
    """A row a cell; those of `full` have the speedup over one worker and its share of the bound."""
    rows = []
    found = {(one.workload, one.link): one for one in gains}
    for one in cells:
        row: dict[str, object] = {"workload": one.workload, "link": one.link, "variant": one.name}
        row |= {"blocks": one.blocks, "rounds": one.rounds, "milliseconds": one.milliseconds}
        row |= {"units_per_second": one.units_per_second}
        gain = found[one.workload, one.link] if one.name == FULL else None
        row |= ratio_columns("against_local", one.against_local)
        row |= {"against_local_verdict": str(one.against_local_verdict)}
        row |= ratio_columns("against_full", one.against_full)
        row |= {"against_full_verdict": one.against_full_verdict and str(one.against_full_verdict)}
        row |= ratio_columns("speedup", None if gain is None else gain.speedup)
        row |= ratio_columns("two_at_once", None if gain is None else gain.ceiling)
        row |= ratio_columns("share_of_bound", None if gain is None else gain.of_bound)
        row |= {"bound": None if gain is None else gain.ideal}
        rows.append(row | {"bytes": one.bytes, "round_trips": one.round_trips})
    return pd.DataFrame(rows)


def workloads_table(cells: Sequence[WorkloadCell], records: Sequence[WorkloadRecord]) -> pd.DataFrame:
    """Each cell with its intervals, bytes and round trips; then the baselines that could not run."""
    rows = []
    for one in cells:
        values = (
            one.workload.replace("_", " "),
            one.link,
            "local again" if one.name == CONTROL else one.name.replace("_", " "),
            ratio_text(one.against_local),
            MISSING if one.against_full is None else ratio_text(one.against_full),
            (UNAVAILABLE if one.round_trips else MISSING) if one.bytes is None else f"{one.bytes / 1000:,.1f}",
            MISSING if one.round_trips is None else str(one.round_trips),
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    gone = ((one.workload, one.link, name) for one in records if one.workload != MICRO for name in one.unavailable)
    for workload, link, name in dict.fromkeys(gone):
        texts = (workload.replace("_", " "), link, name.replace("_", " "), UNAVAILABLE, *[MISSING] * 3)
        rows.append(dict(zip(COLUMNS, texts, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def ratio_text(ratio: Ratio) -> str:
    """Value and interval."""
    return with_interval(ratio.value, ratio.low, ratio.high, digits=2)


def gains_told(gains: Sequence[Speedup], tested: Mapping[tuple[str, str, str], str]) -> Iterator[str]:
    """A sentence for each workload and link: what two workers gain.

    tested: workload, link and variant -> the p-value of what it takes more than `full`, in words.
    """
    for one in gains:
        test = tested.get((one.workload, one.link, one.serial))
        serial = f"{one.serial}, {test}" if test else one.serial
        yield (
            f"{one.workload}, {one.link}: full is {ratio_text(one.speedup)} times as fast as one worker"
            f" ({serial}). Two perfect workers would be {one.ideal:.2f} times as fast; here, two at once do"
            f" {ratio_text(one.ceiling)} times the work of one. Full reaches {ratio_text(one.of_bound)} of the bound"
            " that follows, round by round."
            + (
                f" One worker that takes the whole batch in one call, as it can without a pipeline, takes"
                f" {ratio_text(one.undivided)} times as long as full."
                if one.undivided is not None
                else ""
            )
        )
