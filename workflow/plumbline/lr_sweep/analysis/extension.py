"""Which learning rates a sweep adds automatically."""

from collections.abc import Sequence
from dataclasses import dataclass

from plumbline.lr_sweep.analysis.sweep import Sweep, best_or_stable, edge_of_stability, sweep_of
from plumbline.lr_sweep.record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class Extension:
    """The rates to `add`, rising, and a sentence that says `why`, or why there are none."""

    add: list[float]
    why: str


def extension(records: Sequence[TrialRecord], below: Sequence[float], above: Sequence[float]) -> Extension:
    """The rates to train next, at most one on either side; none when nothing is missing or all candidates were tried.

    A lower rate is missing when the best rate is the lowest, or when every rate diverged. A higher one is missing when
    the best rate is the highest, or when no rate above it diverged. records: all trials so far. below, above: the
    candidates outside the grid, nearest first.
    """
    sweep = sweep_of(records)
    if not sweep.measured.any():
        return Extension(add=[], why="no trial has a loss, so nothing says in which direction to extend the grid.")
    best = best_or_stable(sweep)
    add, reasons = [], []
    sides = (("below", below, _missing_below(sweep, best)), ("above", above, _missing_above(sweep, best)))
    for side, candidates, reason in sides:
        if not reason:
            continue
        rate = next((rate for rate in candidates if rate not in sweep.rates), None)
        if rate is None:
            reasons.append(
                f"{reason}, but all {len(candidates)} rates allowed {side} the grid were tried; raise"
                " lr_sweep.extend_at_most or widen lr_sweep.learning_rates"
            )
        else:
            add.append(rate)
            reasons.append(f"{reason}, so {rate:g} is added")
    if reasons:
        return Extension(add=sorted(add), why=f"{'; '.join(reasons)}.")
    assert best is not None  # when every rate diverged, a lower one is missing
    return Extension(add=[], why=f"the best rate {sweep.rates[best]:g} is inside the grid and a higher rate diverged.")


def _missing_below(sweep: Sweep, best: int | None) -> str:
    if best is None:
        return "every rate diverged"
    return f"the best rate {sweep.rates[best]:g} is the lowest" if not sweep.measured[:best].any() else ""


def _missing_above(sweep: Sweep, best: int | None) -> str:
    if best is None or edge_of_stability(sweep).reached:
        return ""
    last = not sweep.measured[best + 1 :].any()
    return f"the best rate {sweep.rates[best]:g} is the highest" if last else "no rate above the best one diverged"
