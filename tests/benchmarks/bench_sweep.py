"""What a trial of a sweep costs beyond its command, and how long a dry run of 10,000 drawn trials takes."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.sweep.trial.command import filled_in

PROJECT = Path(__file__).parents[2]
TRIALS, MANY, REPEATS, CORES = 100, 10_000, 2, 2
COMMAND = "echo '{{\"score\": 1}}' > {folder}/metrics.json; true {x}"
SPACE = {"x": {"low": 0.0, "high": 1.0}}


def main() -> None:
    """Runs sweeps in a folder of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("Snakefile", "config.yaml", "workflow", "profiles", "envs", "examples"):
            (root / part).symlink_to(PROJECT / part)
        configure(root, 1)
        snakemake(root)  # compiles modules, draws fonts
        seconds: dict[str, list[float]] = {"none": [], "sweep": [], "bare": [], "dry_run": []}
        for number in range(REPEATS):
            configure(root, 1, results=f"one-{number}")
            seconds["none"].append(snakemake(root))
            configure(root, TRIALS + 1, results=f"many-{number}")
            seconds["sweep"].append(snakemake(root))
            seconds["bare"].append(bare(root))
        configure(root, MANY, results="none")
        seconds["dry_run"].append(snakemake(root, "--dry-run"))
    differences = [many - one for many, one in zip(seconds["sweep"], seconds["none"], strict=True)]
    figures = {
        "overhead_seconds_per_trial": min(differences) * CORES / TRIALS - min(seconds["bare"]) / TRIALS,
        "trials_per_minute_on_2_cores": 60 * TRIALS / min(differences),
        "dry_run_of_10000_trials_seconds": min(seconds["dry_run"]),
    }
    result = {"benchmark": "sweep", "figures": figures, "samples_seconds": seconds, "machine": describe_machine()}
    write_json(output, result)
    print(figures)


def configure(root: Path, trials: int, results: str = "first") -> None:
    """A sweep of `trials` random draws of one parameter."""
    search = {"sampler": "random", "trials": trials, "space": SPACE}
    sweep = {"command": COMMAND, "search": search, "metric": {"name": "score", "goal": "max"}}
    (root / "sweep.yaml").write_text(yaml.safe_dump({"results": results, "sweep": {"digits_mlp": None, "s": sweep}}))


def snakemake(root: Path, *options: str) -> float:
    """The seconds that a run takes."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(CORES), "--configfile", "sweep.yaml", *options]
    began = time.perf_counter()
    subprocess.run([*command, "--", "sweep"], cwd=root, check=True, capture_output=True)
    return time.perf_counter() - began


def bare(root: Path) -> float:
    """The seconds that the commands of TRIALS trials take, each in a shell of its own."""
    command = filled_in(COMMAND, {"folder": str(root), "x": 0.5})
    began = time.perf_counter()
    for _ in range(TRIALS):
        subprocess.run(["bash", "-c", command], check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
