"""What watching costs: the share of a core that the live view takes, and how long `show` needs for 10,000 trials.

A sweep of 10,000 trials that are done, and two stages that run and write to their journals, in a folder made for it.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from plumbline.commands.live import LiveView
from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.core.plan.live_status import StatusReader
from plumbline.core.plan.target import Target
from plumbline.core.run.liveness import boot_id

TRIALS = 10_000
SECONDS = 25.0
REPEATS = 5
RUNNING = 2


def make_results(folder: Path, machine: dict[str, object], trials: int) -> list[Target]:
    """A sweep's records with curves of 15 steps, below `folder`; the first RUNNING trials have none, and run."""
    curves = {name: [0.1 * step for step in range(15)] for name in ("step", "validation_loss", "validation_accuracy")}
    targets = []
    for number in range(trials):
        point, seed = f"learning_rate={number // 5}__width=16", number % 5
        output = f"net/trials/{point}/seed{seed}.json"
        target = Target("sweep", "run", f"net/{point}/{seed}", output, {"seed": seed}, is_trial=True)
        targets.append(target)
        parameters = {"learning_rate": number // 5, "width": 16}
        record = {"schema": 1, "study": "sweep", "stage": "run", "trial": target.name, "outcome": "ok", "message": None}
        record |= {"started": "2026-01-01T00:00:00Z", "seconds": 9.0, "machine": machine, "device": None, "info": {}}
        record |= {"sweep": "net", "point": point, "parameters": parameters, "seed": seed, "curves": curves}
        record |= {"metrics": {"validation_accuracy": number / trials, "validation_loss": 1 / (1 + number)}}
        start = {"event": "start", "pid": os.getpid(), "boot": boot_id(), "spec": json.loads(target.spec)}
        events = [start] if number < RUNNING else [start, {"event": "end", "seconds": 9.0}]
        path = folder / "sweep" / target.journal
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"time": time.time(), **event}) + "\n" for event in events))
        if number >= RUNNING:
            path = target.file(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record | {"spec": json.loads(target.spec)}, indent=1))
    return targets


def watch(targets: list[Target], folder: Path) -> dict[str, float]:
    """CPU time of watching `targets` for SECONDS, a share of a core, without the first look; and of that look."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    view = LiveView(StatusReader(lambda: targets, folder), folder, ["sweep"])
    state = {"done": 0, "first": time.process_time()}
    began: dict[str, float] = {}

    def is_over(seconds: float) -> bool:
        if not began:
            began.update(cpu=time.process_time(), wall=time.perf_counter())
        time.sleep(seconds)
        state["done"] += 1
        for target in targets[:RUNNING]:
            with (folder / "sweep" / target.journal).open("a") as stream:
                progress = {"time": time.time(), "done": state["done"], "total": 100, "eta_seconds": 9.0}
                stream.write(json.dumps(progress) + "\n")
        return time.perf_counter() - began["wall"] > SECONDS

    view.show_until(is_over, console)
    wall = time.perf_counter() - began["wall"]
    share = (time.process_time() - began["cpu"]) / wall
    return {"share_of_a_core": share, "looks": state["done"], "first_look_seconds": began["cpu"] - state["first"]}


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    machine = describe_machine()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory(dir=output.parent) as scratch:
        folder = Path(scratch)
        targets = make_results(folder, machine, TRIALS)
        for count in (100, TRIALS):
            figures[f"watch_{count}_trials"] = watch(targets[:count], folder)
        command = [
            sys.executable,
            "-c",
            "from plumbline.cli import main; main()",
            "show",
            "sweep",
            "--results",
            scratch,
        ]
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            seconds.append(time.perf_counter() - began)
            assert len(shown.splitlines()) > TRIALS - RUNNING
        figures |= {"show_seconds": statistics.median(seconds), "show_samples_seconds": seconds}
    write_json(output, {"benchmark": "watch", "figures": figures})
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
