"""Edits of the package make stale what they can change, and nothing else: plans of edited copies, nothing is run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
PLAN = """
import json
from pathlib import Path
from plumbline import config
plan = config.load([Path("config.yaml")]).plan()
print(json.dumps({f"{target.study}.{target.stage}/{target.name}": target.spec for target in plan}))
"""


def specs(package: Path) -> dict[str, str]:
    """The spec of every target of the default config, by the code below `package`."""
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    command = [sys.executable, "-c", PLAN]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return specs(PROJECT / "workflow" / "plumbline")


@pytest.fixture
def stale(tmp_path, before):
    """Applies an edit to a copy of the package and returns the stages that it makes stale, with their counts."""

    def stale(module: str, old: str, new: str) -> dict[str, int]:
        package = tmp_path / "plumbline"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / "workflow" / "plumbline", package, ignore=ignored)
        text = (package / module).read_text()
        assert text.count(old) == 1, f"{old!r} stands once in {module}"
        (package / module).write_text(text.replace(old, new))
        after = specs(package)
        assert after.keys() == before.keys()
        stages = [name.partition("/")[0] for name in before if after[name] != before[name]]
        return {stage: stages.count(stage) for stage in dict.fromkeys(stages)}

    return stale


ANOTHER_KEY = "    another: int = 1\n"


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        pytest.param(
            "throughput/settings.py", 'TABLES = ("', 'TABLES = ("another", "', id="a table that no stage reads"
        ),
        pytest.param("core/settings.py", "no such key{hint", "unknown key{hint", id="an error's wording"),
        pytest.param("core/settings.py", "is named twice", "is given twice", id="a check's wording"),
        pytest.param("core/run/lock.py", '; waiting for it"', '; it has to end first"', id="a log line"),
        pytest.param(
            "core/measure/machine.py", '"numpy", "scipy"', '"numba", "numpy", "scipy"', id="a package described"
        ),
        pytest.param("throughput/settings.py", "    limits: Limits", f"{ANOTHER_KEY}    limits: Limits", id="a key"),
        pytest.param("core/run/stage.py", "allow_abbrev=False", "allow_abbrev=True", id="a stage's command line"),
    ],
)
def test_what_changes_no_result_makes_nothing_stale(stale, module, old, new):
    assert stale(module, old, new) == {}


def test_a_figures_name_makes_the_figures_stale(stale):
    assert stale("lr_sweep/settings.py", 'FIGURES = ("', 'FIGURES = ("another", "') == {"lr_sweep.figures": 1}


def test_a_new_outcome_makes_stale_what_counts_all_outcomes(stale):
    found = stale("core/run/record.py", '    OK = "ok"\n', '    OK = "ok"\n    LOST = "lost"\n')
    assert found == {"throughput.summarize": 1, "throughput.figures": 1}


@pytest.mark.parametrize(
    ("module", "first", "second", "stages"),
    [
        ("core/run/record.py", "DIVERGED", "INVALID_OUTPUT", {"throughput.summarize", "throughput.figures"}),
        ("lr_sweep/record.py", "CONVERGED", "SPIKED", {"lr_sweep.summarize"}),
    ],
)
def test_the_order_of_members_makes_stale_what_goes_through_them(stale, module, first, second, stages):
    members = [f'    {name} = "{name.lower()}"\n' for name in (first, second)]
    found = stale(module, "".join(members), "".join(reversed(members)))
    assert stages <= set(found)
    assert "ablation.train" not in found


def test_a_new_key_with_a_default_makes_stale_the_stages_whose_spec_holds_it_and_what_follows(stale):
    place = "    seconds: PositiveFloat = 0.4\n"
    found = stale("throughput/measurement/settings.py", place, ANOTHER_KEY + place)
    follow = ("measure", "comparison", "summarize", "figures")
    assert set(found) == {"throughput.limits", *(f"throughput.{stage}" for stage in follow)}


def test_an_edit_of_a_function_makes_its_callers_and_what_follows_stale(stale):
    found = stale("lr_sweep/training/stability.py", "> settings.spike_z", ">= settings.spike_z")
    assert {"lr_sweep.train", "lr_sweep.best"} <= set(found)
    assert not {"lr_sweep.corpus", "lr_sweep.tokenizer", "lr_sweep.tokens", "throughput.limits"} & set(found)
    assert not any(stage.startswith("ablation.") for stage in found)
