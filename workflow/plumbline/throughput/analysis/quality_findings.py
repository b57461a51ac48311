"""How undisturbed a run was, in sentences."""

from collections.abc import Iterator

import pandas as pd

from plumbline.throughput.analysis.formatting import named, plural, range_text, were
from plumbline.throughput.analysis.quality import DISTURBANCES, PRESSURE_PERCENT, WIDE


def disturbed_sentences(trials: pd.DataFrame) -> Iterator[str]:
    """How many of the good trials were disturbed, and by what, a sentence each."""
    good = trials[trials["outcome"] == "ok"]
    if good.empty:
        return
    disturbed = good[good["disturbed"] != ""]
    if disturbed.empty:
        yield (
            f"None of {plural(len(good), 'good trial')} was disturbed, as far as its record knows: the machine was "
            "at full pace and not busy, warm-up became steady, the speed did not drift, and the batches did not "
            "scatter widely."
        )
        return
    of = f"of {plural(len(good), 'good trial')}"
    yield (
        f"{len(disturbed)} {of} {were(len(disturbed))} measured while something disturbed their speed. They are drawn "
        "hollow or pale in the figures, and no comparison with one of them gets a verdict."
    )
    for name in DISTURBANCES:
        mine = good[good["disturbed"].str.split().map(lambda names, name=name: name in names)]
        if len(mine):
            yield f"{len(mine)} {of}: {_disturbance(name, mine)}."


def _disturbance(name: str, trials: pd.DataFrame) -> str:
    """What the trials that have this disturbance have in common, with its range."""
    if name == "busy":
        pressure = trials["cpu_pressure_percent"]
        return (
            f"the machine was busy when they began: some process waited for a CPU for {range_text(pressure / 100)} of "
            f"the ten seconds before (above {PRESSURE_PERCENT:.0f}% counts)"
        )
    if name == "slowed":
        return (
            "the machine was at full pace, as a small fixed piece of work shows it, beside too few batches, or beside "
            f"no call of the pass that reads the clock at every token ({named(trials)})"
        )
    if name == "drifted":
        return f"their batches became faster or slower while timed ({named(trials)})"
    if name == "wide":
        return (
            f"their interval reaches {range_text(trials['interval_share'])} to either side, over {WIDE:.0f} times the "
            f"precision asked for ({named(trials)})"
        )
    return f"{DISTURBANCES[name]} when timing began ({named(trials)})"
