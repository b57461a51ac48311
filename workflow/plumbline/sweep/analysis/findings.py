"""The analysis in sentences: each answers a question of the sweep with its numbers and intervals."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pandas as pd

from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import p_text, percent, plural, with_interval
from plumbline.core.run.records import machine_note, machines
from plumbline.sweep.analysis.frames import SAME, baseline_name
from plumbline.sweep.analysis.ranking import Ranking

DIGITS = 4


def findings(
    name: str,
    ranking: Ranking,
    baseline: Mapping[str, object] | None,
    contrasts: pd.DataFrame,
    importance: pd.DataFrame,
) -> str:
    """The analysis of the sweep `name` as Markdown."""
    return findings_text(
        f"Sweep {name}",
        {
            "Which point is best?": _best(ranking),
            "Which points differ from the baseline?": _contrasts(ranking, baseline, contrasts),
            "Which parameters matter?": _importance(importance),
            "Which trials failed?": _failed(ranking),
            "Caveats": _caveats(ranking),
        },
    )


def _best(ranking: Ranking) -> Iterator[str]:
    best, metric = ranking.best, ranking.metric
    if best is None:
        yield "No point has all of its trials, so none is ranked."
        return
    points, seeds = ranking.scores.shape
    mean = ranking.means[best]
    side = "highest" if ranking.goal == "max" else "lowest"
    shown = with_interval(mean.mean, mean.low, mean.high, digits=DIGITS)
    among = f"over {plural(seeds, 'seed')}, among {plural(points, 'point')}"
    yield f"{ranking.labels[best]} has the {side} mean {metric}: {shown} {among}."
    if seeds < 2:
        yield "With one seed nothing says how sure this is; add seeds."
        return
    chance = ranking.probabilities[best]
    yield f"It is the best in {percent(chance)} of bootstrap draws of the seeds."
    rivals = sorted(ranking.probabilities.items(), key=lambda pair: -pair[1])[:3]
    if chance < 0.95 and len(rivals) > 1:
        close = [(point, share) for point, share in rivals if point != best and share >= 0.01]
        others = ", ".join(f"{ranking.labels[point]} ({percent(share)})" for point, share in close)
        if others:
            yield f"The seeds do not settle which point is best; in other draws it is {others}."
    if points > 1 and (fair := ranking.unbiased):
        score = with_interval(fair.mean, fair.low, fair.high, digits=DIGITS)
        yield (
            f"Chosen by the other seeds, the best point scores {score} on a seed that had no part in the choice. Expect"
            " that of a new seed; the mean above includes the luck of being chosen."
        )


def _contrasts(ranking: Ranking, baseline: Mapping[str, object] | None, frame: pd.DataFrame) -> Iterator[str]:
    name = baseline_name(ranking.records, baseline)
    if name is None:
        yield "The config names no baseline; set `baseline` to compare each point with it, seed by seed."
        return
    tested = frame[frame["verdict"] != "not tested"]
    can = f"{plural(len(tested), 'point')} can be tested against it, paired by seed"
    yield f"The baseline is {ranking.labels[name]}. {can}."
    for verdict in ("better", "worse"):
        for row in tested[tested["verdict"] == verdict].to_dict("records"):
            shown = with_interval(
                row["difference"], row["difference_low"], row["difference_high"], digits=DIGITS, signed=True
            )
            yield f"{ranking.labels[row['point']]} is {verdict}: {shown} (Holm-corrected p {_p(row['p_holm'])})."
    if same := int((tested["verdict"] == SAME).sum()):
        yield f"{plural(same, 'point')} {'is' if same == 1 else 'are'} not significantly different from it."
    if rest := len(frame) - len(tested):
        yield f"{plural(rest, 'point')} could not be tested: fewer than two seeds, or equal differences."


def _importance(frame: pd.DataFrame) -> Iterator[str]:
    for row in frame.to_dict("records"):
        shown = with_interval(row["importance"], row["importance_low"], row["importance_high"], digits=2)
        yield f"{row['parameter']}: shuffling it lowers R² on an unseen seed by {shown}."


def _failed(ranking: Ranking) -> Iterator[str]:
    counts = Counter((one.point, str(one.outcome)) for one in ranking.records if not one.ok)
    for (point, outcome), count in counts.items():
        yield f"{ranking.labels[point]}: {plural(count, 'trial')} {outcome.replace('_', ' ')}; the point is not ranked."
    if not counts:
        yield "None."


def _caveats(ranking: Ranking) -> Iterator[str]:
    seeds = len({one.seed for one in ranking.records})
    if seeds < 5:
        yield f"{plural(seeds, 'seed')} a point: intervals rest on few replicates and assume that they are normal."
    yield "Seeds are the replicates: the intervals cover what a new seed would change, not a new data set."
    if note := machine_note(machines(ranking.records)):
        yield note


def _p(value: float) -> str:
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"
