"""The records of a sweep by the budget that halving gave them."""

from collections.abc import Sequence

from plumbline.sweep.analysis.ranking import Goal, Ranking
from plumbline.sweep.record import TrialRecord


def rankings(records: Sequence[TrialRecord], metric: str, goal: Goal, budget: str | None) -> list[Ranking]:
    """A ranking of each budget, the smallest first; one of all records where `budget`, the parameter, is None.

    Only points of one budget compare. All points have the smallest, and smaller ones chose those of a larger.
    """
    groups: dict[float, list[TrialRecord]] = {}
    for one in records:
        groups.setdefault(float(one.parameters[budget]) if budget else 0.0, []).append(one)
    return [
        Ranking(records=groups[size], metric=metric, goal=goal, chosen_by_smaller_budgets=size > min(groups))
        for size in sorted(groups)
    ]


def stopped(stages: Sequence[Ranking]) -> int:
    """How many points began with the smallest budget and have none of the largest."""
    return len(stages[0].labels) - len(stages[-1].labels)
