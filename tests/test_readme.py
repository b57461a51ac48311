"""What the README promises exists."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from plumbline import config as configuration
from plumbline.sweep.record import TrialRecord
from plumbline.sweep.run import RunSpec, run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "workflow" / "plumbline").glob("*/README.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert named <= targets


def test_the_ten_lines_of_the_readme_run_a_script_that_knows_nothing_of_plumbline(tmp_path, monkeypatch):
    lines = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)[0]
    assert len(lines.splitlines()) <= 10
    shutil.copy(ROOT / "examples" / "digits_mlp" / "train.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    below = configuration.read([ROOT / "config.yaml"])
    config = configuration.check(configuration.deep_merge(below, yaml.safe_load(lines)))
    trials = [target for target in config.plan() if target.study == "sweep" and target.is_trial]
    assert len(trials) == 3 * 2 * 5
    run(RunSpec.from_json(json.loads(trials[0].spec), "spec"), tmp_path / "folder", tmp_path / "record.json")
    record = TrialRecord.read(tmp_path / "record.json")
    assert record.ok
    assert 0.5 < record.metrics["validation_accuracy"] <= 1


def test_without_scikit_learn_the_example_says_in_one_line_what_it_needs(tmp_path):
    script = ROOT / "examples" / "digits_mlp" / "train.py"
    code = "import runpy, sys; sys.modules['sklearn'] = None; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = code.replace("sys.argv[0]", repr(str(script)))
    options = ["--lr", "0.01", "--width", "8", "--seed", "0", "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == "train.py: scikit-learn, which brings the digits, is not installed: pip install scikit-learn"
