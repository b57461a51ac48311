"""Runs the benchmarks, all or those named: `make bench`, `python -m tests.benchmarks features zoo`.

What follows the names and begins with - goes to each: `python -m tests.benchmarks overhead --one-core`.
"""

import os
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

from plumbline.core.files import read_json, write_json
from plumbline.core.measure.machine import describe_machine

FOLDER = Path(__file__).parent
RESULTS = Path("results/benchmarks")
MORE = {"zoo": ["--full"]}
"""Options of a benchmark that by itself does less."""


def main() -> None:
    """Each benchmark runs in a process of its own, on one thread, and writes results/benchmarks/<name>.json."""
    known = {path.stem.removeprefix("bench_"): path for path in sorted(FOLDER.glob("bench_*.py"))}
    names = list(takewhile(lambda argument: not argument.startswith("-"), sys.argv[1:]))
    chosen, options = names or list(known), sys.argv[1 + len(names) :]
    if unknown := set(chosen) - known.keys():
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "workflow"}
    failed = []
    for name in chosen:
        print(f"== {name}", flush=True)
        output = RESULTS / f"{name}.json"
        machine = describe_machine()  # as it is before the benchmark loads it
        command = [sys.executable, str(known[name]), "--output", str(output), *MORE.get(name, []), *options]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
        else:
            write_json(output, {**read_json(output), "machine": machine})
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
