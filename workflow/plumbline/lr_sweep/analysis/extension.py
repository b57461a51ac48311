"""Which learning rates a sweep adds automatically."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plumbline.lr_sweep.analysis.sweep import Sweep, best_index, best_or_stable, edge_of_stability, sweep_of
from plumbline.lr_sweep.record import TrialRecord
from plumbline.lr_sweep.settings import BRACKET


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The rates that a round may add."""

    below: Sequence[float] = ()
    """Below the grid, nearest first."""
    above: Sequence[float] = ()
    """Above the grid, nearest first."""
    between: Sequence[float] = ()
    """Inside the gaps of the grid."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """The rates to `add`, rising, a sentence that says `why`, or why there are none, and the best rate so far."""

    add: list[float]
    why: str
    best: float | None = None


def extension(records: Sequence[TrialRecord], candidates: Candidates) -> Extension:
    """The rates to train next: at most one on either side of the best rate, and at most one beyond the grid.

    A lower rate is missing when the best rate is the lowest, or when every rate diverged. A higher one is missing when
    the best rate is the highest, or when no rate above it diverged. A rate in between is missing when a neighbour of
    the best rate is more than BRACKET times away. records: all trials of the sweep so far.
    """
    sweep = sweep_of(records)
    if not sweep.measured.any():
        return Extension(add=[], why="no trial has a loss, so nothing says in which direction to extend the grid.")
    best = best_or_stable(sweep)
    rate = None if best is None else float(sweep.rates[best])
    if not (candidates.below or candidates.above or candidates.between):
        return Extension(add=[], why="this is the last round, so no rates are added.", best=rate)
    add, reasons = _beyond(sweep, best, candidates)
    inside = _between(sweep, best_index(sweep), candidates.between, extending=bool(add))
    if inside:
        names = " and ".join(f"{rate:g}" for rate in inside)
        reasons.append(f"the neighbours of the best rate {rate:g} are over {BRACKET} times away, so {names} is added")
    if reasons:
        return Extension(add=sorted([*add, *inside]), why=f"{'; '.join(reasons)}.", best=rate)
    why = f"the best rate {rate:g} is inside the grid, its neighbours are close, and a higher rate diverged."
    return Extension(add=[], why=why, best=rate)


def _beyond(sweep: Sweep, best: int | None, candidates: Candidates) -> tuple[list[float], list[str]]:
    """The rates to add outside the grid, and a reason for each side where a rate is missing."""
    add, reasons = [], []
    sides = (
        ("below", candidates.below, _missing_below(sweep, best)),
        ("above", candidates.above, _missing_above(sweep, best)),
    )
    for side, rates, reason in sides:
        if not reason:
            continue
        rate = next((rate for rate in rates if rate not in sweep.rates), None)
        if rate is None:
            reasons.append(
                f"{reason}, but all {len(rates)} rates allowed {side} the grid were tried; raise"
                " lr_sweep.extend_at_most (with lr_sweep.extend: true) or widen lr_sweep.learning_rates"
            )
        else:
            add.append(rate)
            reasons.append(f"{reason}, so {rate:g} is added")
    return add, reasons


def _between(sweep: Sweep, best: int | None, candidates: Sequence[float], *, extending: bool) -> list[float]:
    """The candidates nearest to the middle of the gaps beside the best rate; none while it waits for a neighbour."""
    if best is None:
        return []
    rate = float(sweep.rates[best])
    neighbours = [
        *sweep.rates[:best][sweep.measured[:best]][-1:],
        *sweep.rates[best + 1 :][sweep.measured[best + 1 :]][:1],
    ]
    if extending and len(neighbours) < 2:
        return []
    add = []
    for neighbour in map(float, neighbours):
        low, high = sorted((rate, neighbour))
        inside = [value for value in candidates if low < value < high and value not in sweep.rates]
        if high > BRACKET * low and inside:
            middle = math.log(low * high) / 2
            add.append(inside[int(np.abs(np.log(inside) - middle).argmin())])
    return add


def _missing_below(sweep: Sweep, best: int | None) -> str:
    if best is None:
        return "every rate diverged"
    return f"the best rate {sweep.rates[best]:g} is the lowest" if not sweep.measured[:best].any() else ""


def _missing_above(sweep: Sweep, best: int | None) -> str:
    if best is None or edge_of_stability(sweep).reached:
        return ""
    last = not sweep.measured[best + 1 :].any()
    return f"the best rate {sweep.rates[best]:g} is the highest" if last else "no rate above the best one diverged"
