"""Verdicts on ratios from interleaved rounds, each from an interval that the A/A control has widened."""

import math
from enum import StrEnum

from plumbline.core.statistics.rates import Ratio

BAND = 0.03
"""A ratio whose whole interval lies within this share of 1, either way, is no difference that matters."""


class Verdict(StrEnum):
    """What an interval says about a ratio of speeds."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"
    INCONCLUSIVE = "inconclusive"


def verdict(ratio: Ratio, control: Ratio, band: float = BAND, taken: float = 0.0) -> Verdict:
    """The verdict on a ratio, from its interval widened by what the A/A `control` shows: see `bias`.

    taken: the share of the candidates' time that other processes took, by which the interval is widened too: they may
    have taken it from either side alone.

    `no difference` where all of it is within `band` of 1; `faster` or `slower` where it excludes 1; `inconclusive`
    otherwise, and for everything when the control's own interval excludes the band.
    """
    edge, wider = math.log1p(band), bias(control) - math.log1p(-taken)
    if math.log(control.low) > edge or math.log(control.high) < -edge:
        return Verdict.INCONCLUSIVE
    low, high = math.log(ratio.low) - wider, math.log(ratio.high) + wider
    if -edge <= low and high <= edge:
        return Verdict.NO_DIFFERENCE
    if low > 0:
        return Verdict.FASTER
    return Verdict.SLOWER if high < 0 else Verdict.INCONCLUSIVE


def bias(control: Ratio) -> float:
    """What an A/A control cannot rule out, on a log scale: √(distance from 1² + standard error²)."""
    return math.hypot(math.log(control.value), control.half_width / 1.96)
