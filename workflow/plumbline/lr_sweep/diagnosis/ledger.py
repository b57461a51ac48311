"""Where the time of a trial went: spans that add up to its wall time."""

from collections.abc import Iterable

from plumbline.core.measure.spans import SPANS
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence


def ledger(trial: TrialEvidence) -> dict[str, float]:
    """Seconds by span; their sum is the trial's wall time.

    In addition to the spans of the training loop: `suspended`, while the machine slept, and `outside_loop`: start-up,
    imports, autotuning the arithmetic, writing the record, and work that a kill undid.
    """
    spans = {name: trial.spans.get(name, 0.0) for name in SPANS}
    suspended = sum(interval.suspended for interval in trial.intervals)
    suspended = suspended if suspended > 0.001 else 0.0  # two reads of two clocks are microseconds apart
    outside = max(0.0, trial.wall - sum(spans.values()) - suspended)
    return {**spans, "suspended": suspended, "outside_loop": outside}


def total(ledgers: Iterable[dict[str, float]]) -> dict[str, float]:
    """The sum of several trials' ledgers."""
    sums: dict[str, float] = {}
    for one in ledgers:
        for name, seconds in one.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums
