"""The command that `plumbline run` stands for."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from house import PROJECT
from plumbline import cli
from plumbline import config as configuration
from plumbline.commands import run
from plumbline.commands.run import snakemake_command
from plumbline.core.errors import UserError

SNAKEMAKE = Path(sys.executable).parent / "snakemake"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text(
        (PROJECT / "config.yaml").read_text().replace("examples/", f"{PROJECT}/examples/")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(*words: str) -> list[str]:
    return shlex.split(CliRunner().invoke(run.app, [*words, "--print"], catch_exceptions=False).output)


def test_without_settings_it_is_plain_snakemake_on_all_cores():
    assert printed() == [str(SNAKEMAKE), "--cores", "all"]
    assert printed("ablation", "--cores", "3") == [str(SNAKEMAKE), "--cores", "3", "ablation"]


def test_a_profile_decides_about_cores_unless_they_are_given():
    assert snakemake_command([], [], None, Path("p"))[1:] == ["--profile", "p"]
    assert snakemake_command([], [], "2", Path("p"))[1:] == ["--cores", "2", "--profile", "p"]


def test_targets_stand_before_configfile_which_would_swallow_them():
    command = snakemake_command(["ablation"], [Path("a.yaml"), Path("b.yaml")], None, None)
    assert command[-4:] == ["ablation", "--configfile", "a.yaml", "b.yaml"]


def test_the_written_config_is_what_the_files_and_the_settings_say(here):
    (here / "mine.yaml").write_text("ablation: {runs: 4}\nresults: out\n")
    words = ["--configfile", "mine.yaml", "ablation.zoo.adapters=300", "ablation.layers=[text_only]"]
    *_, path = printed(*words)
    assert Path(path).parent == Path("out/configs")
    config = configuration.check(yaml.safe_load(Path(path).read_text()))
    assert (config.ablation.runs, config.ablation.zoo.adapters, config.ablation.layers) == (4, 300, ["text_only"])
    assert printed(*words)[-1] == path
    assert printed(*words, "ablation.runs=5")[-1] != path


def test_a_word_that_is_neither_a_study_nor_a_setting_is_named(here):
    with pytest.raises(UserError, match=r"'ablaton' is neither a study nor KEY=VALUE; did you mean ablation\?"):
        printed("ablaton")
    assert not (here / "results").exists()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("abl", "'abl' is neither a study nor KEY=VALUE; did you mean ablation?"),
        ("repotr", "'repotr' is neither a study nor KEY=VALUE; did you mean report?"),
        ("ablation.runs", "'ablation.runs' is a setting without a value; write ablation.runs=VALUE"),
        ("--ablation.runs=3", "no option --ablation.runs; settings have no dashes: ablation.runs=3"),
        ("--dryrun", "no option --dryrun; did you mean --dry-run?"),
        ("--forceall", "no option --forceall; for an option of snakemake, add it to the command that --print prints"),
        ("-np", "no option -p; for an option of snakemake, add it to the command that --print prints"),
    ],
)
def test_each_slip_of_the_pen_is_one_line_with_its_fix(here, word, said):
    with pytest.raises(UserError) as refused:
        printed(word)
    assert str(refused.value) == f"run: {said}"
    assert not (here / "results").exists()


def test_a_dry_run_is_snakemakes():
    assert printed("ablation", "-n")[1:] == ["--cores", "all", "--dry-run", "ablation"]


@pytest.mark.parametrize("command", ["run", "show", "status", "compare", "init", "export", "worker-key"])
def test_help_fits_one_screen(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    if command not in {one.name or one.callback.__name__ for one in cli.app.registered_commands}:
        cli.mount()
    said = CliRunner().invoke(cli.app, [command, "-h"]).output.splitlines()
    assert len(said) <= 24
    assert max(map(len, said)) <= 80


def test_help_of_run_names_every_option_that_a_slip_is_compared_with(monkeypatch):
    said = CliRunner().invoke(run.app, ["-h"]).output + CliRunner().invoke(run.app, ["--help"]).output
    assert [name for name in run.OPTIONS if name not in said] == []


def test_help_imports_neither_torch_nor_pandas_nor_scipy():
    heavy = {"torch", "pandas", "scipy", "mlflow", "sqlalchemy"}
    code = f"import sys; from plumbline import cli; cli.mount(); print({heavy} & {{*sys.modules}})"
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "workflow")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
