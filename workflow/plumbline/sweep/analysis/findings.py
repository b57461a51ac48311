"""The analysis in sentences: each answers a question of the sweep with its numbers and intervals."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import number, p_text, percent, plural, with_interval
from plumbline.core.run.record_differences import listed
from plumbline.core.run.records import machine_note, machines
from plumbline.sweep.analysis.budgets import stopped
from plumbline.sweep.analysis.frames import SAME, baseline_name, points_of
from plumbline.sweep.analysis.front import Front
from plumbline.sweep.analysis.ranking import Ranking

ENOUGH_SEEDS = 10
"""With fewer, the bootstrap's draws vary too little: two equal points may never change places."""

RIVAL = 0.05
"""Share of draws from which on a point that is not on the front is named."""
MOST_RIVALS = 5


def findings(
    name: str,
    by_metric: Sequence[Sequence[Ranking]],
    baseline: Mapping[str, object] | None,
    contrasts: pd.DataFrame,
    importance: pd.DataFrame,
    *,
    front: Front | None,
    sampler: str | None,
    budget: str | None,
) -> str:
    """The analysis of the sweep `name` as Markdown.

    by_metric: of each metric, a ranking for each budget of halving, or the only one.
    """
    stages = by_metric[0]
    best = [line for of_one in by_metric for line in _best(of_one[-1], of_one[0])]
    asked = {} if front is None else {"Which points are on the Pareto front?": _front(front)}
    return findings_text(
        f"Sweep {name}",
        asked
        | {
            "Which point is best?": [*best, *_halving(stages, budget)],
            "Which points differ from the baseline?": _contrasts(stages[-1], baseline, contrasts, stopped(stages)),
            "Which parameters matter?": _importance(importance, sampler, budget),
            "Which trials failed?": _failed(stages),
            "Caveats": _caveats([of_one[-1] for of_one in by_metric], sampler),
        },
    )


def _front(front: Front) -> Iterator[str]:
    if not front.points:
        yield "No point has all of its trials, so none is ranked."
        return
    goals = " and ".join(
        f"{ranking.metric} ({'higher' if ranking.goal == 'max' else 'lower'} is better)" for ranking in front.rankings
    )
    points, seeds = front.rankings[0].scores.shape
    is_or_are = "is" if len(front.points) == 1 else "are"
    yield f"{len(front.points)} of {plural(points, 'point')} {is_or_are} on the Pareto front of {goals}."
    labels, shares = front.rankings[0].labels, front.shares
    for point in front.points:
        means = [(ranking.metric, ranking.means[point]) for ranking in front.rankings]
        shown = ", ".join(f"{name} {_interval(mean.mean, mean.low, mean.high)}" for name, mean in means)
        chance = f"; on the front in {percent(shares[point])} of bootstrap draws of the seeds" if seeds > 1 else ""
        yield f"{labels[point]}: {shown}{chance}."
    if seeds < 2:
        yield "One seed does not show how sure the front is; add seeds."
        return
    rivals = sorted((point for point in shares if point not in front.points), key=lambda point: -shares[point])
    if close := [f"{labels[point]} ({percent(shares[point])})" for point in rivals if shares[point] >= RIVAL]:
        more = f" and {len(close) - MOST_RIVALS} more" if len(close) > MOST_RIVALS else ""
        yield f"In some draws these are on the front too: {', '.join(close[:MOST_RIVALS])}{more}."
    few = f" With {plural(seeds, 'seed')}, such shares are overconfident." if seeds < ENOUGH_SEEDS else ""
    yield (
        "A point is on the front partly by luck, so its means are optimistic: run the points that you choose with new"
        f" seeds before you report them.{few}"
    )


def _halving(stages: Sequence[Ranking], budget: str | None) -> Iterator[str]:
    if budget is None:
        return
    counts = [f"{len(stage.labels)} with {budget}={_budget(stage, budget)}" for stage in stages]
    yield f"Halving ran {', '.join(counts)}; the points above have the largest."
    if len(stages) > 1:
        yield (
            "All seeds had a part in choosing the points that went on, so the best mean is biased by selection and no"
            " seed is left to correct it: run the best point with new seeds before you report its score."
        )


def _budget(stage: Ranking, budget: str) -> object:
    return stage.records[0].parameters[budget]


def _best(ranking: Ranking, first: Ranking) -> Iterator[str]:
    """first: the ranking that has all points, where halving stopped some."""
    best, metric = ranking.best, ranking.metric
    if best is None:
        yield "No point has all of its trials, so none is ranked."
        return
    points, seeds = ranking.scores.shape
    mean = ranking.means[best].mean
    side = "highest" if ranking.goal == "max" else "lowest"
    equal = [point for point, other in ranking.means.items() if math.isclose(other.mean, mean, rel_tol=1e-12)]
    if len(equal) > 1:
        names = listed([ranking.labels[point] for point in equal])
        shown = number(mean, digits_of(mean, mean, mean))  # each has an interval of its own
        yield f"{len(equal)} of {points} points share the {side} mean {metric}, {shown}: {names}."
    else:
        shown = _interval(mean, ranking.means[best].low, ranking.means[best].high)
        among = f"over {plural(seeds, 'seed')}, among {plural(points, 'point')}"
        yield f"{ranking.labels[best]} has the {side} mean {metric}: {shown} {among}."
    if seeds < 2:
        yield "One seed gives no interval; add seeds."
        return
    if points < 2:
        return
    if len(equal) < 2:
        yield from _how_sure(ranking, best)
    every = points_of(ranking.records)
    if edges := _at_edges(first, [every[point] for point in equal]):
        whose, is_or_are = "Its" if len(equal) < 2 else "Their", "is" if len(edges) == 1 else "are"
        yield f"{whose} {' and '.join(edges)} {is_or_are} at the edge of what was tried; a better point may lie beyond."
    if fair := ranking.unbiased:
        is_the_same = fair.mean == mean
        changed = ", as the choice was the same each time" if is_the_same else "; the mean above is biased by selection"
        yield (
            "Picking the best point on all seeds but one and scoring it on that seed gives"
            f" {_interval(fair.mean, fair.low, fair.high)} on average. Expect this mean from new seeds{changed}."
        )


def _how_sure(ranking: Ranking, best: str) -> Iterator[str]:
    """How often the seeds drawn again choose the best point, and which others they choose."""
    chance, seeds = ranking.probabilities[best], ranking.scores.shape[1]
    few = f" With {plural(seeds, 'seed')}, such shares are overconfident." if seeds < ENOUGH_SEEDS else ""
    yield f"It is the best in {percent(chance)} of bootstrap draws of the seeds.{few}"
    rivals = sorted(ranking.probabilities.items(), key=lambda pair: -pair[1])[:3]
    close = [(point, share) for point, share in rivals if point != best and share >= 0.01]
    if chance < 0.95 and close:
        others = ", ".join(f"{ranking.labels[point]} ({percent(share)})" for point, share in close)
        yield f"The best point is uncertain: other draws pick {others}."


def _at_edges(ranking: Ranking, best: Sequence[Mapping[str, object]]) -> list[str]:
    """The parameters whose value in the best points reaches the smallest or the largest that was tried, not both."""
    found = []
    for name in best[0]:
        values = [point[name] for point in points_of(ranking.records).values()]
        if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
            continue
        ends = {min(values), max(values)}
        if len(ends) == 2 and len(ends & {point[name] for point in best}) == 1:
            found.append(name)
    return found


def _contrasts(
    ranking: Ranking, baseline: Mapping[str, object] | None, frame: pd.DataFrame, unseen: int
) -> Iterator[str]:
    name = baseline_name(ranking.records, baseline)
    if baseline is not None and name is None:
        yield "The baseline has no result with the largest budget, so no point is compared with it."
        return
    if name is None:
        yield "The config names no baseline; set `baseline` to compare each point with it, seed by seed."
        return
    tested = frame[frame["verdict"] != "not tested"]
    what = "point" if frame["metric"].nunique() < 2 else "difference"
    can = f"{plural(len(tested), what)} can be tested against it, paired by seed"
    yield f"The baseline is {ranking.labels[name]}. {can}."
    if unseen:
        yield f"The correction also counts the {plural(unseen, 'point')} that halving stopped, to allow for selection."
    for verdict in ("better", "worse"):
        for row in tested[tested["verdict"] == verdict].to_dict("records"):
            shown = _interval(row["difference"], row["difference_low"], row["difference_high"], signed=True)
            in_it = f" in {row['metric']}" if frame["metric"].nunique() > 1 else ""
            yield f"{ranking.labels[row['point']]} is {verdict}{in_it}: {shown} (Holm-corrected p {_p(row['p_holm'])})."
    if same := int((tested["verdict"] == SAME).sum()):
        end = "not significantly different from it" if what == "point" else "not significant"
        yield f"{plural(same, what)} {'is' if same == 1 else 'are'} {end}."
    if rest := len(frame) - len(tested):
        reasons = "a failed trial, fewer than two seeds, or equal differences"
        yield f"{plural(rest, what)} could not be tested: {reasons}."


def _importance(frame: pd.DataFrame, sampler: str | None, budget: str | None) -> Iterator[str]:
    if frame.empty:
        yield "Importance needs two parameters that vary, two points, two seeds, and a metric that varies."
    for row in frame.to_dict("records"):
        shown = with_interval(row["importance"], row["importance_low"], row["importance_high"], digits=2)
        of_it = f" of {row['metric']}" if frame["metric"].nunique() > 1 else ""
        yield f"{row['parameter']}: shuffling it lowers R²{of_it} on an unseen seed by {shown}."
    if not frame.empty and sampler == "tpe":
        yield (
            "tpe draws more points where earlier ones did well, so this is importance among the points that it drew: a"
            " parameter whose bad values it soon left looks less important than it is. Random draws have no such bias."
        )
    if not frame.empty and budget is not None:
        yield f"This is importance at the smallest {budget}, which every point ran with; the points left were selected."


def _failed(stages: Sequence[Ranking]) -> Iterator[str]:
    labels = {point: label for stage in stages for point, label in stage.labels.items()}
    counts = Counter((one.point, str(one.outcome)) for stage in stages for one in stage.records if not one.ok)
    for (point, outcome), count in counts.items():
        yield f"{labels[point]}: {plural(count, 'trial')} {outcome.replace('_', ' ')}; the point is not ranked."
    if any(outcome == "timeout" for _, outcome in counts):
        yield "A longer time limit runs the trials again that met this one, and no others."
    if not counts:
        yield "None."


def _caveats(rankings: Sequence[Ranking], sampler: str | None) -> Iterator[str]:
    ranking = rankings[0]
    seeds = len({one.seed for one in ranking.records})
    if seeds < 5:
        yield f"Each point has {plural(seeds, 'seed')}: intervals rest on few replicates and assume normality."
    if ranking.best and seeds > 1 and ranking.means[ranking.best].low == ranking.means[ranking.best].high:
        yield "The best point has the same score with all seeds, so its interval has no width; add seeds."
    if all(one.seeds_change_nothing for one in rankings):
        yield "Every point has the same score with all seeds, so the intervals mean nothing: does it use its seed?"
    if sampler == "tpe" and seeds > 1:
        yield (
            "tpe saw the mean over all seeds. If a seed favors a whole region of the space rather than single points,"
            " the score on seeds that did not choose is still a little too good; only seeds that the search never ran"
            " are free of it."
        )
    yield "Seeds are the replicates: the intervals cover what a new seed would change, not a new data set."
    if note := machine_note(machines(ranking.records)):
        yield note


def _interval(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    """The mean with its interval, to as many digits as the interval's width bears."""
    return with_interval(mean, low, high, digits=digits_of(mean, low, high), signed=signed)


def digits_of(mean: float, low: float, high: float) -> int:
    """Decimals that give the half-width of an interval two digits; the mean four where there is no width."""
    width = (high - low) / 2
    scale, wanted = (width, 2) if width > 0 else (abs(mean), 4)
    return max(0, wanted - 1 - math.floor(math.log10(scale))) if scale > 0 else 0


def _p(value: float) -> str:
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"
