"""`plumbline run`: calls Snakemake with settings from the command line, and shows how far it is."""

import difflib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from plumbline import config as configuration
from plumbline.commands.options import ConfigFiles
from plumbline.core.errors import UserError
from plumbline.core.files import write_text
from plumbline.core.plan.target import digest

if TYPE_CHECKING:
    from plumbline.commands.live import LiveView

app = typer.Typer()
TAIL = 12
"""Lines of Snakemake's output that are shown when it failed and no target did."""
CLOCK_SKEW_SECONDS = 5.0
"""By so much a cluster's clocks may differ."""
OPTIONS = ("--configfile", "--cores", "--profile", "--dry-run", "--print", "--help")


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="STUDY|FILE|KEY=VALUE", help="What to run, all if nothing, and other settings."),
    ] = None,
    configfile: ConfigFiles = None,
    cores: Annotated[str | None, typer.Option(metavar="N", help="Cores to use; all, unless a profile says.")] = None,
    profile: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Snakemake profile: profiles/slurm.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="List the jobs that would run; run none.")] = False,
    print_only: Annotated[bool, typer.Option("--print", help="Print the snakemake command; run nothing.")] = False,
) -> None:
    """Run what is missing or stale, and show how far it is.

    \b
    plumbline run                            every study, then the report
    plumbline run ablation ablation.runs=3   one study, with another setting
    plumbline run sweep 'sweep.mine.grid.lr=[0.1, 0.3]'
    plumbline run sweep --configfile mine.yaml -n

    Exits with Snakemake's status. Its other options: add them to what --print prints.
    """
    from plumbline.commands.overrides import is_key, merged, split
    from plumbline.core.run.lock import check_writable

    _check_options(words or [])
    targets, overrides = split(words or [])
    paths = [Path("config.yaml"), *(configfile or [])]
    for target in targets:
        if is_key(target, paths):
            raise UserError(f"run: {target!r} is a setting without a value; write {target}=VALUE")
    _check_targets(targets)
    values = merged(paths, overrides)
    config = configuration.check(values)
    results = Path(config.results)
    check_writable(results)
    if overrides:
        paths = [Path("config.yaml"), _written(values, paths, overrides, results)]
    command = snakemake_command(targets, paths[1:], cores, profile, is_dry=dry_run)
    if print_only:
        typer.echo(shlex.join(command))
        return
    if dry_run:
        sys.exit(subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode)
    studies = [target for target in targets if target in configuration.STUDIES]
    _run(command, config, results, studies if len(studies) == len(targets) > 0 else configuration.STUDIES)


def snakemake_command(
    targets: Sequence[str],
    configfiles: Sequence[Path],
    cores: str | None,
    profile: Path | None,
    *,
    is_dry: bool = False,
) -> list[str]:
    """The command that a shell in the project's folder takes."""
    program = Path(sys.executable).parent / "snakemake"
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    command = [str(program)]
    if cores or not profile:
        command += ["--cores", cores or "all"]
    if profile:
        command += ["--profile", str(profile)]
    if is_dry:
        command.append("--dry-run")
    command += targets
    return [*command, "--configfile", *map(str, configfiles)] if configfiles else command


def _check_options(words: Sequence[str]) -> None:
    """Raises UserError for a word with a dash, which is no option of this command."""
    for word in words:
        name, equals, _ = word.partition("=")
        if name.startswith("-"):
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            if near:
                fix = f"did you mean {near[0]}?"
            elif equals and "." in name:
                fix = f"settings have no dashes: {word.lstrip('-')}"
            else:
                fix = "for an option of snakemake, add it to the command that --print prints"
            raise UserError(f"run: no option {name}; {fix}")


def _check_targets(targets: Sequence[str]) -> None:
    known = (*configuration.STUDIES, "all", "report")
    for target in targets:
        if target not in known and "/" not in target:
            begun = [name for name in known if name.startswith(target)]
            near = begun or difflib.get_close_matches(target, known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}, or name a file"
            raise UserError(f"run: {target!r} is neither a study nor KEY=VALUE; {fix}")


def _written(values: dict[str, object], paths: Sequence[Path], overrides: Sequence[str], results: Path) -> Path:
    """The file that the merged config is written to; the same settings give the same file."""
    import yaml

    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    head = "\n".join(f"# {line}" for line in [", ".join(map(str, paths)), *map(repr, overrides)])
    path = results / "configs" / f"{digest(text)}.yaml"
    write_text(path, f"{head}\n{text}")
    return path


def _run(command: list[str], config: configuration.Common, results: Path, studies: Sequence[str]) -> NoReturn:
    from plumbline.commands.live import LiveView
    from plumbline.core.plan.live_status import StatusReader
    from plumbline.core.run.lock import check_free

    check_free(results)  # else the progress of the run that uses it would be shown until Snakemake is refused
    began = time.time()
    log = results / "logs" / f"snakemake-{time.strftime('%Y-%m-%dT%H%M%S')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, highlight=False)
    console.print(shlex.join(command), markup=False)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    _pass_signals_on(process)
    try:
        reader = StatusReader(lambda: config.plan(results), results)  # while Snakemake starts
    except UserError:  # Snakemake would say the same, in more lines
        process.terminate()
        process.wait()
        raise
    view = LiveView(reader, results, studies, since=began - CLOCK_SKEW_SECONDS)
    try:
        view.show_until(lambda seconds: _has_ended(process, seconds), console)
    except UserError as error:
        console.print(f"nothing more is shown: {error}", markup=False)
    status = process.wait()
    _print_end(status, view, log, console)
    sys.exit(status if status >= 0 else 128 - status)


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits for the process, for as many seconds at the most."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _pass_signals_on(process: subprocess.Popen[bytes]) -> None:
    """From now on this process ends when Snakemake does. The terminal's Ctrl-C reaches both: it is not sent twice."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT or not _is_in_foreground():
            process.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, pass_on)


def _is_in_foreground() -> bool:
    """Whether a terminal sends its Ctrl-C to this process and those it started."""
    try:
        with Path("/dev/tty").open("rb") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _print_end(status: int, view: "LiveView", log: Path, console: Console) -> None:
    from plumbline.commands.progress import ending, last_line, log_of, target_name

    if status == 0:
        console.print(f"finished; Snakemake's output: {log}")
        return
    for item in view.failed:
        path = log_of(item.target, view.results)
        console.print(f"{ending(item)} {target_name(item.target)}: {last_line(path)} ({path})", markup=False)
    if not view.failed:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        console.print("\n".join(lines[-TAIL:]), markup=False)
    console.print(f"not finished; Snakemake's output: {log}. Run the same command again to go on.", markup=False)
