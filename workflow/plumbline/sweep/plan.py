"""The plan of the `sweep` study: a trial for each point and seed of each sweep, its tables and its figures."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import sha256_of_files
from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.globs import matching
from plumbline.core.plan.target import Target, Targets
from plumbline.sweep.settings import FIGURES, TABLES, SweepSettings, SweepStudySettings, point_name


def plan(settings: SweepStudySettings, seed: int, upstream: Targets, device: str) -> list[Target]:
    """Every target of the study, sweep by sweep. seed, device: the trials have their own."""
    return [target for name, sweep in settings.sweeps.items() for target in _sweep(name, sweep)]


def _sweep(name: str, sweep: SweepSettings) -> list[Target]:
    place = f"sweep.{name}"
    code, inputs = matching(sweep.code, f"{place}.code"), matching(sweep.inputs, f"{place}.inputs")
    check_named_files(sweep.command or "", [*code, *inputs], f"{place}.code")
    read = {"files": sha256_of_files(code), "inputs_fingerprint": [fingerprint(path) for path in inputs]}
    modules = [] if sweep.run is None else [sweep.run.partition(":")[0]]
    what = {"command": sweep.command, "function": sweep.run, "curves": sweep.curves.model_dump(mode="json")}
    trials = [
        Target(
            "sweep",
            "run",
            f"{name}/{point_name(point)}/{seed}",
            f"{name}/trials/{point_name(point)}/seed{seed}.json",
            {"sweep": name, **what, **read, "metric": sweep.metric.name, "parameters": point, "seed": seed},
            modules=modules,
            is_trial=True,
        )
        for point in sweep.all_points
        for seed in sweep.seeds
    ]
    asked = {"sweep": name, "metric": sweep.metric.model_dump(mode="json"), "baseline": sweep.baseline}
    summary = Target(
        "sweep",
        "summarize",
        name,
        f"{name}/results.json",
        asked,
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
    return [*trials, summary, figures]


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
