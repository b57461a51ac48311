"""The cost model's predictions as tables, and what they show in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from plumbline.core.present.formatting import number, percent, with_interval
from plumbline.core.statistics.bootstrap import clustered_interval, clustered_rank_interval
from plumbline.disaggregation.analysis.cost import Judged, Placement, Prediction, mean_error, rank_correlation
from plumbline.disaggregation.runtime.planning.cost_model import CostModel
from plumbline.disaggregation.settings import CAPTURE, MICRO

COLUMNS = ["Not calibrated with", "Programs", "Mean error", "Spearman", "Placed", "Always here", "Always on a worker"]
ALL = "all families"
TARGET_ERROR, TARGET_RANK, TARGET_REGRET = 0.15, 0.95, 0.05
"""The study's targets: at most, at least, at most."""
LEAST_PROGRAMS = 10
"""For an interval of the rank correlation: a bootstrap's is far too narrow with fewer."""
NOT_SIGNIFICANTLY = ", though not significantly"
"""Of a target that lies in the interval."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one kind of programs is predicted, over all links."""

    name: str
    is_micro: bool
    programs: int
    error: float
    """Mean absolute relative error over programs, variants and links, with the interval over programs."""
    error_low: float
    error_high: float
    spearman: float
    """Rank correlation of predicted and measured times, with the interval over programs."""
    spearman_low: float
    spearman_high: float
    regret: float
    """Mean over programs and links, as the others."""
    worst_regret: float
    here_regret: float
    worker_regret: float

    @property
    def error_text(self) -> str:
        """In percent, with its interval, which one program alone does not give."""
        text = with_interval(100 * self.error, 100 * self.error_low, 100 * self.error_high)
        return f"{text if self.programs > 1 else number(100 * self.error)}%"

    @property
    def rank_text(self) -> str:
        """The correlation, with its interval where there are enough programs for one."""
        text = with_interval(self.spearman, self.spearman_low, self.spearman_high, digits=3)
        return text if self.programs >= LEAST_PROGRAMS else number(self.spearman, 3)


def scores(found: Judged) -> list[Score]:
    """Of all families left out in turn together, of each, and of each other workload."""
    groups = {ALL: [one for one in found.predictions if one.workload == MICRO]}
    for family in dict.fromkeys(one.family for one in found.predictions):
        groups[family] = [one for one in found.predictions if one.family == family]
    return [_score(name, own, found.placements) for name, own in groups.items()]


def _score(name: str, own: Sequence[Prediction], placements: Sequence[Placement]) -> Score:
    families = {one.family for one in own}
    placed = [one for one in placements if one.family in families]
    programs = np.unique([one.program for one in own], return_inverse=True)[1]
    low, high = clustered_interval([abs(one.error) for one in own], programs)
    ranks = clustered_rank_interval([one.measured for one in own], [one.predicted for one in own], programs)
    return Score(
        name=name,
        is_micro=own[0].workload == MICRO,
        programs=int(programs.max()) + 1,
        error=mean_error(own),
        error_low=low,
        error_high=high,
        spearman=rank_correlation(own),
        spearman_low=ranks[0],
        spearman_high=ranks[1],
        regret=float(np.mean([one.regret for one in placed])),
        worst_regret=max(one.regret for one in placed),
        here_regret=float(np.mean([one.here_regret for one in placed])),
        worker_regret=float(np.mean([one.worker_regret for one in placed])),
    )


def cost_frame(found: Judged | None) -> pd.DataFrame:
    """A row a prediction, and whether the model chooses that place, and whether it is the best."""
    if found is None:
        return pd.DataFrame()
    places = {(one.program, one.link): one for one in found.placements}
    rows = []
    for one in found.predictions:
        place = places[one.program, one.link]
        row: dict[str, object] = {"workload": one.workload, "family": one.family, "program": one.program}
        row |= {"link": one.link, "variant": one.variant, "measured_seconds": one.measured}
        row |= {"predicted_seconds": one.predicted, "relative_error": one.error}
        rows.append(row | {"is_chosen": one.variant == place.chosen, "is_best": one.variant == place.best})
    return pd.DataFrame(rows)


def cost_table(found: Judged | None) -> pd.DataFrame:
    """A row a score."""
    rows = []
    for one in scores(found) if found else ():
        values = (
            one.name.replace("_", " "),
            str(one.programs),
            one.error_text,
            one.rank_text,
            f"{100 * one.regret:.1f}% (at most {100 * one.worst_regret:.0f}%)",
            f"{100 * one.here_regret:.1f}%",
            f"{100 * one.worker_regret:.0f}%",
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def costs_told(found: Judged | None) -> Iterator[str]:
    """What the cost model can and cannot predict, in sentences."""
    if found is None:
        return
    first, *others = scores(found)
    error = _target(first.error <= TARGET_ERROR, f"at most {percent(TARGET_ERROR)}")
    if first.error_low <= TARGET_ERROR <= first.error_high:
        error += NOT_SIGNIFICANTLY
    rank = _target(first.spearman >= TARGET_RANK, f"at least {TARGET_RANK:g}")
    if first.spearman_low <= TARGET_RANK <= first.spearman_high:
        rank += NOT_SIGNIFICANTLY
    regret = _target(first.regret <= TARGET_REGRET, f"at most {percent(TARGET_REGRET)}")
    yield (
        f"Calibrated without a family of operations, the cost model predicts that family's times with a mean error"
        f" of {first.error_text} over programs ({error}) and a rank correlation of {first.rank_text} ({rank})."
    )
    yield (
        f"Where that model places a program, it takes {100 * first.regret:.1f}% longer than at the best measured place"
        f" ({regret}; worst case {100 * first.worst_regret:.0f}%). Always running in the client's process takes"
        f" {100 * first.here_regret:.1f}% longer than the best place, always running on one worker"
        f" {100 * first.worker_regret:.0f}%."
    )
    micro = [one for one in found.predictions if one.workload == MICRO]
    here = mean_error([one for one in micro if one.variant == CAPTURE])
    there = mean_error([one for one in micro if one.variant != CAPTURE])
    yield (
        f"The mean error is {100 * here:.0f}% for runs in the client's process, where only the operations take time,"
        f" and {100 * there:.0f}% for runs on workers. {_worst(micro)}"
    )
    for one in others:
        kind = f"Family {one.name}, held out" if one.is_micro else f"Workload {one.name}, never calibrated on"
        yield (
            f"{kind}: mean error {one.error_text}, rank correlation {one.rank_text}; placed by the model, it takes"
            f" {100 * one.regret:.1f}% longer than at the best place."
        )
    for link, ratio in found.saved.items():
        text = with_interval(ratio.value, ratio.low, ratio.high, digits=2)
        yield (
            f"Without `cost_placement`, that is, always on one worker, the micro workload's programs take {text} times"
            f" as long on {link} as where a model calibrated without their family places them (geometric mean)."
        )
    for link, ratio in found.control.items():
        text = with_interval(ratio.value, ratio.low, ratio.high, digits=2)
        yield f"The micro workload's round trip against itself (A/A) takes {text} times as long on {link}."
    yield _calibration(found.model)


def _worst(micro: Sequence[Prediction]) -> str:
    """The program that is furthest off, in the mean over its variants and links."""
    errors = {
        name: float(np.mean([one.error for one in micro if one.program == name]))
        for name in dict.fromkeys(one.program for one in micro)
    }
    name = max(errors, key=lambda one: abs(errors[one]))
    side = "fast" if errors[name] < 0 else "slow"
    return f"The furthest off is {name}, which is predicted too {side}, at {100 * (1 + errors[name]):.0f}% of its time."


def _target(is_met: bool, text: str) -> str:
    return f"target: {text}; {'met' if is_met else 'missed'}"


def _calibration(costs: CostModel) -> str:
    links = "; ".join(
        f"{name}: {1e6 * one.round_trip_seconds:.0f} µs per round trip, {8e-9 * one.bytes_per_second:.2g} Gbit/s"
        for name, one in costs.links.items()
    )
    return (
        f"Calibrated on all families, the model puts this machine at {costs.flops_per_second / 1e9:.0f} GFLOP/s and"
        f" {costs.memory_bytes_per_second / 1e9:.0f} GB/s, with overheads of {1e6 * costs.operation_seconds:.0f} µs per"
        f" operation, {1e6 * costs.graph_seconds:.0f} µs per graph, {1e6 * costs.call_seconds:.0f} µs per request and"
        f" {1e9 * costs.serialisation_seconds_per_byte:.2g} ns per byte at each end. While both workers compute, each"
        f" takes {costs.sharing:.2f} times as long. {links[0].upper()}{links[1:]}."
    )
