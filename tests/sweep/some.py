"""Sweeps and records to test with."""

import json
from pathlib import Path
from typing import Any

from plumbline.core.run.record import Outcome
from plumbline.sweep.naming import point_name
from plumbline.sweep.record import TrialRecord
from plumbline.sweep.run import RunSpec
from plumbline.sweep.settings import SweepSettings

HEAD = {"started": "2026-11-27T00:00:00+00:00", "machine": {"cpu_model": "a CPU", "cores": 2}}


def sweep(**settings: Any) -> SweepSettings:
    """A valid sweep, with `settings` laid over it."""
    default = {"command": "run {x} {seed} {folder}", "grid": {"x": [1, 2]}, "metric": {"name": "score", "goal": "max"}}
    return SweepSettings.model_validate(default | settings)


def spec(command: str | None = None, function: str | None = None, **values: Any) -> RunSpec:
    """The spec of one trial with x = 2."""
    default = {"sweep": "s", "files": "", "inputs_fingerprint": [], "curves": {}, "metrics": ["score"]}
    default |= {"parameters": {"x": 2}, "seed": 7, "code": "", "inputs": ""}
    default |= {"budget": None, "stopped_at_seconds": None}
    return RunSpec.from_json(default | {"command": command, "function": function} | values, "spec")


def trial(
    parameters: dict, seed: int, score: float, outcome: str = "ok", seconds: float = 1.0, **more: float
) -> TrialRecord:
    """A trial's record, as the stage writes it. more: other metrics."""
    name = point_name(parameters)
    metrics = {"score": score, **more} if outcome == "ok" else {}
    return TrialRecord(
        **HEAD,
        trial=f"s/{name}/{seed}",
        spec={"trial": f"{name}/{seed}"},
        outcome=Outcome(outcome),
        seconds=seconds,
        sweep="s",
        point=name,
        parameters=parameters,
        seed=seed,
        metrics=metrics,
        curves={"step": [0.0, 1.0], "score": [score / 2, score]} if metrics else {},
    )


def write(records: list[TrialRecord], folder: Path) -> list[Path]:
    """The records as files."""
    paths = [folder / f"{number}.json" for number, _ in enumerate(records)]
    for path, record in zip(paths, records, strict=True):
        path.write_text(json.dumps(record.to_json()))
    return paths
