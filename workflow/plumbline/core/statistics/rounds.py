"""Verdicts on ratios from interleaved rounds, each from an interval that the A/A control has widened."""

import math
from dataclasses import dataclass
from enum import StrEnum

from numpy.typing import ArrayLike

from plumbline.core.statistics.rates import ratio_over_rounds

BAND = 0.03
"""A ratio whose whole interval lies within this share of 1, either way, is no difference that matters."""


class Verdict(StrEnum):
    """What an interval says about a ratio of speeds."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, kw_only=True)
class RoundRatio:
    """How many times as fast a candidate is as the baseline, with its bootstrap 95% interval over rounds."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width, as a share of the ratio."""
        return (math.log(self.high) - math.log(self.low)) / 2

    def verdict(self, control: "RoundRatio", band: float = BAND) -> Verdict:
        """From the interval widened by what the A/A `control` shows: its distance from 1 and its standard error.

        `no difference` where all of it is within `band` of 1; `faster` or `slower` where it excludes 1;
        `inconclusive` otherwise, and for everything when the control's own interval excludes the band.
        """
        bias, edge = math.hypot(math.log(control.value), control.half_width / 1.96), math.log1p(band)
        if math.log(control.low) > edge or math.log(control.high) < -edge:
            return Verdict.INCONCLUSIVE
        low, high = math.log(self.low) - bias, math.log(self.high) + bias
        if -edge <= low and high <= edge:
            return Verdict.NO_DIFFERENCE
        if low > 0:
            return Verdict.FASTER
        return Verdict.SLOWER if high < 0 else Verdict.INCONCLUSIVE


def round_ratio(baseline: ArrayLike, candidate: ArrayLike, *, seed: int = 0) -> RoundRatio:
    """How many times as fast the candidate is: both (rounds,) seconds per unit of work. See `ratio_over_rounds`."""
    ratio = ratio_over_rounds(baseline, candidate, seed=seed)
    return RoundRatio(value=ratio.value, low=ratio.low, high=ratio.high)
