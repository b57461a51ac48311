"""`plumbline show`: the trials of a study as a table, from their records."""

import csv
import difflib
import gc
import importlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TextIO

import typer

from plumbline import config as configuration
from plumbline.commands.options import ConfigFiles, Results
from plumbline.core.errors import UserError
from plumbline.core.present.formatting import MISSING, plural
from plumbline.core.run.record import SCHEMA
from plumbline.core.run.records import record_files

app = typer.Typer()


class Shown(NamedTuple):
    """A row of the table: a trial, or a part of one."""

    keys: dict[str, Any]
    """What tells it from other rows."""
    found: dict[str, Any]
    """The columns that its study shows beside the keys, what matters most first."""
    values: dict[str, Any]
    """All of these, and everything else in the record that is one value."""


class Column(NamedTuple):
    """A column of the table, as text."""

    name: str
    cells: list[str]
    width: int
    is_numeric: bool


CONDITION = re.compile(r"([\w.]+)\s*(>=|<=|!=|=|>|<|~)\s*(.*)", re.DOTALL)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
NOT_FINITE = ("nan", "inf", "-inf")
"""Numbers that records hold as texts."""
AT_THE_END = ("outcome", "seconds")
WIDTH = 120
"""Columns of text where there is no terminal."""
GAP = "  "
NOT_SHOWN = ("machine", "spec", "schema", "study", "stage")


@app.command()
def show(
    studies: Annotated[list[str] | None, typer.Argument(metavar="STUDY", help="All with trials, if none.")] = None,
    columns: Annotated[str | None, typer.Option(help="Columns to show, separated by commas; `all` for all.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Show trials with, e.g., 'width>=64' or outcome=ok; ~ looks for a text.")
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort by; -COLUMN puts the largest first.")] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with all columns unless --columns says which.")
    ] = False,
    configfile: ConfigFiles = None,
    results: Results = None,
) -> None:
    """Show the trials of a study as a table.

    It has the columns that fit, unless --columns says which, and is read from the trials' records.
    """
    folder = results_folder("show", studies, configfile, results)
    tables = {study: rows for study in studies or configuration.STUDIES if (rows := read_rows(folder / study, study))}
    if not tables:
        raise UserError(f"show: {folder} holds no trials of {', '.join(studies or ['any study'])}; run them first")
    if as_csv and len(tables) > 1:
        raise UserError(f"show: --csv takes one study; name one of {', '.join(tables)}")
    for study, rows in tables.items():
        names, known = columns_of(rows, columns, is_full=as_csv), columns_of(rows, "all", is_full=True)
        tests = [condition(text, known) for text in where or []]
        chosen = sorted_by([row for row in rows if all(test(row) for test in tests)], sort, known)
        if as_csv:
            write_csv(names, chosen, sys.stdout)
            continue
        typer.echo(f"{study}: {counted(chosen)}" + (f" of {len(trials_of(rows))}" if where else ""))
        table = as_texts(names, chosen)
        fitting = table if columns else that_fit(table, essential(rows), shutil.get_terminal_size((WIDTH, 24)).columns)
        typer.echo("\n".join(table_lines(fitting)))
        if not columns:
            typer.echo(left_out([one.name for one in table], [one.name for one in fitting], len(known)))
        typer.echo()


def trials_of(rows: Iterable[Shown]) -> set[str]:
    """The trials that the rows are of."""
    return {row.values["trial"] for row in rows}


def counted(rows: Sequence[Shown]) -> str:
    """How many trials there are, and how many rows where one has several."""
    trials = len(trials_of(rows))
    return plural(trials, "trial") + (f" in {len(rows)} rows" if len(rows) > trials else "")


def essential(rows: Iterable[Shown]) -> set[str]:
    """The columns that are shown however narrow the terminal is."""
    return {name for row in rows for name in row.keys} | {"outcome"}


def left_out(names: Sequence[str], fitting: Sequence[str], known: int) -> str:
    """Which of the study's columns did not fit, how many there are in all, and how to see the others."""
    narrow = [name for name in names if name not in fitting]
    text = f"({len(fitting)} of {known} columns" + (f", no room for {', '.join(narrow)}" if narrow else "")
    return f"{text}; for others: --columns NAME,NAME, --columns all or --csv)"


def results_folder(
    command: str, studies: list[str] | None, configfile: list[Path] | None, results: Path | None
) -> Path:
    """`results`, or else the config's. Raises UserError for a study that there is not."""
    for study in studies or []:
        if study not in configuration.STUDIES:
            raise UserError(f"{command}: no study {study!r}; choose from {', '.join(configuration.STUDIES)}")
    return results or Path(configuration.load([Path("config.yaml"), *(configfile or [])]).results)


def read_rows(folder: Path, study: str) -> list[Shown]:
    """The rows of each record below `folder`, as its study orders them. Files that are not JSON are named on stderr."""
    commands = importlib.import_module(f"plumbline.{study}.commands")
    place = commands.order(folder) if hasattr(commands, "order") else lambda record: ()
    found, broken = list[tuple[Any, Shown]](), []
    gc.disable()  # what is read stays, and looking for garbage among it takes a quarter of the time
    for path in record_files(folder):
        try:
            with open(path, "rb") as stream:  # noqa: PTH123  (there may be ten thousand)
                record = json.loads(stream.read())
        except (OSError, ValueError):
            broken.append(path)
            continue
        if isinstance(record, dict) and record.get("schema") == SCHEMA and "trial" in record:
            others = {name: record[name] for name in AT_THE_END} | dict(scalars(record))
            found += (
                (place(record), Shown(keys, values, keys | values | more | others))
                for keys, values, more in commands.rows(record)
            )
    gc.enable()
    if broken:
        typer.echo(f"{plural(len(broken), 'file')} not readable as JSON, the first: {broken[0]}", err=True)
    return [row for _, row in sorted(found, key=lambda pair: pair[0])]


def scalars(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything in a record that is one value; not its spec and its machine."""
    for name, value in record.items():
        if isinstance(value, dict):
            if name not in NOT_SHOWN:
                yield from scalars(value, f"{above}{name}.")
        elif not isinstance(value, list) and name not in NOT_SHOWN:
            yield above + name, value


def columns_of(rows: Sequence[Shown], asked: str | None, *, is_full: bool) -> list[str]:
    """Names of the columns that `asked` stands for; without it the study's own, or all where `is_full`."""
    everything = list(dict.fromkeys(name for row in rows for name in row.values))
    if asked == "all" or (asked is None and is_full):
        return everything
    if asked is None:
        keys = dict.fromkeys(name for row in rows for name in row.keys)
        found = dict.fromkeys(name for row in rows for name in row.found)
        return [name for name in keys | found if name not in AT_THE_END] + list(AT_THE_END)
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


def condition(text: str, known: Sequence[str]) -> Callable[[Shown], bool]:
    """What `text`, such as width>=64, asks of a trial. One without a value fits nothing but !=."""
    found = CONDITION.fullmatch(text.strip())
    if found is None:
        raise UserError(f"show: --where {text!r}: write COLUMN, one of {' '.join((*COMPARE, '~'))}, and a value")
    name, sign, wanted = column(found[1], known), found[2], found[3].strip()
    number = _number(wanted)
    if sign in ("<", "<=", ">", ">=") and number is None:
        raise UserError(f"show: --where {text!r}: {wanted!r} is not a number")

    def fits(row: Shown) -> bool:
        value = row.values.get(name)
        if sign == "~":
            return wanted in shown(value)
        if number is not None and (own := _number(value)) is not None:
            return COMPARE[sign](own, number)
        return sign in ("=", "!=") and COMPARE[sign]("" if value is None else plain(value), wanted)

    return fits


def sorted_by(rows: list[Shown], asked: str | None, known: Sequence[str]) -> list[Shown]:
    """By the column that is `asked` for, numbers before texts; those without a value last in either direction."""
    if asked is None:
        return list(rows)
    name = column(asked.removeprefix("-"), known)
    having = [row for row in rows if row.values.get(name) is not None]
    numbers = [(row, _number(row.values[name])) for row in having]

    def key(pair: tuple[Shown, float | None]) -> tuple[bool, float, str]:
        row, number = pair
        return number is None, number or 0.0, plain(row.values[name])

    ordered = [row for row, _ in sorted(numbers, key=key, reverse=asked.startswith("-"))]
    return ordered + [row for row in rows if row.values.get(name) is None]


def as_texts(names: Sequence[str], rows: Sequence[Shown]) -> list[Column]:
    """The columns of these names, with a text for each row."""
    found = []
    for name in names:
        values = [row.values.get(name) for row in rows]
        cells = [shown(value) for value in values]
        found.append(Column(name, cells, max(map(len, (name, *cells))), all(map(_is_numeric, values))))
    return found


def that_fit(columns: Sequence[Column], essential: Collection[str], width: int) -> list[Column]:
    """The columns without the last ones that are more than `width` has room for; the `essential` stay in any case."""
    kept = list(columns)
    for column in reversed(columns):
        if sum(one.width + len(GAP) for one in kept) - len(GAP) <= width:
            break
        if column.name not in essential:
            kept.remove(column)
    return kept


def table_lines(columns: Sequence[Column]) -> Iterator[str]:
    """The table with a heading; columns of numbers stand to the right. Rich would take a minute for 10,000 rows."""
    for cells in ([one.name for one in columns], *zip(*(one.cells for one in columns), strict=True)):
        yield GAP.join(
            cell.rjust(one.width) if one.is_numeric else cell.ljust(one.width)
            for cell, one in zip(cells, columns, strict=True)
        ).rstrip()


def write_csv(names: Sequence[str], rows: Iterable[Shown], stream: TextIO) -> None:
    """CSV with a header. Numbers have all their digits; what a trial does not have is empty."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [row.values.get(name) for name in names]
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
