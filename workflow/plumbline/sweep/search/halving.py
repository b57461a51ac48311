"""Successive halving (Jamieson & Talwalkar 2016, AISTATS): who goes on with a larger budget."""

from collections.abc import Mapping


def promoted(scores: Mapping[str, float | None], *, factor: int, maximize: bool, kept: str | None = None) -> list[str]:
    """The best 1/`factor` of the points, at least one, in the order of `scores`.

    scores: point -> score at this budget; None for a point of which a trial has none: it does not go on. Of equal
    points the first go on. `kept`: a point that goes on beside them whenever it has a score, as a baseline does.
    """
    known = {point: score for point, score in scores.items() if score is not None}
    best_first = sorted(known, key=lambda point: known[point], reverse=maximize)  # stable: equal ones keep their order
    chosen = {*best_first[: max(1, len(scores) // factor)], kept}
    return [point for point in known if point in chosen]
