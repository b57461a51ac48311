"""`plumbline export mlflow`: the trials of studies as runs of a local MLflow store."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from plumbline import config as configuration
from plumbline.commands.options import ConfigFiles, Results
from plumbline.commands.show import NOT_SHOWN, results_folder, scalars
from plumbline.core.errors import UserError
from plumbline.core.present.formatting import plural
from plumbline.core.run.record import read_record
from plumbline.core.run.record_differences import DIGESTS
from plumbline.core.run.records import record_files

if TYPE_CHECKING:
    from mlflow import MlflowClient

app = typer.Typer()
export = typer.Typer(help="Write trials to another tool's store.")
app.add_typer(export, name="export")
INSTALL = "pip install 'mlflow>=3.14', or plumbline[mlflow]"
TRIAL, STARTED = "plumbline.trial", "plumbline.started"
"""Tags that tell a run's trial, and which record of it."""
MOST = {"metrics": 1000, "params": 100}
"""MLflow takes no more of them at once."""
LONGEST = 500
"""Characters of a parameter."""


class Run(NamedTuple):
    """A record as MLflow knows it."""

    experiment: str
    trial: str
    started: str
    milliseconds: tuple[int, int]
    """Begin and end, since 1970."""
    is_ok: bool
    params: dict[str, str]
    """The settings in the spec."""
    metrics: list[tuple[str, float, int]]
    """Name, value and step, of every number in the record and of its curves."""
    tags: dict[str, str]


@export.command()
def mlflow(
    studies: Annotated[list[str] | None, typer.Argument(metavar="STUDY", help="All with trials, if none.")] = None,
    store: Annotated[str | None, typer.Option(help="Tracking URI; RESULTS/mlflow.db in SQLite unless given.")] = None,
    configfile: ConfigFiles = None,
    results: Results = None,
) -> None:
    """Write trials to a local MLflow store. One that is there already is left alone, one that ran again is replaced."""
    folder = results_folder("export", studies, configfile, results)
    runs = [run for study in studies or configuration.STUDIES for run in read_runs(folder / study)]
    if not runs:
        raise UserError(f"export: {folder} holds no trials of {', '.join(studies or ['any study'])}; run them first")
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise UserError(f"export mlflow: MLflow is not installed: {INSTALL}") from None
    uri = store or f"sqlite:///{folder.absolute() / 'mlflow.db'}"
    written = write_runs(MlflowClient(tracking_uri=uri), runs)
    typer.echo(f"{plural(written, 'trial')} of {len(runs)} written to {uri}, the others were there")
    typer.echo(f"look at them with: mlflow ui --backend-store-uri {uri}")


def read_runs(folder: Path) -> Iterator[Run]:
    """A Run for each record in a study's `folder`. Raises UserError for a file that is not one."""
    for path in map(Path, record_files(folder)):
        if '"trial":' in path.read_text(encoding="utf-8", errors="replace"):
            yield as_run(read_record(path))


def as_run(record: Mapping[str, Any]) -> Run:
    """The record's spec as parameters, its numbers and curves as metrics, its texts as tags."""
    begin = datetime.fromisoformat(record["started"]).timestamp()
    sweep = record.get("sweep")
    values = {_name(name): value for name, value in scalars(record)}
    settings = {name: value for name, value in record["spec"].items() if name not in DIGESTS}
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    not_finite = {name: float(value) for name, value in values.items() if value in ("nan", "inf", "-inf")}
    texts = {name: value for name, value in values.items() if isinstance(value, str) and name not in not_finite}
    return Run(
        experiment=record["study"] if sweep is None else f"{record['study']}/{sweep}",
        trial=record["trial"],
        started=record["started"],
        milliseconds=(round(1000 * begin), round(1000 * (begin + record["seconds"]))),
        is_ok=record["outcome"] == "ok",
        params={name: _text(value) for name, value in _flat(settings)},
        metrics=[(name, float(value), 0) for name, value in (numbers | not_finite).items()] + list(_curves(record)),
        tags=texts | {TRIAL: record["trial"], STARTED: record["started"], "machine": json.dumps(record["machine"])},
    )


def write_runs(client: "MlflowClient", runs: Sequence[Run]) -> int:
    """Writes the runs that are not in the store yet; returns how many. An older run of a trial is deleted."""
    known: dict[str, tuple[str, dict[str, Any]]] = {}
    written = 0
    for run in runs:
        if run.experiment not in known:
            known[run.experiment] = _experiment(client, run.experiment)
        experiment, there = known[run.experiment]
        earlier = there.get(run.trial)
        if earlier is None or earlier.data.tags.get(STARTED) != run.started:
            _write(client, experiment, run)
            written += 1
            if earlier is not None:
                client.delete_run(earlier.info.run_id)
    return written


def _experiment(client: "MlflowClient", name: str) -> tuple[str, dict[str, Any]]:
    """The id of an experiment, which is made if need be, and trial -> run of those in it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name), {}
    if found.lifecycle_stage != "active":
        raise UserError(
            f"export mlflow: experiment {name} is deleted in this store; restore it, or name another --store"
        )
    runs: dict[str, Any] = {}
    token: str | None = ""
    while token is not None:
        page = client.search_runs([found.experiment_id], page_token=token)
        runs |= {run.data.tags[TRIAL]: run for run in page if TRIAL in run.data.tags}
        token = page.token
    return found.experiment_id, runs


def _write(client: "MlflowClient", experiment: str, run: Run) -> None:
    from mlflow.entities import Metric, Param, RunTag

    began, ended = run.milliseconds
    made = client.create_run(experiment, start_time=began, tags={TRIAL: run.trial}, run_name=run.trial).info.run_id
    params = [Param(name, value) for name, value in run.params.items()]
    for start in range(0, len(params), MOST["params"]):
        client.log_batch(made, params=params[start : start + MOST["params"]])
    metrics = [Metric(name, value, ended, step) for name, value, step in run.metrics]
    for start in range(0, len(metrics), MOST["metrics"]):
        client.log_batch(made, metrics=metrics[start : start + MOST["metrics"]])
    client.set_terminated(made, "FINISHED" if run.is_ok else "FAILED", ended)
    client.log_batch(made, tags=[RunTag(name, value) for name, value in run.tags.items()])  # last: now it is whole


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and value of every setting; a list is one value."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield _name(above + name), value


def _curves(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float, int]]:
    """Name, value and step of every point of the lists that stand beside a list of steps."""
    for name, value in record.items():
        if isinstance(value, dict) and name not in NOT_SHOWN:
            steps = value.get("step")
            for column, points in value.items():
                if (
                    isinstance(steps, list)
                    and column != "step"
                    and isinstance(points, list)
                    and len(points) == len(steps)
                ):
                    at = zip(points, steps, strict=True)
                    yield from ((_name(f"{above}{name}.{column}"), float(y), int(x)) for y, x in at if y is not None)
            yield from _curves(value, f"{above}{name}.")


def _name(text: str) -> str:
    """A name as MLflow takes it."""
    return re.sub(r"[^\w./ -]", "_", text)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
