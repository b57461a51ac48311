"""What the turns of all blocks say: how long each variant takes against local, and against `full`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.core.statistics.rounds import Verdict, verdict
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import FULL, LOCAL, SENDING

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One variant, on one link, with one length of prompt, over all blocks."""

    link: str
    context: int
    name: str
    blocks: int
    rounds: int
    milliseconds: float
    """Per token: the median over rounds."""
    against_local: Ratio
    """How many times as long as local, by the rounds' ratios; of the control: A/A."""
    against_local_verdict: Verdict
    """Whether it is faster than local, or slower."""
    against_full: Ratio | None
    """How many times as long as `full`: what that knowledge saves. None for variants that send nothing."""
    against_full_verdict: Verdict | None
    """Whether it is faster than `full`, or slower."""
    bytes_per_token: float | None
    round_trips_per_token: float | None


def cells(records: Sequence[MeasureRecord]) -> list[Cell]:
    """Every variant on every link and context that was measured, in the records' order; the control beside `local`."""
    found: list[Cell] = []
    places = dict.fromkeys((one.link, part.context) for one in records for part in one.contexts)
    for link, context in places:
        parts = [part for one in records if one.link == link for part in one.contexts if part.context == context]
        arms = {
            name: [arm for part in parts for arm in part.arms if arm.name == name]
            for name in (arm.name for arm in parts[0].arms)
        }
        arms = {name: many for name, many in arms.items() if len(many) == len(parts)}  # Ray may be gone in later blocks
        seconds = {name: np.concatenate([np.array(arm.seconds) for arm in many]) for name, many in arms.items()}
        blocks = np.repeat(np.arange(len(parts)), [len(part.arms[0].seconds) for part in parts])
        local = np.sqrt(seconds[LOCAL] * seconds[CONTROL])
        aa = ratio_over_rounds(seconds[LOCAL], seconds[CONTROL], blocks)
        for name, many in arms.items():
            if name == LOCAL:
                continue
            base, full = seconds[LOCAL] if name == CONTROL else local, seconds[FULL]
            is_remote = name in SENDING and name != FULL
            found.append(
                Cell(
                    link=link,
                    context=context,
                    name=name,
                    blocks=len(parts),
                    rounds=len(blocks),
                    milliseconds=1e3 * float(np.median(seconds[name])),
                    against_local=ratio_over_rounds(seconds[name], base, blocks),
                    against_local_verdict=verdict(ratio_over_rounds(base, seconds[name], blocks), aa),
                    against_full=ratio_over_rounds(seconds[name], full, blocks) if is_remote else None,
                    against_full_verdict=verdict(ratio_over_rounds(full, seconds[name], blocks), aa)
                    if is_remote
                    else None,
                    bytes_per_token=mean(one.bytes_per_token for one in many),
                    round_trips_per_token=mean(one.round_trips_per_token for one in many),
                )
            )
    return found


def mean(values: Iterable[float | None]) -> float | None:
    """Over blocks, where all have one. An interface counts others' bytes too, and a stream's frames depend on time."""
    found = list(values)
    return None if None in found else float(np.mean(cast(list[float], found)))


def cells_frame(found: Sequence[Cell]) -> pd.DataFrame:
    """A row a cell."""
    rows = []
    for one in found:
        row: dict[str, object] = {"link": one.link, "context": one.context, "variant": one.name}
        row |= {"blocks": one.blocks, "rounds": one.rounds, "milliseconds_per_token": one.milliseconds}
        row |= ratio_columns("against_local", one.against_local)
        row |= {"against_local_verdict": str(one.against_local_verdict)}
        row |= ratio_columns("against_full", one.against_full)
        row |= {"against_full_verdict": one.against_full_verdict and str(one.against_full_verdict)}
        row |= {"bytes_per_token": one.bytes_per_token}
        rows.append(row | {"round_trips_per_token": one.round_trips_per_token})
    return pd.DataFrame(rows)


def ratio_columns(name: str, ratio: Ratio | None) -> dict[str, float]:
    """The value and the ends of its interval, NaN for None."""
    ends = (np.nan,) * 3 if ratio is None else (ratio.value, ratio.low, ratio.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
