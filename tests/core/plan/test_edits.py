"""Edits of the package make stale what they can change, and nothing else: plans of edited copies, nothing is run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from house import HALF_WRITTEN, PROJECT

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
    """Applies edits to a copy of the package and returns the stages that they make stale, with their counts.

    An edit is a module, a text that stands in it once, and what to put in its place.
    """

    def stale(*edits: tuple[str, str, str]) -> dict[str, int]:
        package = tmp_path / "plumbline"
        shutil.copytree(PROJECT / "workflow" / "plumbline", package, ignore=HALF_WRITTEN)
        for module, old, new in edits:
            text = (package / module).read_text()
            assert text.count(old) == 1, f"{old!r} stands once in {module}"
            (package / module).write_text(text.replace(old, new))
        after = specs(package)
        assert after.keys() == before.keys()
        stages = [name.partition("/")[0] for name in before if after[name] != before[name]]
        return {stage: stages.count(stage) for stage in dict.fromkeys(stages)}

    return stale


ANOTHER_KEY = "    another: int = 1\n"


NO_RESULT = {
    "a table that no stage reads": ("throughput/settings.py", 'TABLES = ("', 'TABLES = ("another", "'),
    "an error's wording": ("core/settings.py", "no such key{hint", "unknown key{hint"),
    "a check's wording": ("core/settings.py", "is named twice", "is given twice"),
    "a log line": ("core/run/lock.py", '; waiting for it"', '; it has to end first"'),
    "a package described": ("core/measure/machine.py", '"numpy", "scipy"', '"numba", "numpy", "scipy"'),
    "a key": ("throughput/settings.py", "    limits: Limits", f"{ANOTHER_KEY}    limits: Limits"),
    "a stage's command line": ("core/run/stage.py", "allow_abbrev=False", "allow_abbrev=True"),
}


def test_what_changes_no_result_makes_nothing_stale(stale):
    """All at once: where one edit made a target stale, so would all."""
    assert stale(*NO_RESULT.values()) == {}


def test_a_figures_name_makes_the_figures_stale(stale):
    assert stale(("lr_sweep/settings.py", 'FIGURES = ("', 'FIGURES = ("another", "')) == {"lr_sweep.figures": 1}


def test_a_new_outcome_makes_stale_what_counts_all_outcomes(stale):
    found = stale(("core/run/outcome.py", '    OK = "ok"\n', '    OK = "ok"\n    LOST = "lost"\n'))
    assert found == {"throughput.summarize": 1, "throughput.figures": 1}


@pytest.mark.parametrize(
    ("module", "first", "second", "stages"),
    [
        ("core/run/outcome.py", "DIVERGED", "INVALID_OUTPUT", {"throughput.summarize", "throughput.figures"}),
        ("lr_sweep/record.py", "CONVERGED", "SPIKED", {"lr_sweep.summarize"}),
    ],
)
def test_the_order_of_members_makes_stale_what_goes_through_them(stale, module, first, second, stages):
    members = [f'    {name} = "{name.lower()}"\n' for name in (first, second)]
    found = stale((module, "".join(members), "".join(reversed(members))))
    assert stages <= set(found)
    assert "ablation.train" not in found


def test_a_new_key_with_a_default_makes_stale_the_stages_whose_spec_holds_it_and_what_follows(stale):
    place = "    seconds: PositiveFloat = 0.4\n"
    found = stale(("throughput/measurement/settings.py", place, ANOTHER_KEY + place))
    follow = ("measure", "comparison", "summarize", "figures")
    assert set(found) == {"throughput.limits", *(f"throughput.{stage}" for stage in follow)}


def test_an_edit_of_a_function_makes_its_callers_and_what_follows_stale(stale):
    found = stale(("lr_sweep/training/stability.py", "> settings.spike_z", ">= settings.spike_z"))
    assert {"lr_sweep.train", "lr_sweep.best"} <= set(found)
    assert not {"lr_sweep.corpus", "lr_sweep.tokenizer", "lr_sweep.tokens", "throughput.limits"} & set(found)
    assert not any(stage.startswith("ablation.") for stage in found)
