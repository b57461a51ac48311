"""The plan of the `sweep` study: a trial for each point and seed of each sweep, its tables and its figures."""

import difflib
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, sha256_of_files
from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.globs import matching
from plumbline.core.plan.modules import parsed
from plumbline.core.plan.target import Target, Targets, canonical
from plumbline.sweep.naming import folder_name, point_name
from plumbline.sweep.settings import FIGURES, FRONT_FIGURES, TABLES, SweepSettings, SweepStudySettings
from plumbline.sweep.trial import attempt
from plumbline.sweep.trial.command import Value

Point = dict[str, Value]
CALLER = "plumbline.sweep.trial.call"
"""The program that the stage `run` starts for a function; no import names it."""


def plan(
    settings: SweepStudySettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, sweep by sweep. seed, device: the trials have their own.

    results: the folder in which the decisions of searches and of halving lie, as far as there are some.
    """
    return [target for name, sweep in settings.sweeps.items() for target in sweep_plan(name, sweep, results)]


def sweep_plan(name: str, sweep: SweepSettings, results: Path) -> list[Target]:
    """The targets of one sweep: as far as today's decisions below `results` go, and the decision that is due."""
    check_optuna(name, sweep)
    trials, decisions = Trials(name, sweep, results), list[Target]()
    asked = {"sweep": name, "metrics": [one.model_dump(mode="json") for one in sweep.metrics]}
    budgets: list[int | None] = [*sweep.halving.budgets] if sweep.halving else [None]
    added = trials.add(sweep.all_points, budgets[0])
    left = sweep.search.trials if sweep.search and sweep.search.rounds else 0
    for number in range(sweep.search.rounds if sweep.search else 0):
        asking = _asking(sweep, number)
        decisions.append(_decision(name, len(decisions), asked | {"asking": asking, "promoting": None}, added))
        points = decided(decisions[-1], results)
        if not points:
            break
        added = [*added, *trials.add(points[:left], budgets[0])]
        left -= len(points)
    for budget in budgets[1:] if not decisions or decided(decisions[-1], results) is not None else []:
        promoting = _promoting(sweep, budget)
        decisions.append(_decision(name, len(decisions), asked | {"asking": None, "promoting": promoting}, added))
        points = decided(decisions[-1], results)
        if not points:
            break
        added = trials.add(points, budget)
    return [*trials.found, *decisions, *_ends(name, sweep, asked, trials.found)]


class Trials:
    """The trials of one sweep, a target for each point and seed."""

    def __init__(self, name: str, sweep: SweepSettings, results: Path) -> None:
        place = f"sweep.{name}"
        code, inputs = matching(sweep.code, f"{place}.code"), matching(sweep.inputs, f"{place}.inputs")
        check_named_files(sweep.command or "", [*code, *inputs], f"{place}.code")
        self.name, self.sweep, self.results = name, sweep, results
        if sweep.run is not None:
            check_function(sweep.run, f"{place}.run")
        self.code_files = code_files(code)
        self.modules = [] if sweep.run is None else [CALLER, sweep.run.partition(":")[0]]
        self.budget = sweep.halving.budget if sweep.halving else None
        self.common: dict[str, Any] = {"sweep": name, "command": sweep.command, "function": sweep.run}
        self.common |= {"curves": sweep.curves.model_dump(mode="json"), "files": sha256_of_files(code)}
        self.common |= {"inputs_fingerprint": [fingerprint(path) for path in inputs], "budget": self.budget}
        self.common |= {"metrics": [one.name for one in sweep.metrics]}
        self.found: list[Target] = []
        self.last: dict[tuple[str, int], Target] = {}
        """(folder's point, seed) -> the trial that used the folder last."""

    def add(self, points: Sequence[Point], budget: int | None) -> list[Target]:
        """The trials of `points`, with `budget` where there is one; those of a larger one follow those of a smaller."""
        known = [point | ({self.budget: budget} if self.budget and budget else {}) for point in points]
        added = [self._trial(point, seed) for point in known for seed in self.sweep.seeds]
        self.found += added
        return added

    def _trial(self, point: Point, seed: int) -> Target:
        name = point_name(point)
        output = f"{self.name}/trials/{name}/seed{seed}.json"
        of = {"parameters": point, "seed": seed}
        of["stopped_at_seconds"] = attempt.stopped_at(self.results / "sweep" / output, self.sweep.timeout_seconds)
        reads = {}
        if self.budget is not None:
            folder = folder_name(point, self.budget), seed
            reads = {"before": [self.last[folder]] if folder in self.last else []}
        target = Target(
            "sweep",
            "run",
            f"{self.name}/{name}/{seed}",
            output,
            self.common | of,
            reads=reads,
            modules=self.modules,
            code_files=self.code_files,
            is_trial=True,
        )
        if self.budget is not None:
            self.last[folder] = target
        return target


def _asking(sweep: SweepSettings, number: int) -> dict[str, Any]:
    """What round `number` of the search asks: not how many points it has, so that more of them change no round."""
    assert sweep.search is not None
    space = {name: of.model_dump(mode="json") for name, of in sweep.search.space.items()}
    return {"space": space, "batch": sweep.search.batch, "seed": sweep.search.seed, "round": number}


def _promoting(sweep: SweepSettings, budget: int | None) -> dict[str, Any]:
    assert sweep.halving is not None
    of = {"budget": sweep.halving.budget, "factor": sweep.halving.factor}
    return of | {"next": budget, "kept": sweep.baseline}


def _decision(name: str, number: int, values: dict[str, Any], trials: Sequence[Target]) -> Target:
    """The target that decides which points to add after `trials`."""
    output, values = f"{name}/rounds/{number}.json", values | {"records": {}}  # none, where a search begins
    reads = {"trials": trials}
    return Target("sweep", "extend", f"{name}/{number}", output, values, reads=reads, merges=trials, adds_targets=True)


def decided(decision: Target, results: Path) -> list[Point] | None:
    """The points that a decision adds; None while there is none from today's settings, code and trials."""
    path = decision.file(results)
    if not path.exists():
        return None
    found = read_json(path)
    current = isinstance(found, dict) and canonical(found.get("spec")) == decision.spec
    return found["points"] if current else None


def check_optuna(name: str, sweep: SweepSettings) -> None:
    """Raises UserError where a search needs Optuna and it is not installed."""
    if sweep.search and sweep.search.sampler == "tpe" and importlib.util.find_spec("optuna") is None:
        raise UserError(f"sweep.{name}.search.sampler: tpe needs Optuna; run `pip install 'plumbline[search]'`")


def _ends(name: str, sweep: SweepSettings, asked: dict[str, Any], trials: Sequence[Target]) -> list[Target]:
    """The summary, the front of two metrics, and the figures."""
    budget = {sweep.halving.budget: sweep.halving.high} if sweep.halving else {}
    asked = asked | {"baseline": sweep.baseline and sweep.baseline | budget, "budget": next(iter(budget), None)}
    asked |= {"sampler": sweep.search and sweep.search.sampler}
    summary = Target(
        "sweep",
        "summarize",
        name,
        f"{name}/results.json",
        asked | {"records": {}},
        reads={"trials": trials},
        merges=trials,
        beside={
            "trials_table": [f"{name}/trials.csv"],
            "points": [f"{name}/points.csv"],
            "contrasts": [f"{name}/contrasts.csv"],
            "effects": [f"{name}/effects.csv"],
            "importance": [f"{name}/importance.csv"],
            "curves": [f"{name}/curves.parquet"],
            "best": [f"{name}/best.json"],
            "analysis": [f"{name}/analysis.md"],
            "tables": [f"{name}/tables/{table}.tex" for table in TABLES],
        },
    )
    files = [f"{name}/figures/{figure}.{suffix}" for suffix in ("pdf", "png") for figure in FIGURES]
    figures = Target("sweep", "figures", name, files[0], asked, reads={"results": [summary]}, beside={"png": files[1:]})
    files = [f"{name}/figures/{figure}.{suffix}" for suffix in ("pdf", "png") for figure in FRONT_FIGURES]
    beside, reads = {"pdf": files[:1], "png": files[1:]}, {"results": [summary]}
    front = Target("sweep", "front", name, f"{name}/front.csv", asked, reads=reads, beside=beside)
    return [summary, front, figures] if len(sweep.metrics) > 1 else [summary, figures]


def code_files(paths: Sequence[Path]) -> dict[str, str]:
    """File -> 12 hex digits of its content, so that a stale trial can say which one changed.

    A file is named by its path from the working directory, or alone by its name where it lies elsewhere: the names
    decide the spec, which must be the same under another home folder. Files of one name share a digest.
    """
    here, found = Path.cwd(), dict[str, list[Path]]()
    for path in paths:
        name = path.relative_to(here) if path.is_relative_to(here) else path.name if path.is_absolute() else path
        found.setdefault(str(name), []).append(path)
    return {name: sha256_of_files(same)[:12] for name, same in found.items()}


def check_function(name: str, key: str) -> None:
    """Raises UserError where `module:function` names a module that is not there, or no function of it.

    `key`: the config key, for the message.
    """
    module, _, function = name.partition(":")
    try:
        known = parsed(module).bindings
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    if function not in known and known.keys().isdisjoint({"*", "__getattr__"}):
        near = difflib.get_close_matches(function, known, n=1)
        fix = f"did you mean {near[0]}?" if near else "name a function that the module defines"
        raise UserError(f"{key}: {module} has no {function}; {fix}")


def check_named_files(command: str, known: Sequence[Path], key: str) -> None:
    """Raises UserError for a file below this folder that the command names and neither `code` nor `inputs` covers.

    An edit of it would go unnoticed. `key`: the config key, for the message.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return
    covered = {path.resolve() for path in known}
    for word in words:
        path = Path(word)
        if path.is_file() and not path.is_absolute() and path.resolve() not in covered:
            raise UserError(f"{key}: the command names {word}, and an edit of it would go unnoticed; add it to `code`")
