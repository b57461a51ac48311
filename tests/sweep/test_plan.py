"""What decides a trial: the code that it runs, wherever that lies, and not the path to it."""

from pathlib import Path

import pytest

from plumbline.core.plan.target import Target
from plumbline.sweep.plan import code_files, sweep_plan
from sweep.some import sweep


def first_trial(results: Path, **settings: object) -> Target:
    return sweep_plan("s", sweep(**settings), results)[0]


@pytest.mark.parametrize("pattern", ["~/lab/train.py", "{home}/lab/*.py"])
def test_the_same_code_below_another_home_folder_makes_no_trial_stale(tmp_path, monkeypatch, pattern):
    specs = []
    for home, text in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / home / "lab").mkdir(parents=True)
        (tmp_path / home / "lab" / "train.py").write_text(text)
        monkeypatch.setenv("HOME", str(tmp_path / home))
        specs.append(first_trial(tmp_path, code=[pattern.format(home=tmp_path / home)]).spec)
    assert specs[0] == specs[1] != specs[2]


def test_a_file_of_code_is_named_by_its_path_from_here_or_by_its_name(tmp_path, monkeypatch):
    here, lab = tmp_path / "here", tmp_path / "lab"
    for path in (here / "mine" / "train.py", lab / "data.py", lab / "more" / "data.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    monkeypatch.chdir(here)
    inside, outside = Path("mine/train.py"), [lab / "data.py", lab / "more" / "data.py"]
    found = code_files([inside, *outside])
    assert list(found) == ["mine/train.py", "data.py"]
    assert code_files([inside.absolute(), *outside]) == found
    outside[1].write_text("edited")
    assert code_files([inside, *outside])["data.py"] != found["data.py"]


def test_a_trial_of_a_function_depends_on_the_program_that_calls_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_trials.py").write_text("def train(settings): ...\n")
    caller = {"sweep.trial.call.main", "sweep.trial.call.Report", "core.registry.find"}
    assert caller | {"own_trials.train"} <= first_trial(tmp_path, command=None, run="own_trials:train").code.keys()
    assert caller.isdisjoint(first_trial(tmp_path).code)
