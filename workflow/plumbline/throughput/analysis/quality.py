"""Measurement quality of trials. It is for information: what is faster, comparisons say. Light to import."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from plumbline.core.present.formatting import plural
from plumbline.throughput.analysis.formatting import named, range_text
from plumbline.throughput.record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

PRECISION = 0.03
"""The default of `timing.precision`, for records without one."""
WIDE = 3.0
"""An interval this many times wider than the requested precision is far from converged."""
PRESSURE_PERCENT = 20.0
"""CPU pressure in the ten seconds before a trial above which the machine was busy."""
NOISY = (
    "the machine was busy when the trial began, warm-up had not become steady, the speed drifted, or the batches "
    "scattered widely"
)


def is_noisy(record: TrialRecord) -> bool:
    """Whether a trial's figures may be off by more than their intervals say: see NOISY."""
    precision = (record.spec.get("timing") or {}).get("precision") or PRECISION
    return (
        (record.machine.get("cpu_pressure_some_avg10_percent") or 0.0) > PRESSURE_PERCENT
        or record.warmup_steady is False
        or record.drifted is True
        or (record.interval_share or 0.0) > WIDE * precision
    )


def quality_sentences(trials: "pd.DataFrame") -> Iterator[str]:
    """How many of the successful trials are noisy, and in how many the latencies do not match the batches."""
    good = trials[trials["outcome"] == "ok"]
    if good.empty:
        return
    of = f"of {plural(len(good), 'successful trial')}"
    noisy = good[good["noisy"]]
    if len(noisy):
        yield f"{len(noisy)} {of} {'is' if len(noisy) == 1 else 'are'} noisy: {NOISY} ({named(noisy)})."
    else:
        yield f"None {of} is noisy, which would mean that {NOISY}."
    apart = good[good["latency_agrees"] == False]  # noqa: E712 a column of objects, where None is not known
    if len(apart):
        yield (
            f"In {len(apart)} {of} the calls of the token-latency pass took "
            f"{range_text(apart['latency_seconds_ratio'])} of the time of the timed batches, off by more than 10% "
            f"({named(apart)}). Their latencies, prefill and decode rates and shares of the ceiling do not describe "
            "the timed batches."
        )
