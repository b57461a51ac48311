"""Settings of the study `sweep`: its block of the config, a sweep under each name. The trials are in `plan`."""

import math
import re
from itertools import product
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, RootModel, Tag, field_validator, model_validator

from plumbline.core.plan.target import canonical
from plumbline.core.settings import Settings, WrittenLike, distinct
from plumbline.sweep.search.draws import draws
from plumbline.sweep.search.settings import HalvingSettings, SearchSettings
from plumbline.sweep.trial.command import Value, placeholders
from plumbline.sweep.values import PlainValue, Point

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
FOLDER, SEED = "folder", "seed"
FIGURES = ("parameters", "interaction", "ranking", "progress", "curves", "cost")
FRONT_FIGURES = ("pareto",)
"""Of a sweep with two metrics alone."""
TABLES = ("points", "contrasts")

PARAMETER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
SIZES = {"MB": 1, "GB": 1000}


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"


class MetricSettings(Settings):
    """The number that trials are ranked by."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the metric in metrics.json, and in the curves where they have it."""
    goal: Literal["max", "min"]
    """Whether a larger or a smaller value is better."""


class CurveSettings(Settings):
    """Where a trial leaves its curves: one JSON object a line, or a CSV file with a header."""

    file: Annotated[str, WrittenLike(r"[^/]+\.(jsonl|csv)", "metrics.jsonl or log.csv, without a folder")] = (
        "metrics.jsonl"
    )
    """Name of the file in the trial's folder; it need not be there."""
    step: str = "step"
    """Key or column that holds the step."""


def _written_as_metrics(value: Any) -> Any:
    """`value`. Raises ValueError where it is neither one metric nor a list of two."""
    each = value if isinstance(value, list) else [value]
    if len(each) != (2 if each is value else 1) or not all(isinstance(one, dict | MetricSettings) for one in each):
        raise ValueError("write it like {name: accuracy, goal: max}, or a list of two such metrics")
    return value


OneOrTwoMetrics = Annotated[
    Annotated[MetricSettings, Tag("[one]")]
    | Annotated[list[MetricSettings], Field(min_length=2, max_length=2), Tag("[two]")],
    Discriminator(lambda value: "[two]" if isinstance(value, list) else "[one]"),
    BeforeValidator(_written_as_metrics),
]


class ResourceSettings(Settings):
    """What a trial asks of the machine or the cluster. Changing it reruns nothing."""

    threads: Annotated[int, Field(gt=0)] = 1
    """Number of cores a trial computes on; OMP_NUM_THREADS is set to it."""
    memory: Annotated[str, WrittenLike(r"\d+ ?(MB|GB)", "2 GB or 500 MB")] | None = None
    """Memory to reserve, such as 2 GB; null reserves none."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs to reserve on a cluster. On one machine, `--resources gpu=1` has Snakemake share them out."""

    @property
    def memory_mb(self) -> int | None:
        """The memory in megabytes."""
        if self.memory is None:
            return None
        number, unit = re.fullmatch(r"(\d+) ?(\w+)", self.memory).groups()  # type: ignore[union-attr]
        return int(number) * SIZES[unit]


class SweepSettings(Settings):
    """One sweep: what to run, with which values, and what to compare."""

    command: str | None = None
    """Command that runs one trial. {name} stands for a parameter, {seed} for the seed, {folder} for the trial's folder,
    where the command leaves metrics.json. Values are quoted for the shell."""
    run: Annotated[str, WrittenLike(r"[\w.]+:\w+", "my_lab.train:run, a module and its function")] | None = None
    """Function that runs one trial, as module:function, called with (settings, seed=, folder=, report=)."""
    code: list[str] = []
    """Files whose content decides the result, as glob patterns. The code of `run` is found by itself."""
    inputs: list[str] = []
    """Data files, as glob patterns. A file that changes its size or time makes the trials stale."""
    grid: dict[str, Annotated[list[PlainValue], Field(min_length=1)]] = {}
    """Values of each parameter; every combination is a point."""
    points: list[Point] = []
    """Points beside the grid, with a value for each parameter."""
    search: SearchSettings | None = None
    """Points that are drawn from a space."""
    halving: HalvingSettings | None = None
    """A budget that all points get in part, and the best ones in full."""
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    """Seeds; each point runs with all of them, so that they are the replicates."""
    metric: OneOrTwoMetrics
    """Metric that decides which point is best; a list of two metrics gives the Pareto front of both."""
    curves: CurveSettings = CurveSettings()
    """Where a trial leaves its curves."""
    baseline: Point | None = None
    """The point that all others are compared with, seed by seed."""
    resources: ResourceSettings = ResourceSettings()
    """What a trial asks of the machine."""
    timeout: Annotated[str, WrittenLike(r"\d+(\.\d+)? ?(s|min|h|d)", "90 s, 10 min or 2 h")] | None = None
    """Longest time of a trial, such as 10 min; then its outcome is `timeout`. Null sets no limit."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        return distinct(seeds)

    @field_validator("grid")
    @classmethod
    def _values_differ(cls, grid: dict[str, list[Value]]) -> dict[str, list[Value]]:
        for name, values in grid.items():
            try:
                distinct([(type(value), value) for value in values])
            except ValueError:
                raise ValueError(f"{name}: a value is named twice") from None
        return grid

    @model_validator(mode="after")
    def _is_one_sweep(self) -> Self:
        if (self.command is None) == (self.run is None):
            raise ValueError("needs either `command` or `run`")
        self._check_search()
        names, points = self.parameters, self.all_points
        if not points and not names:
            raise ValueError("has no point; give `grid`, `points` or `search`")
        for name in {*names, *(name for point in points for name in point)}:
            if not PARAMETER.fullmatch(name) or name in (SEED, FOLDER):
                raise ValueError(f"{name!r} cannot name a parameter: use letters, digits and _, but not seed or folder")
        for number, point in enumerate(self.points):
            if set(point) != set(names):
                raise ValueError(f"points.{number}: has the parameters {_listed(point)}, others have {_listed(names)}")
        if self.baseline is not None and canonical(self.baseline) not in {canonical(point) for point in points}:
            raise ValueError("baseline: is none of the points; name one with all its parameters")
        if self.halving is not None:
            names = [*names, self.halving.budget]
        if self.command is not None:
            self._check_command(names)
        elif self.curves.file != CurveSettings().file:
            raise ValueError(f"curves.file: report() of a function writes {CurveSettings().file}; remove the key")
        if self.timeout_seconds == 0:
            raise ValueError("timeout: must be more than 0; remove the key for no limit")
        return self

    def _check_search(self) -> None:
        first, *second = self.metrics
        if second and first.name == second[0].name:
            raise ValueError(f"metric: {first.name} is named twice; name another, or keep one")
        if second and self.halving:
            raise ValueError("halving: ranks points by one metric, but `metric` names two; keep one, or remove halving")
        for name in self.search.space if self.search else ():
            if name in self.grid:
                raise ValueError(f"{name}: is in both grid and search.space; keep one of them")
        if self.search and self.search.sampler == "tpe" and self.grid:
            raise ValueError("search: tpe takes no grid; give its values as `choices` in search.space")
        if self.halving is None:
            return
        if self.halving.budget in (*self.grid, *(self.search.space if self.search else ()), *self.parameters):
            raise ValueError(f"halving.budget: {self.halving.budget} is set by halving; remove it from the points")
        if not PARAMETER.fullmatch(self.halving.budget) or self.halving.budget in (SEED, FOLDER):
            raise ValueError(f"halving.budget: {self.halving.budget!r} cannot name a parameter")

    def _check_command(self, names: list[str]) -> None:
        assert self.command is not None
        try:
            used = placeholders(self.command)
        except ValueError as error:
            raise ValueError(f"command: {error}") from None
        for name in used:
            if name not in (*names, SEED, FOLDER):
                raise ValueError(f"command: no parameter fills {{{name}}}; write {{{{{name}}}}} for the text itself")
        for name in names:
            if name not in used:
                raise ValueError(f"command: takes no {{{name}}}, so that parameter would change nothing")
        if FOLDER not in used:
            raise ValueError("command: takes no {folder}, where it must leave metrics.json")
        if SEED not in used and len(self.seeds) > 1:
            raise ValueError("command: takes no {seed}, so its trials would be copies of each other; add it")

    @property
    def metrics(self) -> list[MetricSettings]:
        """The one or two metrics."""
        return self.metric if isinstance(self.metric, list) else [self.metric]

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters that a point has, without a budget of halving."""
        asked = [*self.grid, *(self.search.space if self.search else ())]
        return asked or list(self.points[0] if self.points else ())

    @property
    def all_points(self) -> list[dict[str, Value]]:
        """The points that are known before anything has run, each once.

        The grid's combinations, the last parameter fastest, each with every draw of a random or qmc search; and the
        listed points: before a search, which begins with them, and after a grid.
        """
        combinations = [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]
        drawn: list[dict[str, Value]] = [{}] if self.grid else []
        if self.search is not None:
            drawn = [] if self.search.sampler == "tpe" else draws(self.search)
        found = [combination | draw for combination in combinations for draw in drawn]
        listed = [{name: point[name] for name in self.parameters if name in point} | point for point in self.points]
        both = [*listed, *found] if self.search else [*found, *listed]
        return list({canonical(point): point for point in both}.values())

    @property
    def runtime_minutes(self) -> int:
        """What a cluster is asked for: the time limit and ten minutes, or the profile's two hours."""
        return 120 if self.timeout_seconds is None else math.ceil(self.timeout_seconds / 60) + 10

    @property
    def timeout_seconds(self) -> float | None:
        """The time limit in seconds."""
        if self.timeout is None:
            return None
        number, unit = re.fullmatch(r"([\d.]+) ?(\w+)", self.timeout).groups()  # type: ignore[union-attr]
        return float(number) * UNITS[unit]


class SweepStudySettings(RootModel[dict[Annotated[str, Field(pattern=rf"^{NAME}$")], SweepSettings | None]]):
    """Study `sweep`: what do the parameters of your own script or function change?"""

    root: dict[Annotated[str, Field(pattern=rf"^{NAME}$")], SweepSettings | None] = {}

    @property
    def sweeps(self) -> dict[str, SweepSettings]:
        """The sweeps by name; one that is null is left out."""
        return {name: sweep for name, sweep in self.root.items() if sweep is not None}
