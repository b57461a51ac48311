"""Which learning rates a sweep adds by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plumbline.lr_sweep.analysis.sweep import Sweep, centre, edge_of_stability, sweep_of


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The rates to `add`, rising, and a sentence that says `why`, or why there are none."""

    add: list[float]
    why: str


def next_rates(records: Sequence[dict[str, Any]], below: Sequence[float], above: Sequence[float]) -> list[float]:
    """The rates to train next, at most one on either side; empty when nothing is missing or all were tried.

    A rate below is missing when the best rate is the lowest or when all diverged; one above when the best rate
    is the highest or none above it diverged. `records` are those of all trials so far, `below` and `above` the
    rates that may be added to the grid, nearest first.
    """
    return decide(records, below, above).add


def decide(records: Sequence[dict[str, Any]], below: Sequence[float], above: Sequence[float]) -> Decision:
    """`next_rates` with its reasons."""
    sweep = sweep_of(records)
    if not sweep.measured.any():
        return Decision(add=[], why="no trial has a loss, so that nothing says where to look.")
    best = centre(sweep)
    add, reasons = [], []
    sides = (("below", below, _missing_below(sweep, best)), ("above", above, _missing_above(sweep, best)))
    for side, candidates, reason in sides:
        if not reason:
            continue
        rate = next((rate for rate in candidates if rate not in sweep.rates), None)
        if rate is None:
            reasons.append(
                f"{reason}, but {len(candidates)} rates {side} the grid are the limit (lr_sweep.extend_at_most); "
                "raise it, or widen lr_sweep.learning_rates"
            )
        else:
            add.append(rate)
            reasons.append(f"{reason}: {rate:g} is added")
    if reasons:
        return Decision(add=sorted(add), why=f"{'; '.join(reasons)}.")
    assert best is not None  # all diverged: a rate below is missing
    inside = f"the best rate {sweep.rates[best]:g} lies inside the grid"
    return Decision(add=[], why=f"{inside}, and a rate above it diverged.")


def _missing_below(sweep: Sweep, best: int | None) -> str:
    if best is None:
        return "every rate diverged"
    return f"the best rate {sweep.rates[best]:g} is the lowest" if not sweep.measured[:best].any() else ""


def _missing_above(sweep: Sweep, best: int | None) -> str:
    if best is None or edge_of_stability(sweep).reached:
        return ""
    last = not sweep.measured[best + 1 :].any()
    return f"the best rate {sweep.rates[best]:g} is the highest" if last else "no rate above the best diverged"
