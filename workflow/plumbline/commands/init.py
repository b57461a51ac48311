"""`plumbline init`: a block of config for a sweep, guessed from one command line."""

import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from plumbline.core.errors import UserError
from plumbline.core.files import write_text

app = typer.Typer()
FLAG = re.compile(r"--?([A-Za-z][\w-]*)", re.ASCII)
ASSIGNMENT = re.compile(r"(--?)?([A-Za-z_][\w.-]*)=(.*)", re.DOTALL | re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
WORD = re.compile(r"[A-Za-z][\w+-]*", re.ASCII)
SCRIPTS = (".py", ".sh", ".R", ".jl", ".js", ".rb", ".pl", ".lua")
SEEDS = ("seed", "random_seed", "random_state", "rng_seed", "manual_seed")
FOLDERS = re.compile(
    r"o|out(put)?(_?(dir|folder))?|folder|(save|log|run|work|results?|checkpoint|default_root)_?dir", re.IGNORECASE
)
LOSSES = re.compile(r"loss|error|err\b|perplexity|ppl|nll|rmse|mse|mae|seconds|time", re.IGNORECASE)
VALIDATION = re.compile(r"val|test|eval", re.IGNORECASE)
GUESSED = {"name": "validation_loss", "goal": "min"}


@dataclass
class Guess:
    """A command with placeholders, and what they stand for."""

    words: list[str] = field(default_factory=list)
    """The template, a shell word each."""
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    folder: str | None = None
    """What the command gave as its output folder."""
    code: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Scripts that are not there."""


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    command: Annotated[list[str], typer.Argument(help="The command of one run, after --.")],
    output: Annotated[Path | None, typer.Option(help="File to write; NAME.yaml unless given.")] = None,
) -> None:
    """Write the config of a sweep, guessed from a command.

    \b
    plumbline init my_sweep -- python train.py --lr 0.1 --out out
    """
    from plumbline.core.settings import validated
    from plumbline.sweep.settings import NAME, SweepStudySettings

    if not re.fullmatch(NAME, name):
        raise UserError(f"init: {name!r} cannot name a sweep; use letters, digits, _, . and -")
    path = output or Path(f"{name}.yaml")
    if path.exists():
        raise UserError(f"init: {path} exists; remove it, or name another with --output")
    guess = guessed(command)
    metric = guessed_metric(guess)
    text = block(name, guess, metric or GUESSED)
    try:
        validated(SweepStudySettings, yaml.safe_load(text)["sweep"], "sweep")
        refused = ""
    except UserError as error:
        refused = str(error)
    write_text(path, text)
    typer.echo(text)
    typer.echo(f"written to {path}. To edit:")
    for line in advice(guess, metric):
        typer.echo(f"- {line}")
    if refused:
        typer.echo(f"- as it stands it is refused: {refused}")
    paths = "" if Path("config.yaml").exists() else ", with paths from there or absolute ones"
    shown = shlex.quote(str(path if not paths else path.resolve()))
    typer.echo(f"then, in Plumbline's folder{paths}: plumbline run sweep --configfile {shown}")


def guessed(command: Sequence[str]) -> Guess:
    """What is a parameter, the seed, the output folder, code or data in a command line.

    `--lr 0.1`, `--lr=0.1` and `lr=0.1` with a number or a word is a parameter; a file or folder that exists is not.
    """
    guess = Guess()
    flag: str | None = None
    for place, word in enumerate(command):
        assigned = ASSIGNMENT.fullmatch(word)
        if assigned and place:
            before = word[: len(word) - len(assigned[3])]
            guess.words.append(_literal(before) + _replaced(guess, assigned[2], assigned[3]))
            flag = None
        elif (named := FLAG.fullmatch(word)) and place:
            guess.words.append(_literal(word))
            flag = named[1]
        else:
            guess.words.append(_replaced(guess, flag, word) if flag else _plain(guess, word, command[:place]))
            flag = None
    return guess


def guessed_metric(guess: Guess) -> dict[str, str] | None:
    """The metric that a run has left in its output folder: one of a validation set rather than another."""
    if guess.folder is None:
        return None
    try:
        found = json.loads((Path(guess.folder) / "metrics.json").read_text(encoding="utf-8"))
        names = [name for name, value in found.items() if isinstance(value, int | float)]
    except (OSError, ValueError, AttributeError):
        return None
    if not names:
        return None
    name = next((name for name in names if VALIDATION.search(name)), names[0])
    return {"name": name, "goal": "min" if LOSSES.search(name) else "max"}


def block(name: str, guess: Guess, metric: dict[str, str]) -> str:
    """The YAML, with a comment where a guess may be wrong."""
    seeds = [0, 1, 2] if guess.seed is not None else [0]
    grid = {key: [value] for key, value in guess.parameters.items()}
    lines = [
        f"command: {_yaml(' '.join(guess.words))}",
        f"code: {_yaml(guess.code)} # files whose change makes the trials stale",
        *([f"inputs: {_yaml(guess.inputs)} # data"] if guess.inputs else []),
        f"grid: {_yaml(grid)} # add values",
        f"seeds: {_yaml(seeds)}",
        f"metric: {_yaml(metric)} # a number in {{folder}}/metrics.json; goal: max or min",
        f"baseline: {_yaml(guess.parameters)} # what the other points are compared with",
    ]
    example = "" if name == "digits_mlp" else "  digits_mlp: null # leaves the example of config.yaml out\n"
    return "sweep:\n" + example + f"  {_yaml(name)}:\n" + "".join(f"    {line}\n" for line in lines)


def advice(guess: Guess, metric: dict[str, str] | None) -> Iterator[str]:
    """What is left to edit."""
    for script in guess.absent:
        yield f"command: {script} does not exist here ({Path.cwd()}); correct its path"
    if guess.parameters:
        yield f"grid: add values to {', '.join(guess.parameters)}; take out what should stay as it is"
    else:
        yield "command: no parameter was found; put {name} where a value goes, and name: [values] in grid"
    if guess.folder is None:
        yield "command: no option names an output folder; put {folder} where the script takes it"
    if guess.seed is None:
        yield "command: no option sets a seed; put {seed} where the script takes it, and add seeds, the replicates"
    if metric is None:
        where = "{folder}" if guess.folder is None else guess.folder
        yield f"metric: name the number that decides; the script leaves it in {where}/metrics.json, as a JSON object"
    else:
        yield f"metric: {metric['name']} was found in {guess.folder}/metrics.json; name another if that is not it"
    if guess.code:
        yield f"code: {', '.join(guess.code)} is what the command names; add the modules that it imports"
    else:
        yield "code: name the files whose change makes the trials stale"


def _replaced(guess: Guess, name: str, value: str) -> str:
    """The value of an option: a placeholder, or the value itself. What has a name has one value, the first."""
    key = re.sub(r"\W", "_", name)
    if key.lower() in SEEDS and value.isdecimal() and guess.seed in (None, int(value)):
        guess.seed = int(value)
        return "{seed}"
    if FOLDERS.fullmatch(key) and guess.folder in (None, value):
        guess.folder = value
        return "{folder}"
    if name == "m" and Path(package := value.partition(".")[0]).is_dir():
        guess.code.append(f"{package}/**/*.py")
        return _literal(value)
    if Path(value).exists():
        return _plain(guess, value, [name])
    if key in ("seed", "folder") or not (NUMBER.fullmatch(value) or WORD.fullmatch(value)):
        return _literal(value)
    if guess.parameters.get(key, _value(value)) != _value(value):
        return _literal(value)
    guess.parameters[key] = _value(value)
    return f"{{{key}}}"


def _plain(guess: Guess, word: str, before: Sequence[str]) -> str:
    """A word that stays: the script or program itself, data, or anything else."""
    path = Path(word)
    if path.suffix in SCRIPTS and not path.exists():
        guess.absent.append(word)
    if path.exists() and not path.is_absolute():
        is_code = path.is_file() and (path.suffix in SCRIPTS or not before)
        (guess.code if is_code else guess.inputs).append(_pattern(word))
    return _literal(word)


def _pattern(value: str) -> str:
    """A file, or all files of a folder, as a glob pattern."""
    return f"{value.rstrip('/')}/**/*" if Path(value).is_dir() else value


def _value(text: str) -> Any:
    """The number that a text spells; else the text."""
    if not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        return text
    return int(text) if re.fullmatch(r"-?(0|[1-9]\d*)", text) else float(text)


def _literal(word: str) -> str:
    """A word for the shell, with its braces doubled, as templates have them."""
    return shlex.quote(word).replace("{", "{{").replace("}", "}}")


def _yaml(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.strip().removesuffix("...").strip()
