"""A block of config from a command line: it runs that command, and says what was guessed."""

import json
import shlex

import pytest
import typer
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from plumbline.commands.init import GUESSED, app, block, guessed
from plumbline.core.errors import UserError
from plumbline.core.settings import validated
from plumbline.sweep.settings import SweepStudySettings
from plumbline.sweep.trial.command import Value, filled_in

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("")
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "data").mkdir()
    return tmp_path


def init(*arguments: str):
    """Runs the command, which stands alone in the app of a test and so has no name there."""
    return RUNNER.invoke(app, [*arguments], catch_exceptions=False)


def sweeps(text: str) -> dict:
    return validated(SweepStudySettings, yaml.safe_load(text)["sweep"], "sweep").sweeps


@pytest.mark.parametrize(
    "command",
    [
        "python train.py --lr 0.1 --width 32 --optimizer adam --seed 3 --out out",
        "python train.py --lr=0.1 --width=32 --optimizer=adam --seed=3 --output-dir=out",
        "python -u train.py lr=0.1 width=32 optimizer=adam seed=3 run_dir=out",
    ],
)
def test_options_in_any_spelling_become_parameters_seed_and_folder(command):
    guess = guessed(command.split())
    sweep = sweeps(block("mine", guess, GUESSED))["mine"]
    assert sweep.grid == {"lr": [0.1], "width": [32], "optimizer": ["adam"]}
    assert sweep.baseline == {"lr": 0.1, "width": 32, "optimizer": "adam"}
    assert (sweep.seeds, sweep.code) == ([0, 1, 2], ["train.py"])
    line = filled_in(sweep.command, sweep.baseline | {"seed": 3, "folder": "out"})
    assert shlex.split(line) == command.split()


def test_files_and_folders_that_exist_are_code_or_data_and_no_parameters():
    guess = guessed(shlex.split("python -m my_lab.train --data data --config train.py --lr 1e-3 --out out"))
    assert guess.code == ["my_lab/**/*.py", "train.py"]
    assert guess.inputs == ["data/**/*"]
    assert guess.parameters == {"lr": 0.001}


WORDS = st.text(st.characters(min_codepoint=1, max_codepoint=0xD7FF), min_size=1, max_size=6)
SPELLED = st.one_of(
    WORDS,
    st.sampled_from(["--lr", "-b", "--seed", "--out", "lr=3", "--x=", "{lr}", "{{", "$(touch x)", "it's", "a b", "--"]),
    st.integers().map(str),
)


REFUSED = {"eval", "let"}
"""Words that no command of a sweep may hold, and that are as short as these texts."""


def same(one: str, other: str) -> bool:
    """Whether two words are the same text or spell the same number."""
    try:
        return one == other or float(one.rpartition("=")[2]) == float(other.rpartition("=")[2])
    except ValueError:
        return False


@given(st.lists(SPELLED, min_size=1, max_size=6))
def test_the_command_runs_as_it_was_given_whatever_its_words_hold(words):
    guess = guessed(["program", *words])
    values: dict[str, Value] = dict(guess.parameters)
    if guess.seed is not None:
        values["seed"] = guess.seed
    if guess.folder is not None:
        values["folder"] = guess.folder
    assume(not REFUSED & {*words})
    found = shlex.split(filled_in(" ".join(guess.words), values))
    assert len(found) == 1 + len(words)
    assert all(same(one, other) for one, other in zip(found, ["program", *words], strict=True))


def test_the_metric_that_an_earlier_run_has_left_is_found(here):
    (here / "out").mkdir()
    (here / "out" / "metrics.json").write_text(json.dumps({"note": "x", "train_loss": 1.0, "val_accuracy": 0.5}))
    done = init("mine", "--", "python", "train.py", "--lr", "0.1", "--out", "out")
    metric = sweeps((here / "mine.yaml").read_text())["mine"].metric
    assert (metric.name, metric.goal) == ("val_accuracy", "max")
    assert "val_accuracy was found in out/metrics.json" in done.output


def test_what_is_missing_is_said_and_the_block_is_written_all_the_same(here):
    output = init("mine", "--", "python", "train.py", "--lr", "0.1").output
    assert "no option names an output folder" in output
    assert "no option sets a seed" in output
    assert "as it stands it is refused: sweep: mine: command: takes no {folder}" in output
    assert yaml.safe_load((here / "mine.yaml").read_text())["sweep"]["mine"]["grid"] == {"lr": [0.1]}


def test_a_file_that_is_there_is_not_written_over(here):
    (here / "mine.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"mine\.yaml exists"):
        init("mine", "--", "python", "train.py")
    assert (here / "mine.yaml").read_text() == "mine"
    assert isinstance(app, typer.Typer)


def test_a_script_that_does_not_exist_is_named(here):
    output = init("mine", "--", "python", "trian.py", "--lr", "0.1").output
    assert f"command: trian.py does not exist here ({here}); correct its path" in output
    assert "trian" not in str(yaml.safe_load((here / "mine.yaml").read_text())["sweep"]["mine"]["code"])
