"""The comparisons that the study names beforehand, each tested over blocks and corrected for being one of many.

A block is a fresh set of processes and the unit of statistics: what it says of two variants is the median over its
rounds of the log ratio of their times.
"""

from collections.abc import Iterator, Sequence
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
from plumbline.disaggregation.record import Context, MeasureRecord
from plumbline.disaggregation.settings import (
    BLIND,
    CANNOT_STREAM,
    CAPTURE,
    FEATURES,
    FULL,
    LOCAL,
    MARGIN,
    NO_STREAM,
    OTHERS,
)

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Contrasts that answer one question, and are corrected together."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    """Variant and what it is compared with."""


FAMILIES = (
    Family(
        name="features",
        pairs=(
            *((variant, FULL) for variant in FEATURES.values()),
            *((FEATURES[feature], NO_STREAM) for feature in CANNOT_STREAM),
        ),
    ),
    Family(name="baselines", pairs=((FULL, LOCAL), (CAPTURE, LOCAL), *((name, FULL) for name in (*BLIND, *OTHERS)))),
    Family(name="control", pairs=((CONTROL, LOCAL),)),
)
"""Each on every link and with every prompt. A/A is a family of its own: it must show nothing."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """How many times as long one variant takes as another, on one link, with one length of prompt."""

    family: str
    link: str
    context: int
    name: str
    base: str
    blocks: int
    ratio: Ratio
    p_value: float
    """Two-sided t-test of the blocks' log ratios against 0; NaN for one block."""
    p_corrected: float
    """The same after Holm's correction over the family, all links and prompts."""
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
        """Whether the times are shown to be within MARGIN of each other."""
        return self.equivalence_p < ALPHA


def contrasts(records: Sequence[MeasureRecord]) -> list[Contrast]:
    """Every contrast of `FAMILIES` that was measured, family by family."""
    found = []
    for family in FAMILIES:
        own = list(_of_family(family, records))
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
        row: dict[str, object] = {"family": one.family, "link": one.link, "context": one.context}
        row |= {"variant": one.name, "against": one.base, "blocks": one.blocks}
        row |= {"ratio": one.ratio.value, "ratio_low": one.ratio.low, "ratio_high": one.ratio.high}
        row |= {"p_value": one.p_value, "p_corrected": one.p_corrected, "wilcoxon_p": one.wilcoxon_p}
        rows.append(row | {"cliffs_delta": one.cliffs_delta, "equivalence_p": one.equivalence_p})
    return pd.DataFrame(rows)


def _of_family(family: Family, records: Sequence[MeasureRecord]) -> Iterator[Contrast]:
    """The contrasts of a family, not yet corrected."""
    places = dict.fromkeys((one.link, part.context) for one in records for part in one.contexts)
    for link, context in places:
        parts = [part for one in records if one.link == link for part in one.contexts if part.context == context]
        for name, base in family.pairs:
            both = [pair for part in parts if (pair := _seconds(part, name, base)) is not None]
            if both:
                yield _contrast(family.name, link, context, name, base, both)


def _contrast(
    family: str, link: str, context: int, name: str, base: str, both: Sequence[tuple[Array, Array]]
) -> Contrast:
    """From the seconds of both variants in each block."""
    logs = np.array([np.median(np.log(ours / theirs)) for ours, theirs in both])
    ours, theirs = (np.concatenate(side) for side in zip(*both, strict=True))
    blocks = np.repeat(np.arange(len(both)), [len(one) for one, _ in both])
    medians = [[float(np.median(pair[side])) for pair in both] for side in (0, 1)]
    return Contrast(
        family=family,
        link=link,
        context=context,
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


def _seconds(part: Context, name: str, base: str) -> tuple[Array, Array] | None:
    """Seconds of both variants in each round of a block; None where it has only one of them.

    Local is both of its turns, in the geometric mean, except against its own control.
    """
    arms = {arm.name: np.array(arm.seconds) for arm in part.arms}
    if name not in arms or base not in arms:
        return None
    if base == LOCAL and name != CONTROL:
        return arms[name], np.sqrt(arms[LOCAL] * arms[CONTROL])
    return arms[name], arms[base]
