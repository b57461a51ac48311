"""Runs the benchmarks, all or those named: `make bench`, `python -m tests.benchmarks features zoo`."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = Path("results/benchmarks")


def main() -> None:
    """Each benchmark runs in a process of its own, on one thread, and writes results/benchmarks/<name>.json."""
    known = {path.stem.removeprefix("bench_"): path for path in sorted(FOLDER.glob("bench_*.py"))}
    chosen = sys.argv[1:] or list(known)
    if unknown := set(chosen) - known.keys():
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "workflow"}
    failed = []
    for name in chosen:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(known[name]), "--output", str(RESULTS / f"{name}.json")]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
