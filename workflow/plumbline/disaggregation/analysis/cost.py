"""How near the cost model comes to what was measured, of families of operations and workloads that it has not seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.disaggregation.runtime.planning.calibration import Observation, calibrated
from plumbline.disaggregation.runtime.planning.cost_model import CostModel
from plumbline.disaggregation.settings import CAPTURE, FULL, MICRO, ROUND_TRIP, SPLIT
from plumbline.disaggregation.workload_record import WorkloadRecord


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one variant of a program took on a link, and what a model that has not seen its kind says."""

    workload: str
    family: str
    """Of the micro workload's programs; of another workload, its name."""
    program: str
    link: str
    variant: str
    measured: float
    """Seconds: over blocks, the geometric mean of the medians."""
    predicted: float
    """Seconds: over blocks, the geometric mean of what the model says of each."""

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the model puts a program on a link, out of the places that were measured."""

    family: str
    program: str
    link: str
    chosen: str
    best: str
    regret: float
    """Time of the chosen place over that of the best, less 1."""
    here_regret: float
    """The same for always the client's process, where the captured graph is replayed."""
    worker_regret: float
    """The same for always one worker: without cost_placement."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well the kinds that a calibration has not seen are predicted."""

    predictions: list[Prediction]
    """Of the micro workload, each by a model without its family; of other workloads, by that of all families."""
    placements: list[Placement]
    saved: dict[str, Ratio]
    """Link -> how many times as long all programs take on a worker as where the model puts them."""
    control: dict[str, Ratio]
    """Link -> A/A: how many times as long the second copy of the micro workload's round trip takes as the first."""
    model: CostModel
    """From all families."""


@dataclass(frozen=True)
class _Arm:
    """A variant in all blocks."""

    workload: str
    family: str
    program: str
    variant: str
    blocks: list[Observation]
    """What it takes and took in each block: a pipeline may be cut elsewhere in each."""

    @property
    def observation(self) -> Observation:
        """All blocks as one, of a variant that takes the same in each."""
        return replace(self.blocks[0], seconds=self.seconds)

    @property
    def seconds(self) -> float:
        """The geometric mean over blocks."""
        return float(np.exp(np.mean(np.log([one.seconds for one in self.blocks]))))


def judged(records: Sequence[WorkloadRecord]) -> Judged | None:
    """The judgement; None where the micro workload has no result."""
    measured = [one for one in records if one.ok]
    micro = [arm for arm in _arms(measured) if arm.workload == MICRO]
    families = list(dict.fromkeys(arm.family for arm in micro if arm.family))
    if len(families) < 2:
        return None
    model = calibrated([arm.observation for arm in micro])
    models = {family: calibrated([arm.observation for arm in micro if arm.family != family]) for family in families}
    others = [arm for arm in _arms(measured) if arm.workload != MICRO and arm.blocks[0].link in model.links]
    predictions = [_predicted(arm, models.get(arm.family, model)) for arm in [*micro, *others] if arm.family]
    placements = list(_placements(predictions, measured))
    return Judged(
        predictions=predictions,
        placements=placements,
        saved=_saved(placements, measured),
        control=_control(measured),
        model=model,
    )


def _arms(records: Sequence[WorkloadRecord]) -> Iterator[_Arm]:
    """Every arm whose costs are known, over the blocks in which its workload was measured on its link."""
    for workload, link in dict.fromkeys((one.workload, one.link) for one in records):
        blocks = [one for one in records if (one.workload, one.link) == (workload, link)]
        for name in blocks[0].costs.plans:
            observations = [_observation(one, name) for one in blocks]
            program, _, variant = name.rpartition("/")
            if workload == MICRO:
                yield _Arm(workload, program.partition("_")[0], program, variant, observations)
            else:
                yield _Arm(workload, workload, workload, name, observations)


def _observation(record: WorkloadRecord, name: str) -> Observation:
    """A variant in one block."""
    calls = record.costs.plans[name]
    work = {call.work: record.costs.work[call.work] for call in calls if call.work}
    (seconds,) = (float(np.median(arm.seconds)) for arm in record.arms if arm.name == name)
    return Observation(link=record.link, calls=calls, work=work, seconds=seconds)


def _predicted(arm: _Arm, model: CostModel) -> Prediction:
    predicted = [model.seconds(one.calls, one.work, one.link) for one in arm.blocks]
    return Prediction(
        workload=arm.workload,
        family=arm.family,
        program=arm.program,
        link=arm.blocks[0].link,
        variant=arm.variant,
        measured=arm.seconds,
        predicted=float(np.exp(np.mean(np.log(predicted)))),
    )


def _placements(predictions: Sequence[Prediction], records: Sequence[WorkloadRecord]) -> Iterator[Placement]:
    alone = {one.workload: one.undivided or one.serial for one in records}
    for place in dict.fromkeys((one.program, one.link) for one in predictions):
        own = [one for one in predictions if (one.program, one.link) == place]
        is_micro = own[0].workload == MICRO
        worker = FULL if is_micro else str(alone[own[0].workload])  # type: ignore[index]
        places = (CAPTURE, worker, SPLIT if is_micro else FULL)
        named = {one.variant: one for one in own if one.variant in places}
        chosen = min(named.values(), key=lambda one: one.predicted)
        best = min(named.values(), key=lambda one: one.measured)
        yield Placement(
            family=own[0].family,
            program=place[0],
            link=place[1],
            chosen=chosen.variant,
            best=best.variant,
            regret=chosen.measured / best.measured - 1,
            here_regret=named[places[0]].measured / best.measured - 1,
            worker_regret=named[worker].measured / best.measured - 1,
        )


def _saved(placements: Sequence[Placement], records: Sequence[WorkloadRecord]) -> dict[str, Ratio]:
    """Round by round, in the geometric mean over the micro workload's programs."""
    found: dict[str, Ratio] = {}
    for link in dict.fromkeys(one.link for one in records if one.workload == MICRO):
        blocks = [one for one in records if (one.workload, one.link) == (MICRO, link)]
        times = [{arm.name: np.log(arm.seconds) for arm in one.arms} for one in blocks]
        chosen = {
            one.program: one.chosen for one in placements if one.link == link and f"{one.program}/{FULL}" in times[0]
        }
        logs = [
            [np.mean([one[f"{program}/{where}"] for program, where in side.items()], axis=0) for one in times]
            for side in (dict.fromkeys(chosen, FULL), chosen)
        ]
        worker, placed = (np.exp(np.concatenate(side)) for side in logs)
        labels = np.repeat(np.arange(len(blocks)), [len(one) for one in logs[0]])
        found[link] = ratio_over_rounds(worker, placed, labels)
    return found


def _control(records: Sequence[WorkloadRecord]) -> dict[str, Ratio]:
    """Round by round."""
    found: dict[str, Ratio] = {}
    for link in dict.fromkeys(one.link for one in records if one.workload == MICRO):
        blocks = [one for one in records if (one.workload, one.link) == (MICRO, link)]
        times = [{arm.name: arm.seconds for arm in one.arms} for one in blocks]
        first, second = (np.concatenate([one[name] for one in times]) for name in (ROUND_TRIP, CONTROL))
        labels = np.repeat(np.arange(len(blocks)), [len(one[CONTROL]) for one in times])
        found[link] = ratio_over_rounds(second, first, labels)
    return found


def mean_error(predictions: Sequence[Prediction]) -> float:
    """Mean absolute relative error."""
    return float(np.mean([abs(one.error) for one in predictions]))


def rank_correlation(predictions: Sequence[Prediction]) -> float:
    """Spearman's, of predicted and measured times."""
    from scipy.stats import spearmanr

    return float(spearmanr([one.measured for one in predictions], [one.predicted for one in predictions]).statistic)
