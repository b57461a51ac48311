"""How long `snakemake` takes when everything is done: start, parse, plan, look at every file."""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine

REPEATS = 5


def main() -> None:
    """Needs a finished `make run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    snakemake = [sys.executable, "-m", "snakemake", "--cores", "all"]
    status = [str(Path(sys.executable).parent / "plumbline"), "status"]
    seconds: dict[str, list[float]] = {"snakemake": [], "plumbline_status": []}
    for _ in range(REPEATS):
        for name, command in (("snakemake", snakemake), ("plumbline_status", status)):
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[name].append(time.perf_counter() - began)
            if name == "snakemake" and "Nothing to be done" not in done.stdout + done.stderr:
                sys.exit("there was something to be done; `make run` first")
    figures = {f"{name}_seconds": statistics.median(values) for name, values in seconds.items()}
    write_json(
        output, {"benchmark": "noop", "figures": figures, "samples_seconds": seconds, "machine": describe_machine()}
    )
    print(figures)


if __name__ == "__main__":
    main()
