"""`plumbline show`: the trials of a study as a table, from their records."""

import csv
import difflib
import gc
import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO

import typer

from plumbline import config as configuration
from plumbline.core.errors import UserError
from plumbline.core.present.formatting import MISSING, plural
from plumbline.core.run.record import SCHEMA
from plumbline.core.run.records import record_files

app = typer.Typer()


class Trial(NamedTuple):
    """A trial's record as the table shows it."""

    headline: dict[str, Any]
    """The columns that its study shows first."""
    values: dict[str, Any]
    """These, and everything else in the record that is one value."""


CONDITION = re.compile(r"([\w.]+)\s*(>=|<=|!=|=|>|<|~)\s*(.*)", re.DOTALL)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
NOT_FINITE = ("nan", "inf", "-inf")
"""Numbers that records hold as texts."""
AT_THE_END = ("outcome", "seconds")
NOT_SHOWN = ("machine", "spec", "schema", "study", "stage")


@app.command()
def show(
    studies: Annotated[list[str] | None, typer.Argument(metavar="[STUDY]...", help="All with trials, if none.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas; `all` for all.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Show trials with, e.g., 'width>=64' or outcome=ok; ~ looks for a text.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort by; -COLUMN puts the largest first.")] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with all columns unless --columns says which.")
    ] = False,
    configfile: Annotated[
        list[Path] | None, typer.Option("--configfile", help="YAML merged over config.yaml; may be repeated.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Results folder to read instead of the config's.")] = None,
) -> None:
    """Show the trials of a study as a table, from their records."""
    folder = results_folder("show", studies, configfile, results)
    tables = {
        study: trials for study in studies or configuration.STUDIES if (trials := read_trials(folder / study, study))
    }
    if not tables:
        raise UserError(f"show: {folder} holds no trials of {', '.join(studies or ['any study'])}; run them first")
    if as_csv and len(tables) > 1:
        raise UserError(f"show: --csv takes one study; name one of {', '.join(tables)}")
    for study, trials in tables.items():
        names, known = columns_of(trials, columns, is_full=as_csv), columns_of(trials, "all", is_full=True)
        tests = [condition(text, known) for text in where or []]
        chosen = sorted_by([trial for trial in trials if all(test(trial) for test in tests)], sort, known)
        if as_csv:
            write_csv(names, chosen, sys.stdout)
            continue
        typer.echo(f"{study}: {plural(len(chosen), 'trial')}" + (f" of {len(trials)}" if where else ""))
        typer.echo("\n".join(table_lines(names, chosen)) + "\n")


def results_folder(
    command: str, studies: list[str] | None, configfile: list[Path] | None, results: Path | None
) -> Path:
    """`results`, or else the config's. Raises UserError for a study that there is not."""
    for study in studies or []:
        if study not in configuration.STUDIES:
            raise UserError(f"{command}: no study {study!r}; choose from {', '.join(configuration.STUDIES)}")
    return results or Path(configuration.load([Path("config.yaml"), *(configfile or [])]).results)


def read_trials(folder: Path, study: str) -> list[Trial]:
    """A Trial for each record below `folder`, as its study orders them. Files that are not JSON are named on stderr."""
    commands = importlib.import_module(f"plumbline.{study}.commands")
    place = commands.order(folder) if hasattr(commands, "order") else lambda record: ()
    found, broken = list[tuple[Any, Trial]](), []
    gc.disable()  # what is read stays, and looking for garbage among it takes a quarter of the time
    for path in record_files(folder):
        try:
            with open(path, "rb") as stream:  # noqa: PTH123  (there may be ten thousand)
                record = json.loads(stream.read())
        except (OSError, ValueError):
            broken.append(path)
            continue
        if isinstance(record, dict) and record.get("schema") == SCHEMA and "trial" in record:
            first = commands.row(record) | {name: record[name] for name in AT_THE_END}
            found.append((place(record), Trial(first, first | dict(scalars(record)))))
    gc.enable()
    if broken:
        typer.echo(f"{plural(len(broken), 'file')} not readable as JSON, the first: {broken[0]}", err=True)
    return [trial for _, trial in sorted(found, key=lambda pair: pair[0])]


def scalars(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in a record that is one value; not its spec and its machine."""
    for name, value in record.items():
        if isinstance(value, dict):
            if name not in NOT_SHOWN:
                yield from scalars(value, f"{above}{name}.")
        elif not isinstance(value, list) and name not in NOT_SHOWN:
            yield above + name, value


def columns_of(trials: Sequence[Trial], asked: str | None, *, is_full: bool) -> list[str]:
    """Names of the columns that `asked` stands for; without it the study's own, or all where `is_full`."""
    everything = list(dict.fromkeys(name for trial in trials for name in trial.values))
    if asked == "all" or (asked is None and is_full):
        return everything
    if asked is None:
        names = dict.fromkeys(name for trial in trials for name in trial.headline)
        return [name for name in names if name not in AT_THE_END] + list(AT_THE_END)
    return [column(name.strip(), everything) for name in asked.split(",")]


def column(name: str, known: Sequence[str]) -> str:
    """The one of the columns `known` that `name` stands for: itself, or its last part where only one has it."""
    fits = [name] if name in known else [one for one in known if one.endswith(f".{name}")]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise UserError(f"show: {name!r} may be {' or '.join(fits)}; name one")
    near = difflib.get_close_matches(name, [*known, *(one.split(".")[-1] for one in known)], n=1)
    raise UserError(
        f"show: no column {name!r}; " + (f"did you mean {near[0]}?" if near else "--columns all shows them")
    )


def condition(text: str, known: Sequence[str]) -> Callable[[Trial], bool]:
    """What `text`, such as width>=64, asks of a trial. One without a value fits nothing but !=."""
    found = CONDITION.fullmatch(text.strip())
    if found is None:
        raise UserError(f"show: --where {text!r}: write COLUMN, one of {' '.join((*COMPARE, '~'))}, and a value")
    name, sign, wanted = column(found[1], known), found[2], found[3].strip()
    number = _number(wanted)
    if sign in ("<", "<=", ">", ">=") and number is None:
        raise UserError(f"show: --where {text!r}: {wanted!r} is not a number")

    def fits(trial: Trial) -> bool:
        value = trial.values.get(name)
        if sign == "~":
            return wanted in shown(value)
        if number is not None and (own := _number(value)) is not None:
            return COMPARE[sign](own, number)
        return sign in ("=", "!=") and COMPARE[sign]("" if value is None else plain(value), wanted)

    return fits


def sorted_by(trials: list[Trial], asked: str | None, known: Sequence[str]) -> list[Trial]:
    """By the column that is `asked` for, numbers before texts; those without a value last in either direction."""
    if asked is None:
        return trials
    name = column(asked.removeprefix("-"), known)
    having = [trial for trial in trials if trial.values.get(name) is not None]
    numbers = [(trial, _number(trial.values[name])) for trial in having]

    def key(pair: tuple[Trial, float | None]) -> tuple[bool, float, str]:
        trial, number = pair
        return number is None, number or 0.0, plain(trial.values[name])

    ordered = [trial for trial, _ in sorted(numbers, key=key, reverse=asked.startswith("-"))]
    return ordered + [trial for trial in trials if trial.values.get(name) is None]


def table_lines(names: Sequence[str], trials: Sequence[Trial]) -> Iterator[str]:
    """The table with a heading; columns of numbers stand to the right. Rich would take a minute for 10,000 rows."""
    for_each = [[shown(trial.values.get(name)) for trial in trials] for name in names]
    widths = [max(map(len, (name, *cells))) for name, cells in zip(names, for_each, strict=True)]
    right = [all(_is_numeric(trial.values.get(name)) for trial in trials) for name in names]
    for cells in ((*names,), *zip(*for_each, strict=True)):
        yield "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        ).rstrip()


def write_csv(names: Sequence[str], trials: Iterable[Trial], stream: TextIO) -> None:
    """CSV with a header. Numbers have all their digits; what a trial does not have is empty."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for trial in trials:
        values = [trial.values.get(name) for name in names]
        writer.writerow(["" if value is None else plain(value) for value in values])


def shown(value: Any) -> str:
    """A value in a cell: four digits of a number, one line of a text."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
    return " ".join(plain(value).split())


def plain(value: Any) -> str:
    """A value as text that a program reads: true, 0.001, or the text itself."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_numeric(value: Any) -> bool:
    """Whether it stands in a column of numbers: a number, one that is not finite, or nothing."""
    return value is None or value in NOT_FINITE or (isinstance(value, int | float) and not isinstance(value, bool))


def _number(value: Any) -> float | None:
    """The number that a value is, or that a text spells; None for another, and for NaN."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number
