"""A stage: one function, its command line, a log on stderr, a journal, one-line errors."""

import argparse
import inspect
import json
import logging
import os
import re
import sys
import time
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, NoReturn, ParamSpec

from plumbline.core.errors import UserError
from plumbline.core.files import storage_error
from plumbline.core.run import progress
from plumbline.core.run.liveness import boot_id
from plumbline.core.run.lock import lock_target

Arguments = ParamSpec("Arguments")
log = logging.getLogger("plumbline")
LAST_BYTES = 65536
"""How much of the end of a log is searched for its error."""
KILLED = "ended without an error message, as a killed process does"


class Stage(Generic[Arguments]):
    """A stage's function, still callable, with `main` as its command line.

    Every parameter becomes an option of the same name: a Settings or PlainSpec class takes JSON, or - for JSON on
    stdin; a list takes several values.
    `--log` names the file that stderr is redirected to; start, progress and end are appended as JSON lines to the
    journal beside it (suffix .jsonl).
    """

    def __init__(self, function: Callable[Arguments, None]) -> None:
        self.function = function
        self.__doc__, self.__name__ = function.__doc__, function.__name__
        self.name = function.__module__.removeprefix("plumbline.")

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        self.function(*args, **kwargs)

    def main(self) -> NoReturn:
        """Runs the stage with this process's arguments; exits with 0, or with 1 after a one-line error."""
        log_to_stderr()
        name = Path(sys.argv[0]).stem
        try:
            arguments, journal = self._parse(sys.argv[1:])
            if journal is not None:
                lock_target(journal)
            progress.append_to(journal)
            spec = arguments.get("spec")
            shown = None if spec is None else spec.to_json()
            progress.log_event(event="start", stage=name, pid=os.getpid(), boot=boot_id(), spec=shown)
            log.info("%s started", name)
            began = time.perf_counter()
            self.function(**arguments)  # type: ignore[call-arg]
        except UserError as error:
            _fail(str(error))
        except OSError as error:
            if mistake := storage_error(error, Path(str(error.filename or "output"))):
                _fail(str(mistake))
            _note_failure(repr(error))
            raise
        except KeyboardInterrupt:
            log.error("interrupted; run again to resume")
            sys.exit(130)
        except BaseException as error:
            _note_failure(repr(error))
            raise
        seconds = time.perf_counter() - began
        progress.log_event(event="end", seconds=seconds)
        log.info("%s finished after %.2f s", name, seconds)
        _leave()

    def _parse(self, argv: list[str]) -> tuple[dict[str, Any], Path | None]:
        parser = argparse.ArgumentParser(description=self.__doc__, allow_abbrev=False)
        parser.add_argument("--log", type=Path, default=None, dest="log_file")
        hints = typing.get_type_hints(self.function)
        for name, parameter in inspect.signature(self.function).parameters.items():
            required = parameter.default is inspect.Parameter.empty
            default = None if required else parameter.default
            option: dict[str, Any] = {"required": required, "default": default, "dest": name}
            parser.add_argument(f"--{name.replace('_', '-')}", **option, **_reader(hints[name]))
        options = vars(parser.parse_args(argv))
        log_file = options.pop("log_file")
        return options, log_file and log_file.with_suffix(".jsonl")


def stage(function: Callable[Arguments, None]) -> Stage[Arguments]:
    """Makes `function` a stage."""
    return Stage(function)


def _reader(kind: Any) -> dict[str, Any]:
    """The argparse options for a parameter annotated as `kind`."""
    if hasattr(kind, "from_json"):
        return {"type": lambda text: kind.from_json(_json(text), "--spec")}
    if isinstance(kind, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is list:
        return {"type": typing.get_args(kind)[0], "nargs": "*"}
    return {"type": kind}


def _json(text: str) -> Any:
    """The JSON `text`, or what comes through a pipe where it is `-`: an argument holds no more than 128 KiB."""
    try:
        return json.loads(sys.stdin.read() if text == "-" else text)
    except json.JSONDecodeError as error:
        raise UserError(f"--spec: is not valid JSON ({error})") from None


def _leave() -> NoReturn:
    """Ends the process at once: everything is written, and tearing torch down would take 0.8 s per job."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _fail(message: str) -> NoReturn:
    _note_failure(message)
    log.error("%s", message)
    sys.exit(1)


def _note_failure(message: str) -> None:
    try:
        progress.log_event(event="failed", message=message)
    except OSError as error:  # a full disk must not hide the message that says so
        log.error("the journal cannot be written: %s", error)


def log_to_stderr() -> None:
    """Has the log write to stderr, with ISO timestamps in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    layout = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    layout.converter = time.gmtime
    handler.setFormatter(layout)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def error_in(log: Path) -> str | None:
    """The error of a stage's last attempt in its log: an ERROR line's text, or a traceback's last line; else None."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - LAST_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    starts = [number for number, line in enumerate(lines) if re.search(r" INFO \S+ started$", line)]
    attempt = lines[starts[-1] :] if starts else lines
    errors = [line.partition(" ERROR ")[2] for line in attempt if re.match(r"\S+Z ERROR ", line)]
    if errors:
        return errors[-1]
    if any(line.startswith("Traceback (most recent call last)") for line in attempt):
        return next(line for line in reversed(attempt) if line.strip())
    return None
