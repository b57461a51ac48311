import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import plumbline
from plumbline import cli
from plumbline.core.errors import UserError
from plumbline.throughput.analysis.compare_live import compare_live, exit_status, summary_lines
from plumbline.throughput.live_worker import candidate
from plumbline.throughput.measurement.settings import ComparisonSettings, EngineConfig
from throughput import grid_records, trials

CODE = Path(plumbline.__file__).parents[1]
TRIAL = f"base/lean/b2-p{trials.PROMPT}-g{trials.LONGEST}"
SHORT = ComparisonSettings(seconds=1.0, precision=0.1, processes=3)
READ = "        session.read(prompts.to(self._device))\n"


def folder_with_a_trial(root: Path) -> Path:
    """A results folder below `root`, as the study leaves it, with one trial of the tiny model."""
    study = root / "results" / "throughput"
    made = trials.make(study / "models" / "base")
    (study / "references").mkdir()
    made["reference"].rename(study / "references" / "base.safetensors")
    for file in (study / "models" / "base" / "model").iterdir():
        file.rename(study / "models" / "base" / file.name)
    manifest = json.loads(made["manifest"].read_text())  # whose folder is relative to where Snakemake ran
    made["manifest"].write_text(json.dumps(manifest | {"folder": "results/throughput/models/base"}))
    spec = trials.spec(timing={"timeout_seconds": 60.0})
    config = EngineConfig(**trials.AUTOTUNE | {"compile": False})
    record = grid_records.trial().model_copy(
        update={"trial": TRIAL, **spec["cell"], "spec": spec, "engine_config": config, "model": "tiny"}
    )
    path = study / "trials" / f"{TRIAL}.json"
    path.parent.mkdir(parents=True)
    path.write_text(record.model_dump_json(by_alias=True))
    return root


def test_a_copy_of_results_uses_the_models_in_it(before: Path, tmp_path: Path) -> None:
    copy = tmp_path / "results-before"
    shutil.copytree(before / "results", copy)
    found = candidate(copy / "throughput", TRIAL, "cpu")
    assert found.entry.manifest.folder == f"{copy}/throughput/models/base"
    found.close()


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return folder_with_a_trial(tmp_path / "before")


def worktree(root: Path, old: str = "", new: str = "") -> Path:
    """A results folder beside a copy of the code, whose engine `lean` is edited."""
    shutil.copytree(CODE / "plumbline", root / "workflow" / "plumbline", ignore=shutil.ignore_patterns("__pycache__"))
    engine = root / "workflow" / "plumbline" / "throughput" / "engines" / "lean.py"
    assert old in engine.read_text()
    engine.write_text(engine.read_text().replace(old, new, 1))
    return folder_with_a_trial(root)


def test_each_side_runs_the_code_of_its_own_worktree(before: Path, tmp_path: Path) -> None:
    after = worktree(tmp_path / "after", READ, 40 * READ)
    found = compare_live(before, after, "*", SHORT, "cpu")
    (row,) = found["trials"]
    assert (row["trial"], row["verdict"]) == (TRIAL, "slower")
    assert row["ratio"]["high"] < 0.9
    assert exit_status(found) == 1
    first, *rest = summary_lines(found)
    assert first == "1 trial measured on both sides in turn: 1 slower."
    assert rest == [f"The first ran the code in {CODE}, the second that in {after}/workflow."]


def test_a_side_that_generates_other_tokens_has_no_speed(before: Path, tmp_path: Path) -> None:
    after = worktree(
        tmp_path / "after", 'session.tokens[:count].T.to("cpu", copy=True)', "session.tokens[:count].T * 0"
    )
    found = compare_live(before, after, "*", SHORT, "cpu")
    (row,) = found["trials"]
    assert row["verdict"] == "unavailable"
    assert "instead of" in row["notes"][0]
    assert exit_status(found) == 2


def test_a_side_whose_process_dies_leaves_the_other_trials_their_results(before: Path, tmp_path: Path) -> None:
    after = worktree(tmp_path / "after", READ, READ.replace("session", "__import__('os')._exit(3); session"))
    (row,) = compare_live(before, after, "*", SHORT, "cpu")["trials"]
    assert (row["verdict"], row["notes"]) == ("unavailable", ["its process ended with status 3"])


def test_code_from_before_there_was_live_is_named(before: Path, tmp_path: Path) -> None:
    after = worktree(tmp_path / "after")
    (after / "workflow" / "plumbline" / "throughput" / "live_worker.py").unlink()
    with pytest.raises(UserError, match=r"compare: the code in .*/after/workflow is too old for --live"):
        compare_live(before, after, "*", SHORT, "cpu")


def test_the_command_measures_the_trials_that_match(before: Path) -> None:
    run = CliRunner().invoke(cli.app, ["compare", str(before), str(before), "--live", "--seconds", "0.5", "--json"])
    (row,) = json.loads(run.stdout)["trials"]
    assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
    assert (row["rounds"] >= 20, row["processes"] <= 4) == (True, True)
    for options, said in (
        (["--live", "--only", "x/*"], "no trial that matches 'x/*'"),
        (["--live", "--threshold", "0.1"], "no meaning"),
        (["--live", "--seconds", "0"], "--seconds: 0 is not above 0"),
        (["--only", "x/*"], "are about --live"),
    ):
        run = CliRunner().invoke(cli.app, ["compare", str(before), str(before), *options])
        assert run.exit_code == 2
        assert said in run.stderr
