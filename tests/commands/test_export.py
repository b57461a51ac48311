"""Trials in a local MLflow store. What needs MLflow itself runs where the extra `mlflow` is installed."""

import importlib.util
import json
import math

import pytest
from typer.testing import CliRunner

from lr_sweep import sweep_records as lr_sweep
from plumbline.cli import app, mount
from plumbline.commands import export
from plumbline.commands.export import as_run
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from sweep import some as sweep

HAS_MLFLOW = importlib.util.find_spec("mlflow") is not None
needs_mlflow = pytest.mark.skipif(not HAS_MLFLOW, reason="needs the extra mlflow")


def record(score=0.5, seed=0, outcome="ok", **more):
    values = sweep.trial({"rate": 0.1, "name": "a"}, seed, score, outcome).to_json()
    spec = {"command": "run {rate}", "parameters": values["parameters"], "seed": seed, "seeds": [0, 1], "code": "1a"}
    return values | {"spec": spec} | more


def test_settings_are_parameters_numbers_are_metrics_and_curves_have_their_steps():
    run = as_run(record())
    assert (run.experiment, run.trial, run.is_ok) == ("sweep/s", record()["trial"], True)
    expected = {
        "command": "run {rate}",
        "parameters.rate": "0.1",
        "parameters.name": "a",
        "seed": "0",
        "seeds": "[0, 1]",
    }
    assert run.params == expected  # the digest of the code is no setting
    assert ("metrics.score", 0.5, 0) in run.metrics
    assert [(y, x) for name, y, x in run.metrics if name == "curves.score"] == [(0.25, 0), (0.5, 1)]
    assert run.tags["outcome"] == "ok"
    assert json.loads(run.tags["machine"]) == record()["machine"]


def test_a_diverged_trial_has_its_nan_and_is_not_ok():
    run = as_run(lr_sweep.trial(3.0, 0, "diverged").to_json())
    (loss,) = [value for name, value, _ in run.metrics if name == "final_validation_loss"]
    assert math.isnan(loss)
    assert not run.is_ok


def test_names_hold_only_what_mlflow_takes():
    run = as_run(record(metrics={"top-1 (%)": 0.5, "f1@0.5": 0.25}))
    assert {"metrics.top-1 ___", "metrics.f1_0.5"} <= {name for name, _, _ in run.metrics}


@pytest.mark.skipif(HAS_MLFLOW, reason="MLflow is installed")
def test_without_mlflow_the_command_says_how_to_install_it(tmp_path):
    write_json(tmp_path / "sweep/s/trials/a/seed0.json", record())
    with pytest.raises(UserError, match=r"MLflow is not installed: pip install 'mlflow>=3\.14'"):
        export.mlflow(results=tmp_path)


def test_a_folder_without_trials_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no trials of lr_sweep; run them first"):
        export.mlflow(["lr_sweep"], results=tmp_path)


def test_the_command_has_its_place():
    mount()
    assert "mlflow" in CliRunner().invoke(app, ["export", "--help"]).output


@needs_mlflow
def test_a_second_export_writes_only_what_is_new_and_replaces_what_ran_again(tmp_path, capsys):
    from mlflow import MlflowClient

    path = tmp_path / "sweep/s/trials/a"
    write_json(path / "seed0.json", record())
    write_json(path / "seed1.json", record(seed=1, outcome="timeout"))
    for expected in ("2 trials of 2", "0 trials of 2"):
        export.mlflow(results=tmp_path)
        assert capsys.readouterr().out.startswith(expected)
    write_json(path / "seed0.json", record(0.75, started="2026-11-28T00:00:00+00:00"))
    write_json(path / "seed2.json", record(0.25, seed=2))
    export.mlflow(results=tmp_path)
    assert capsys.readouterr().out.startswith("2 trials of 3")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("sweep/s").experiment_id])
    found = {run.data.params["seed"]: (run.info.status, run.data.metrics.get("metrics.score")) for run in runs}
    assert found == {"0": ("FINISHED", 0.75), "1": ("FAILED", None), "2": ("FINISHED", 0.25)}
    assert len(runs) == 3
    (first,) = [run for run in runs if run.data.params["seed"] == "0"]
    curve = client.get_metric_history(first.info.run_id, "curves.score")
    assert [(point.step, point.value) for point in curve] == [(0, 0.375), (1, 0.75)]


@needs_mlflow
def test_an_export_that_was_killed_is_finished_by_the_next(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    write_json(tmp_path / "sweep/s/trials/a/seed0.json", record())
    monkeypatch.setattr(MlflowClient, "set_terminated", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export.mlflow(results=tmp_path)
    monkeypatch.undo()
    export.mlflow(results=tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("sweep/s").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"]
