"""Where a trial's time went: spans that add up to its wall time."""

from collections.abc import Iterable

from plumbline.core.measure.spans import SPANS
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence


def ledger(trial: TrialEvidence) -> dict[str, float]:
    """Seconds by span; their sum is the trial's wall time.

    Beside the spans of the training loop: `suspended`, while the machine slept, and `outside_loop`: start of the
    process, imports, choosing the precision, writing the record, and work that a kill threw away.
    """
    spans = {name: trial.spans.get(name, 0.0) for name in SPANS}
    suspended = sum(interval.suspended for interval in trial.intervals)
    suspended = suspended if suspended > 0.001 else 0.0  # two reads of two clocks are microseconds apart
    outside = max(0.0, trial.wall - sum(spans.values()) - suspended)
    return {**spans, "suspended": suspended, "outside_loop": outside}


def total(ledgers: Iterable[dict[str, float]]) -> dict[str, float]:
    """The ledgers of several trials added up."""
    sums: dict[str, float] = {}
    for one in ledgers:
        for name, seconds in one.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums
