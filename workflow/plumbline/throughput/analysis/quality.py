"""Measurement quality: what makes a trial's speed too noisy for a verdict. Light to import."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from plumbline.core.present.formatting import plural
from plumbline.throughput.analysis.formatting import named, range_text
from plumbline.throughput.analysis.records import NOISE
from plumbline.throughput.record import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

WIDE = 3.0
"""An interval this many times wider than the requested precision is far from converged."""
PRESSURE_PERCENT = 20.0
"""CPU pressure in the ten seconds before a trial above which the machine was busy."""
NOISE_SOURCES = {
    "busy": "the machine was busy",
    "slowed": "the machine was not at full speed",
    "unsteady": "warm-up had not become steady",
    "drifted": "the speed drifted",
    "wide": "the batches scattered widely",
}
"""What makes a trial noisy, and how sentences put it."""


def noise_sources(record: TrialRecord) -> list[str]:
    """The keys of NOISE_SOURCES that apply to a trial, by what its record says of the machine and the batches."""
    precision = (record.spec.get("timing") or {}).get("precision") or NOISE
    found = {
        "busy": (record.machine.get("cpu_pressure_some_avg10_percent") or 0.0) > PRESSURE_PERCENT,
        "slowed": record.slowed is True or record.latency_slowed is True,
        "unsteady": record.warmup_steady is False,
        "drifted": record.drifted is True,
        "wide": (record.interval_share or 0.0) > WIDE * precision,
    }
    return [name for name in NOISE_SOURCES if found[name]]


def noise_text(names: Sequence[str]) -> str:
    """Noise sources in a sentence: `the machine was busy and the speed drifted`."""
    texts = [text for name, text in NOISE_SOURCES.items() if name in names]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def quality_sentences(trials: "pd.DataFrame") -> Iterator[str]:
    """How many of the successful trials are noisy, and why, a sentence each."""
    good = trials[trials["outcome"] == "ok"]
    if good.empty:
        return
    noisy = good[good["noisy"] != ""]
    of = f"of {plural(len(good), 'successful trial')}"
    if noisy.empty:
        yield (
            f"None {of} looks noisy: the machine ran at full speed and was not busy, warm-up became steady, the speed "
            "did not drift, and the batches did not scatter widely."
        )
        return
    yield (
        f"{len(noisy)} {of} {'is' if len(noisy) == 1 else 'are'} noisy. The figures draw them hollow or pale, and no "
        "comparison with one of them gets a verdict."
    )
    for name in NOISE_SOURCES:
        affected = good[good["noisy"].str.split().map(lambda names, name=name: name in names)]
        if len(affected):
            yield f"{len(affected)} {of}: {_details(name, affected)}."


def _details(name: str, trials: "pd.DataFrame") -> str:
    """What the trials with this noise source have in common, with its range."""
    if name == "busy":
        pressure = trials["cpu_pressure_percent"]
        return (
            f"the machine was busy when they began. Processes had waited for a CPU during {range_text(pressure / 100)} "
            f"of the ten seconds before; more than {PRESSURE_PERCENT:.0f}% counts as busy"
        )
    if name == "slowed":
        return (
            "the machine ran at full speed, judged by a small fixed piece of work, during too few batches or during "
            f"no call of the latency pass ({named(trials)})"
        )
    if name == "drifted":
        return f"their batches became faster or slower over time ({named(trials)})"
    if name == "wide":
        return (
            f"their interval reaches {range_text(trials['interval_share'])} to either side, more than {WIDE:.0f} times "
            f"the requested precision ({named(trials)})"
        )
    return f"{NOISE_SOURCES[name]} when timing began ({named(trials)})"
