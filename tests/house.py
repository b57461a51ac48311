"""A small house in a folder of its own: the project's files, a tiny config, and the means to run it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import yaml

from plumbline import config as configuration
from plumbline.commands.show import read_rows, trials_of
from plumbline.core.plan.kept_code import keep_code_of

PROJECT = Path(__file__).parents[1]
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "presets", "envs", "examples")
TINY = {path.parent.name: yaml.safe_load(path.read_text()) for path in PROJECT.glob("tests/*/tiny.yaml")}
"""Every study at a size that a test can run, by its name."""
TRIALS = 10
HALF_WRITTEN = shutil.ignore_patterns("*.pyc.*", "*.partial")
"""Bytecode and digests that another process is writing. The others are copied, for compiling takes a second."""


class House:
    """A copy of the project at `root`, with `tiny.yaml` laid over its config; runs `study` unless told a target."""

    longest_seconds = 600
    """Of a run."""

    def __init__(self, root: Path, study: str = "ablation") -> None:
        self.root = root
        self.study = root / "results" / study

    def configure(self, settings: dict) -> None:
        (self.root / "tiny.yaml").write_text(yaml.safe_dump(settings))

    def command(self, *arguments: str) -> list[str]:
        named = any(argument.startswith("results/") for argument in arguments)
        target = [] if named else [self.study.name]
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *target, *arguments]
        return [*command, "--configfile", "tiny.yaml"]

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return kept | {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(self.root / ".cache")}

    def snakemake(self, *arguments: str, succeeds: bool = True) -> str:
        """Runs Snakemake and returns all it printed."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.longest_seconds,
            check=False,
        )
        assert (done.returncode == 0) is succeeds, done.stdout
        return done.stdout

    def waiting(self, *arguments: str) -> Counter[str]:
        """Jobs that a run would have, by rule."""
        text = self.snakemake("--dry-run", *arguments)
        table = text.partition("Job stats:")[2].partition("total")[0]
        rows = re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)
        return Counter({rule: int(count) for rule, count in rows if rule not in ("job", "all", self.study.name)})

    def plumbline(self, *arguments: str, status: int = 0, **variables: str) -> str:
        """What a command prints, run with these variables in its environment too."""
        command = [sys.executable, "-c", "from plumbline.cli import main; main()", *arguments]
        environment = self.environment() | {"PYTHONPATH": str(self.root / "workflow")} | variables
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts Snakemake as the leader of a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def edit(self, module: str, old: str, new: str) -> None:
        """Replaces text in a module of this copy of the package."""
        path = self.root / "workflow" / "plumbline" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def check_shown(house: House) -> None:
    """That the table of the trials of the house's study fits 120 columns, or 80, and each row has keys of its own."""
    study, config = house.study.name, configuration.load([house.root / "config.yaml", house.root / "tiny.yaml"])
    found = read_rows(house.root / config.results / study, study)
    assert len({tuple(row.keys.values()) for row in found}) == len(found) > 0
    for width in (120, 80):
        said = house.plumbline("show", study, "--configfile", "tiny.yaml", COLUMNS=str(width)).splitlines()
        assert said[0].startswith(f"{study}: {len(trials_of(found))} trial")
        heading, *lines = said[1 : len(found) + 2]
        assert max(map(len, (heading, *lines))) <= width
        first = {next(iter(found[0].found))} if width == 120 else set()
        assert {*found[0].keys, "outcome"} | first <= set(heading.split())


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and all it started, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def comparable(record):
    """A record without what time and machine put into it."""
    if isinstance(record, dict):
        left_out = {"seconds", "started", "machine", "feature_seconds"}
        return {key: comparable(value) for key, value in record.items() if key not in left_out}
    return [comparable(value) for value in record] if isinstance(record, list) else record


def contents(house: House):
    """Every record, feature file and adapter block of the study."""
    found = {}
    for path in sorted((house.study / "trials").rglob("*.json")):
        found[str(path.relative_to(house.study))] = comparable(json.loads(path.read_text()))
    for path in sorted((house.study / "features").rglob("*.safetensors")):
        found[str(path.relative_to(house.study))] = path.read_bytes()
    for path in sorted((house.study / "adapters" / "blocks").iterdir()):
        found[path.name] = path.read_bytes()
    return found


@cache
def keep_code() -> None:
    """So that Snakemake need not read all sources in every house."""
    targets = configuration.load([PROJECT / "config.yaml"]).plan()
    keep_code_of({configuration.REPORT, *(target.root for target in targets)})


def build(root: Path, study: str = "ablation") -> House:
    keep_code()
    root.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = PROJECT / part
        if source.is_dir():
            shutil.copytree(source, root / part, ignore=HALF_WRITTEN)
        else:
            shutil.copy2(source, root / part)
    house = House(root, study)
    house.configure(TINY)
    return house
