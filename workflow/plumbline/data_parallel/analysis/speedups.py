"""How many times as fast worlds and methods are, from the interleaved turns."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.core.statistics.rounds import Verdict, verdict
from plumbline.data_parallel.record import ComparisonRecord, Turns

BUSY_PERCENT = 5.0
"""A rank that waits longer for a core than this share of its turns runs on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """A candidate against one process."""

    turns: Turns
    ratio: Ratio
    """Tokens per second over those of one process."""
    of_ceiling: Ratio | None
    """Over those of as many independent processes; None for these and for one process."""
    verdict: Verdict

    @property
    def efficiency(self) -> Ratio:
        """The ratio over the number of processes."""
        value, low, high = (end / self.turns.world for end in (self.ratio.value, self.ratio.low, self.ratio.high))
        return Ratio(value=value, low=low, high=high)


def speedups(record: ComparisonRecord) -> list[Speedup]:
    """Every candidate but the baseline, the control first. Verdicts allow for the time that other processes took."""
    if not record.candidates:
        return []
    baseline, control, *others = record.candidates
    first, second = np.array(baseline.seconds), np.array(control.seconds)
    both = np.sqrt(first * second)
    aa = ratio_over_rounds(first, second, record.launches)
    ceilings = {turns.world: np.array(turns.seconds) for turns in others if turns.scaling == "independent"}
    taken = min((record.busy_percent or 0.0) / 100, 0.99)
    found = [Speedup(turns=control, ratio=aa, of_ceiling=None, verdict=verdict(aa, aa, taken=taken))]
    for turns in others:
        seconds = np.array(turns.seconds)
        ratio = ratio_over_rounds(both, seconds, record.launches)
        ceiling = ceilings.get(turns.world) if turns.method else None
        of_ceiling = None if ceiling is None else ratio_over_rounds(ceiling, seconds, record.launches)
        told = verdict(ratio, aa, taken=taken)
        found.append(Speedup(turns=turns, ratio=ratio, of_ceiling=of_ceiling, verdict=told))
    return found


def is_busy(record: ComparisonRecord) -> bool:
    """Whether other processes kept the ranks from the cores in most rounds."""
    return record.busy_percent is not None and record.busy_percent > BUSY_PERCENT


def speedups_frame(found: list[Speedup]) -> pd.DataFrame:
    """A row a candidate."""
    rows = []
    for one in found:
        row: dict[str, object] = {
            "candidate": one.turns.name,
            "method": one.turns.method,
            "world": one.turns.world,
            "scaling": "A/A" if one.turns.name == CONTROL else one.turns.scaling,
            "rounds": len(one.turns.seconds),
        }
        row |= {"speedup": one.ratio.value, "speedup_low": one.ratio.low, "speedup_high": one.ratio.high}
        for name, ends in (("efficiency", one.efficiency), ("of_ceiling", one.of_ceiling)):
            row |= {
                f"{name}{end}": getattr(ends, end.lstrip("_") or "value") if ends else np.nan
                for end in ("", "_low", "_high")
            }
        rows.append(row | {"verdict": str(one.verdict)})
    return pd.DataFrame(rows)
