"""What a trial of a sweep costs beyond its command, and what Snakemake takes to look at 10,000 trials."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from snakemake.io import IOFile
from snakemake.persistence.file import FilePersistence

from plumbline import config
from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.sweep.trial.command import filled_in

PROJECT = Path(__file__).parents[2]
CORES = 2
COMMAND = "echo '{{\"score\": {x}}}' > {folder}/metrics.json"
SPACE = {"x": {"low": 0.0, "high": 1.0}}


def main() -> None:
    """Runs sweeps in a folder of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=300, help="trials that run")
    parser.add_argument("--many", type=int, default=10_000, help="trials that Snakemake looks at; 0 leaves that out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("Snakefile", "config.yaml", "workflow", "profiles", "envs", "examples"):
            (root / part).symlink_to(PROJECT / part)
        os.chdir(root)
        figures = overhead(options.trials) | (looking(options.many) if options.many else {})
    write_json(options.output, {"benchmark": "sweep", "figures": figures, "machine": describe_machine()})
    print(json.dumps(figures, indent=1))


def overhead(trials: int) -> dict[str, float]:
    """Runs `trials` and one, without their tables and figures, and the bare commands."""
    snakemake(configure(1, "first"))  # compiles modules
    one = snakemake(configure(1, "one"))
    every = snakemake(configure(trials, "every"))
    bare = measured(*(["bash", "-c", filled_in(COMMAND, {"folder": ".", "x": 0.5})] for _ in range(trials)))
    return {
        "trials": trials,
        "wall_seconds": every["wall"],
        "overhead_cpu_seconds_per_trial": (every["cpu"] - one["cpu"]) / (trials - 1) - bare["cpu"] / trials,
        "overhead_core_seconds_per_trial": CORES * (every["wall"] - one["wall"]) / (trials - 1) - bare["wall"] / trials,
    }


def looking(trials: int) -> dict[str, float]:
    """A dry run before there is anything, and a run when all is done."""
    files = configure(trials, "none")
    found = {f"dry_run_of_{trials}": snakemake(["sweep"], "--dry-run")}
    snakemake(files[:1])
    finish("none")
    snakemake(["sweep"])
    found[f"no_op_of_{trials}"] = snakemake(["sweep"])
    return {f"{name}_{clock}_seconds": spent for name, times in found.items() for clock, spent in times.items()}


def configure(trials: int, results: str) -> list[str]:
    """Has sweep.yaml name a sweep of `trials` random draws; the files of their records."""
    search = {"sampler": "random", "trials": trials, "space": SPACE}
    sweep = {"command": COMMAND, "search": search, "metric": {"name": "score", "goal": "max"}}
    Path("sweep.yaml").write_text(yaml.safe_dump({"results": results, "sweep": {"digits_mlp": None, "s": sweep}}))
    return [str(target.file(Path(results))) for target in planned()]


def planned() -> list[config.Target]:
    """The trials of sweep.yaml."""
    targets = config.load([Path("config.yaml"), Path("sweep.yaml")]).plan()
    return [target for target in targets if target.study == "sweep" and target.is_trial]


def finish(results: str) -> None:
    """Records of all trials, and what Snakemake keeps about them: copies of those of the first, which has run."""
    kept, trials = FilePersistence(path=Path(".snakemake").absolute()), planned()
    first = trials[0]
    record, metadata = (
        json.loads(first.file(Path(results)).read_text()),
        kept.metadata(IOFile(first.file(Path(results)))),
    )
    for trial in trials[1:]:
        file, spec = trial.file(Path(results)), json.loads(trial.spec)
        point = {"point": file.parent.name, "parameters": spec["parameters"], "trial": trial.name, "spec": spec}
        write_json(file, record | point | {"metrics": {"score": spec["parameters"]["x"]}})
        changed = {"params": [repr(trial.spec)], "log": [f"{results}/sweep/{trial.log}"]}
        kept._write_record(str(file), metadata.model_copy(update=changed | {"endtime": time.time()}))


def snakemake(targets: list[str], *options: str) -> dict[str, float]:
    """What a run takes."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(CORES), "--configfile", "sweep.yaml", *options]
    return measured([*command, "--", *targets])


def measured(*commands: list[str]) -> dict[str, float]:
    """The seconds on the clock and of CPU that commands take, one after another."""
    began, before = time.perf_counter(), os.times()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": time.perf_counter() - began, "cpu": cpu}


if __name__ == "__main__":
    main()
