"""Stage `sweep.extend`: which points a sweep adds, decided from the records so far."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.plan.target import MergeSpec, canonical
from plumbline.core.run.stage import stage
from plumbline.core.settings import Settings
from plumbline.sweep.record import TrialRecord, read_trials
from plumbline.sweep.search.halving import promoted
from plumbline.sweep.search.settings import Dimension
from plumbline.sweep.settings import MetricSettings
from plumbline.sweep.trial.command import Value

Point = dict[str, Value]


class Asking(Settings):
    """A round of a search."""

    space: dict[str, Dimension]
    batch: int
    seed: int
    """Seed of the search."""
    round: int
    """Number of earlier rounds."""


class Promoting(Settings):
    """A round of halving."""

    budget: str
    """Name of the parameter that is the budget."""
    next: int
    """Budget of those that go on."""
    factor: int
    kept: Point | None
    """A point that always goes on, without its budget."""


class ExtendSpec(MergeSpec):
    """What decides the points to add."""

    sweep: str
    metrics: list[MetricSettings]
    asking: Asking | None
    promoting: Promoting | None


@stage
def extend(spec: ExtendSpec, trials: list[Path], output: Path) -> None:
    """Writes {"spec": …, "points": […]} as JSON to `output`: the points to add, from the records `trials`.

    Raises UserError when a record cannot be read or was made from another spec.
    """
    records = read_trials(trials, spec.records) if trials else []
    scores = mean_scores(records, [one.name for one in spec.metrics])
    maximize = [one.goal == "max" for one in spec.metrics]
    points = {one.point: dict(one.parameters) for one in records}
    if spec.asking is not None:
        from plumbline.sweep.search.tpe import next_batch, seed_of_round  # Optuna, which halving does not need

        asking, told = spec.asking, [(points[name], score) for name, score in scores.items()]
        seed = seed_of_round(asking.seed, asking.round)
        found = next_batch(asking.space, told, batch=asking.batch, maximize=maximize, seed=seed)
    else:
        assert spec.promoting is not None
        (best_is_high,) = maximize
        first = {name: score[0] if score else None for name, score in scores.items()}
        found = _promoted(spec.promoting, points, first, maximize=best_is_high)
    write_json(output, {"spec": spec.model_dump(mode="json"), "points": found})


def mean_scores(records: Sequence[TrialRecord], metrics: Sequence[str]) -> dict[str, tuple[float, ...] | None]:
    """Point -> mean of each metric over its seeds; None where a trial has no result. In the order of the records."""
    found: dict[str, list[TrialRecord]] = {}
    for one in records:
        found.setdefault(one.point, []).append(one)
    return {
        point: tuple(sum(one.metrics[name] for one in trials) / len(trials) for name in metrics)
        if all(one.ok for one in trials)
        else None
        for point, trials in found.items()
    }


def _promoted(
    promoting: Promoting, points: Mapping[str, Point], scores: Mapping[str, float | None], *, maximize: bool
) -> list[Point]:
    """The points that go on, with their next budget."""
    bare = {name: {key: of for key, of in point.items() if key != promoting.budget} for name, point in points.items()}
    same = [name for name, point in bare.items() if canonical(point) == canonical(promoting.kept)]
    kept = same[0] if same else None
    chosen = promoted(scores, factor=promoting.factor, maximize=maximize, kept=kept)
    return [points[name] | {promoting.budget: promoting.next} for name in chosen]


if __name__ == "__main__":
    extend.main()
