"""Calls a user's function as one trial: what `run: module:function` of a sweep starts, in a process of its own.

    python -m plumbline.sweep.trial.call module:function --settings JSON --seed N --folder PATH

The function is called as `function(settings, seed=…, folder=…, report=…)` and returns its final metrics, or leaves out
`report` in its parameters. What it reports goes to metrics.jsonl in the folder, a line a step.
"""

import argparse
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plumbline.core import registry
from plumbline.core.errors import UserError
from plumbline.sweep.trial.leavings import METRICS

CURVES = "metrics.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("function")
    parser.add_argument("--settings", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    metrics = options.folder.resolve() / METRICS
    try:
        found = _called(options.function, options.settings, options.seed, metrics.parent)
        text = json.dumps(found, default=float)
    except UserError as error:
        sys.exit(str(error))
    except Exception as error:  # noqa: BLE001  whatever the user's function raises
        _say(error)
        sys.exit(1)
    if not isinstance(found, dict):
        sys.exit(f"{options.function}: returned {type(found).__name__}; return a dict of final metrics")
    metrics.write_text(text, encoding="utf-8")


def _called(name: str, settings: dict[str, Any], seed: int, folder: Path) -> Any:
    function: Callable[..., Any] = registry.find(name, Path(), "", attribute=None, place="run")
    given: dict[str, Any] = {"seed": seed, "folder": folder, "report": Report(folder / CURVES)}
    parameters = inspect.signature(function).parameters
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    return function(settings, **{key: value for key, value in given.items() if takes_all or key in parameters})


class Report:
    """Appends `step` and metrics as one line of JSON."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, step: int, **metrics: float) -> None:
        line = json.dumps({"step": step, **metrics}, default=float) + "\n"
        with self.path.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read() == b"\n" else f"\n{line}"  # after a line that a kill cut off
            stream.write(line.encode())


def _say(error: BaseException) -> None:
    """The error with the frames of the user's code: those below this module and the import system."""
    frames = traceback.extract_tb(error.__traceback__)
    skipped = (__file__, registry.__file__, importlib.__file__)
    inner = [frame for frame in frames if not frame.filename.startswith(("<frozen ", *skipped))]
    print("Traceback (most recent call last):", *traceback.format_list(inner), sep="\n", end="", file=sys.stderr)
    print(*traceback.format_exception_only(error), end="", file=sys.stderr)


if __name__ == "__main__":
    main()
