"""The `plumbline` command."""

import importlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from plumbline import config as configuration
from plumbline.commands import export, init, run, show
from plumbline.commands.options import ConfigFiles, Results
from plumbline.commands.watch import show_status
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.core.plan.provenance import read_contents
from plumbline.core.plan.status import STATES, StageSummary, TargetStatus, stage_summaries, target_statuses
from plumbline.core.present.answer import Answer
from plumbline.core.present.formatting import plural
from plumbline.core.present.report.chapters import given_options

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TABLE_COLUMNS = 120
UNBOUNDED = 10_000
"""Columns of a table that is as wide as its rows."""
SCHEMA = Path(__file__).parents[1] / "config.schema.json"


@app.callback()
def plumbline() -> None:
    """Machine-learning studies as file targets."""


@app.command()
def status(
    configfile: ConfigFiles = None,
    results: Results = None,
    study: Annotated[list[str] | None, typer.Option(help="Show this study only; may be repeated.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show running trials and failures until all is done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the progress of each study, and why targets are stale."""
    if unknown := sorted({*(study or [])} - {*configuration.STUDIES}):
        raise UserError(f"status: no study {unknown[0]!r}; choose from {', '.join(configuration.STUDIES)}")
    config = configuration.load([Path("config.yaml"), *(configfile or [])])
    folder = Path(results or config.results)
    if not folder.exists():
        typer.echo(f"{folder}/ does not exist yet: nothing has run", err=True)
    if watch:
        show_status(lambda: config.plan(folder), folder, study or configuration.STUDIES)
        return
    plan = config.plan(folder)
    read_contents(plan, folder)
    found = [one for one in target_statuses(plan, folder) if not study or one.target.study in study]
    if as_json:
        values = {"results": str(folder), "stages": [_summary_json(summary) for summary in stage_summaries(found)]}
        values["targets"] = [status.to_json() for status in found]
        typer.echo(json.dumps(values, indent=1))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, TABLE_COLUMNS)
    console.print(_table(stage_summaries(found), folder))
    _print_details(console, found)


@app.command()
def diagnose(
    study: Annotated[str, typer.Argument(help="The study, e.g. lr_sweep.")],
    configfile: ConfigFiles = None,
    results: Results = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whether a study runs as fast as it should. Exits with 0: healthy, 1: slower, 2: inconclusive."""
    with _status_2_on_user_error():
        offered = _offered("diagnose")
        if study not in offered:
            raise UserError(f"diagnose: {study!r} cannot be diagnosed; choose from {', '.join(offered)}")
        config = configuration.load([Path("config.yaml"), *(configfile or [])])
        answer = offered[study](Path(results or config.results) / study, _trials(config, study, results))
    _print_answers([answer], as_json)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Results folder, or one that holds results/STUDY.")],
    second: Annotated[Path, typer.Argument(help="Results folder to compare with the first.")],
    threshold: Annotated[
        float | None, typer.Option(help="Relative difference that counts as equal; defaults to the study's.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Compare this study only.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Measure both sides now, in turn, each with its code.")] = False,
    only: Annotated[str, typer.Option(help="With --live: pattern of the trials to measure, e.g. 'base/*'.")] = "*",
    seconds: Annotated[float | None, typer.Option(help="With --live: time budget of each trial.")] = None,
    device: Annotated[str, typer.Option(help="With --live: auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which trials differ beyond noise. Exits with 0: none is worse or slower, 1: some are, 2: inconclusive."""
    with _status_2_on_user_error():
        if live and threshold is not None:
            raise UserError("compare: --threshold has no meaning with --live, whose verdicts rest on A/A; leave it out")
        if not live and (only, seconds, device) != ("*", None, "auto"):
            raise UserError("compare: --only, --seconds and --device are about --live; add it, or leave them out")
        if seconds is not None and not seconds > 0:
            raise UserError(f"compare: --seconds: {seconds:g} is not above 0")
        offered = _offered("compare_live" if live else "compare")
        for folder in (first, second):
            if not folder.is_dir():
                raise UserError(f"compare: {folder} does not exist; name a results folder, or one that holds results/")
        held = [name for name in offered if _holds(first, name) and _holds(second, name)]
        if study and study not in offered:
            raise UserError(f"compare: --study: {study!r} cannot be compared; choose from {', '.join(offered)}")
        more = (only, seconds, device) if live else (threshold,)
        answers = [offered[name](first, second, *more) for name in ([study] if study else held or [_likely(first)])]
    _print_answers(answers, as_json)


@app.command()
def report(
    configfile: ConfigFiles = None,
    results: Results = None,
) -> None:
    """Write the report from the results so far; nothing is run."""
    from plumbline.core.present.report.write import write_report  # pandas, which no other command needs

    config = configuration.load([Path("config.yaml"), *(configfile or [])])
    folder = Path(results or config.results)
    options = given_options(configfile or [], [f"results={results}"] if results else [])
    page, texts = folder / "report.html", SCHEMA.with_name("report")
    write_report(configuration.report_spec(config.plan(folder)), folder, texts, options, page)
    typer.echo(f"{page} and {page.with_name('REPORT.md')} written")


@app.command()
def schema(
    output: Annotated[Path, typer.Option(help="File to write.")] = SCHEMA,
) -> None:
    """Write the JSON Schema of the config, for editors."""
    write_json(output, configuration.Config.model_json_schema())
    typer.echo(f"{output} written")


def mount() -> None:
    """Adds the commands of `plumbline.commands` and of each study's `app`, a typer app in its commands.py."""
    for module in (run, show, init, export, *_commands().values()):
        if hasattr(module, "app"):
            app.add_typer(module.app)


def main() -> None:
    """Runs the command; a UserError is one line and exit status 1."""
    mount()
    sys.path.insert(0, str(Path.cwd()))  # where user-supplied modules live; console scripts leave it out
    try:
        app()
    except UserError as error:
        typer.echo(f"plumbline: {error}", err=True)
        sys.exit(1)


def _commands() -> dict[str, ModuleType]:
    """Study -> its commands.py, of the studies that have one."""
    folder = Path(__file__).parent
    studies = [study for study in configuration.STUDIES if (folder / study / "commands.py").exists()]
    return {study: importlib.import_module(f"plumbline.{study}.commands") for study in studies}


def _offered(command: str) -> dict[str, Callable[..., Answer]]:
    """Study -> its function `command`, of the studies whose commands.py has one."""
    return {study: getattr(module, command) for study, module in _commands().items() if hasattr(module, command)}


def _holds(folder: Path, study: str) -> bool:
    """Whether a results folder, or one that holds it, has trials of `study`."""
    places = [folder / below / study for below in (".", "results")]
    return any(trials.is_dir() for place in places for trials in (place / "trials", *place.glob("*/trials")))


def _likely(folder: Path) -> str:
    """The study whose own folder this may be, or the one to be missed: that of speeds."""
    return folder.resolve().name if folder.resolve().name in configuration.STUDIES else "throughput"


@contextmanager
def _status_2_on_user_error() -> Iterator[None]:
    """A UserError ends the command with status 2: 1 would say that something is slow."""
    try:
        yield
    except UserError as error:
        typer.echo(f"plumbline: {error}", err=True)
        raise typer.Exit(2) from None


def _print_answers(answers: list[Answer], as_json: bool) -> NoReturn:
    console = Console(soft_wrap=True, highlight=False)
    for answer in answers:
        if as_json:
            typer.echo(json.dumps(answer.values, indent=1))
            continue
        for line in answer.lines:
            if isinstance(line, Table):  # what is cut cannot be read: a narrow terminal wraps, a file takes it whole
                console.width = max(console.width, TABLE_COLUMNS, Console(width=UNBOUNDED).measure(line).maximum)
            console.print(line, markup=False)
    statuses = {answer.status for answer in answers}
    raise typer.Exit(1 if 1 in statuses else max(statuses))


def _trials(config: configuration.Common, study: str, results: Path | None) -> list[str]:
    """The study's trials: those that the config asks for, and of the optional ones those that have begun."""
    folder = Path(results or config.results) / study
    trials = [target for target in config.plan(folder.parent) if target.study == study and target.is_trial]
    begun = (t.name for t in trials if not t.optional or any((folder / p).exists() for p in (t.output, t.journal)))
    return list(begun)


def _summary_json(summary: StageSummary) -> dict[str, object]:
    values = {"study": summary.study, "stage": summary.stage, "trials": summary.is_trial, "total": summary.total}
    return values | summary.counts | {"spent_seconds": summary.seconds, "eta_seconds": summary.eta_seconds}


def _table(rows: list[StageSummary], folder: Path) -> Table:
    table = Table(title=f"{folder}/", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading in ("study", "stage", *STATES, "spent", "ETA"):
        table.add_column(heading, justify="left" if heading in ("study", "stage") else "right", no_wrap=True)
    for row in rows:
        done = f"{row.counts['done']}/{row.total} ({100 * row.counts['done'] / row.total:.1f}%)"
        others = [str(row.counts[state]) if row.counts[state] else "·" for state in STATES[1:]]
        name = f"{row.stage} (trials)" if row.is_trial else row.stage
        style = "bold" if row.is_trial else ""
        table.add_row(row.study, name, done, *others, _time(row.seconds), _time(row.eta_seconds), style=style)
    return table


def _print_details(console: Console, found: list[TargetStatus]) -> None:
    alike: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for status in found:
        name = f"{status.target.study}/{status.target.path}"
        if status.state == "running" and status.fraction is not None:
            console.print(f"running {name}: {status.fraction:.1%}, ETA {_time(status.eta_seconds)}")
        elif status.why:
            alike[status.state, status.target.stage, "; ".join(status.why)].append(name)
    for (state, _, why), names in alike.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        console.print(f"{state} {names[0]}{more}: {why}", markup=False)
    outcomes = Counter(item.outcome for item in found if item.target.is_trial and item.outcome not in (None, "ok"))
    for outcome, count in outcomes.items():
        console.print(f"{plural(count, 'trial')} ended with: {str(outcome).replace('_', ' ')}")


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
