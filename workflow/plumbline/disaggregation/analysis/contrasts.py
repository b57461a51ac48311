"""The comparisons that the config names beforehand, each tested over blocks and corrected for being one of many.

A block is a fresh set of processes and the unit of statistics: what it says of two variants is the median over its
rounds of the log ratio of their times.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.statistics.effect_sizes import cliffs_delta
from plumbline.core.statistics.equivalence import equivalence_p
from plumbline.core.statistics.hypothesis_tests import ALPHA, holm
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.core.statistics.resampled import corrected_mean
from plumbline.disaggregation.analysis.workloads import grouped
from plumbline.disaggregation.families import CONTROL_FAMILY, FAMILIES, Families
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import DECODING, LOCAL, MARGIN
from plumbline.disaggregation.workload_record import WorkloadRecord

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What was measured, and where."""

    workload: str
    link: str
    context: int | None = None
    """Tokens of the prompt, of decoding."""

    def __str__(self) -> str:
        where = f"context {self.context}" if self.context is not None else ""
        return ", ".join(filter(None, ("" if where else self.workload, self.link, where)))


Turns = Mapping[Place, Sequence[Mapping[str, Array]]]
"""Place -> seconds of each variant in each round, block by block."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How many times as long one variant takes as another, in one place."""

    family: str
    place: Place
    name: str
    base: str
    blocks: int
    ratio: Ratio
    p_value: float
    """Two-sided t-test of the blocks' log ratios against 0; NaN for one block."""
    p_corrected: float
    """The same after Holm's correction over the family, in all places."""
    wilcoxon_p: float
    """Two-sided signed-rank test over blocks, exact, uncorrected."""
    cliffs_delta: float
    """Of the blocks' median times, unpaired: 1 where each block of the variant is slower than all of the base's."""
    equivalence_p: float
    """That the ratio is 1 + MARGIN or more, or its inverse or less (TOST over blocks)."""

    @property
    def is_significant(self) -> bool:
        """Whether the corrected test finds a difference."""
        return self.p_corrected < ALPHA

    @property
    def is_equivalent(self) -> bool:
        """Whether the times are shown to be within MARGIN of each other: by TOST over blocks, and by the interval,
        which covers the rounds as well.
        """
        least, most = 1 / (1 + MARGIN), 1 + MARGIN
        return self.equivalence_p < ALPHA and least < self.ratio.low and self.ratio.high < most


def decoding(records: Sequence[MeasureRecord]) -> Turns:
    """The turns of all blocks by link and prompt."""
    found: dict[Place, list[Mapping[str, Array]]] = {}
    for link in dict.fromkeys(one.link for one in records):
        for record in (one for one in records if one.link == link):
            for part in record.contexts:
                place = Place(workload=DECODING, link=link, context=part.context)
                found.setdefault(place, []).append({arm.name: np.array(arm.seconds) for arm in part.arms})
    return found


def calls(records: Sequence[WorkloadRecord]) -> Turns:
    """The turns of all blocks of the other workloads, by workload and link."""
    return {
        Place(workload=group[0].workload, link=group[0].link): [
            {arm.name: np.array(arm.seconds) for arm in one.arms} for one in group
        ]
        for group in grouped(records)
    }


def contrasts(turns: Turns, families: Families) -> list[Contrast]:
    """Every contrast of the families that was measured, family by family; then A/A."""
    named = {family: families.pairs(family) for family in FAMILIES}
    found = []
    for family, pairs in {**named, CONTROL_FAMILY: [(CONTROL, LOCAL)]}.items():
        own = list(_of_family(family, pairs, turns))
        corrected = holm([one.p_value for one in own])
        found += [replace(one, p_corrected=float(p)) for one, p in zip(own, corrected, strict=True)]
    return found


def least_wilcoxon_p(blocks: int) -> float:
    """The smallest p-value that the signed-rank test of so many blocks can give: all of one sign, both sides."""
    return 2.0 ** (1 - blocks)


def blocks_for_wilcoxon() -> int:
    """The fewest blocks with which that test can fall below ALPHA."""
    return next(blocks for blocks in range(1, 99) if least_wilcoxon_p(blocks) < ALPHA)


def contrasts_frame(found: Sequence[Contrast]) -> pd.DataFrame:
    """A row a contrast."""
    rows = []
    for one in found:
        row: dict[str, object] = {"family": one.family, "workload": one.place.workload, "link": one.place.link}
        row |= {"context": one.place.context, "variant": one.name, "against": one.base, "blocks": one.blocks}
        row |= {"ratio": one.ratio.value, "ratio_low": one.ratio.low, "ratio_high": one.ratio.high}
        row |= {"p_value": one.p_value, "p_corrected": one.p_corrected, "wilcoxon_p": one.wilcoxon_p}
        rows.append(row | {"cliffs_delta": one.cliffs_delta, "equivalence_p": one.equivalence_p})
    return pd.DataFrame(rows).astype({"context": "Int64"} if rows else {})


def _of_family(family: str, pairs: Sequence[tuple[str, str]], turns: Turns) -> Iterator[Contrast]:
    """The contrasts of a family, not yet corrected."""
    for place, parts in turns.items():
        for name, base in pairs:
            both = [pair for part in parts if (pair := _seconds(part, name, base)) is not None]
            if both:
                yield _contrast(family, place, name, base, both)


def _contrast(family: str, place: Place, name: str, base: str, both: Sequence[tuple[Array, Array]]) -> Contrast:
    """From the seconds of both variants in each block."""
    logs = np.array([np.median(np.log(ours / theirs)) for ours, theirs in both])
    ours, theirs = (np.concatenate(side) for side in zip(*both, strict=True))
    blocks = np.repeat(np.arange(len(both)), [len(one) for one, _ in both])
    medians = [[float(np.median(pair[side])) for pair in both] for side in (0, 1)]
    return Contrast(
        family=family,
        place=place,
        name=name,
        base=base,
        blocks=len(both),
        ratio=ratio_over_rounds(ours, theirs, blocks),
        p_value=corrected_mean(logs, test_over_train=0).p_value,
        p_corrected=float("nan"),
        wilcoxon_p=_wilcoxon(logs),
        cliffs_delta=cliffs_delta(medians[0], medians[1]),
        equivalence_p=equivalence_p(logs, float(np.log1p(MARGIN))),
    )


def _wilcoxon(logs: Array) -> float:
    """Two-sided exact p-value that the blocks' log ratios are symmetric about 0; 1 where all are 0."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(logs, method="exact").pvalue) if logs.any() else 1.0


def _seconds(arms: Mapping[str, Array], name: str, base: str) -> tuple[Array, Array] | None:
    """Seconds of both variants in each round of a block; None where it has only one of them.

    Local is both of its turns, in the geometric mean, except against its own control.
    """
    if name not in arms or base not in arms:
        return None
    if base == LOCAL and name != CONTROL:
        return arms[name], np.sqrt(arms[LOCAL] * arms[CONTROL])
    return arms[name], arms[base]
