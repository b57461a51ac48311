"""Comparisons of the `throughput` study against what they promise, alone and beside busy neighbours.

    python tests/benchmarks/bench_comparison.py --output comparison.json [--repeats 20] [--neighbours 0 2]

In each repeat, which takes several processes as a comparison does, a baseline of twenty calls of `lean` takes turns
with itself (A/A) and with a candidate that does 5% more calls, for as long as a default comparison may take;
then `lean` with `generate`. The twenty calls take 5 ms together, as one call of a default trial does.

- A/A: how far the baseline is from itself, at most; to reach: within 3%, and never called faster or slower.
- 5% more calls: how often called slower; to reach: 19 of 20.
- lean against generate: how often decided; to reach: always.

Neighbours are processes that compute without pause. About fifteen minutes for 20 repeats with 0 and 2 neighbours.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_generation import DEFAULT, Study

from plumbline.core.files import write_json
from plumbline.core.measure.interleave import CONTROL
from plumbline.core.measure.machine import describe_machine
from plumbline.core.statistics.rounds import verdict
from plumbline.throughput.comparison import ComparisonSpec, measured
from plumbline.throughput.engines.lean import Lean
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.entry import Entry
from plumbline.throughput.measurement.settings import ComparisonSettings, EngineConfig, TrialTiming
from plumbline.throughput.models.manifest import read_manifest
from plumbline.throughput.record import Interleaved

CALLS = 20
GENERATED = 2


class Twenty(Lean):
    """Twenty calls in one."""

    calls = CALLS

    def generate(self, prompts: Any, count: int, on_token: Any = None) -> Any:
        for _ in range(self.calls - 1):
            super().generate(prompts, count)
        return super().generate(prompts, count, on_token)


class TwentyOne(Twenty):
    """5% more calls."""

    calls = CALLS + CALLS // 20


def compared(study: Study, engines: tuple[str, str], generated: int, seed: int) -> dict[str, Any]:
    """Ratio, A/A and verdict of the second engine against the first."""
    config = EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=False)
    entries = [
        Entry(
            name=engine,
            cell=Cell("base", engine, 1, 4, generated),
            config=config,
            manifest=read_manifest(study.manifest),
            reference=study.reference,
        )
        for engine in engines
    ]
    spec = ComparisonSpec.model_validate(
        {"code": "", "inputs": "", "model": "default", "question": "engines", "seed": 0, "device": study.device}
        | {"baseline": entries[0].cell._asdict(), "others": [entries[1].cell._asdict()], "tie_margin": 1e-4}
        | {"comparison": ComparisonSettings(), "timing": TrialTiming()}
    )
    began = time.monotonic()
    found = Interleaved.model_validate(measured(spec, entries, study.text, "together")["rounds"])
    rounds = found.rounds()
    control, ratio = rounds.ratio(CONTROL), rounds.ratio(rounds.names[2])
    return {
        "repeat": seed,
        "seconds": time.monotonic() - began,
        "rounds": len(found.seconds),
        "processes": max(found.processes) + 1,
        "precise": found.precise,
        "control": control.as_json(),
        "ratio": ratio.as_json(),
        "control_verdict": verdict(control, control).value,
        "verdict": verdict(ratio, control).value,
    }


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that compute without pause, until the block ends, in a session of their own as another user's.

    Linux may share the cores by session before it looks at priorities (autogroup), so those of one session differ.
    """
    spin = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(spin, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def summary(repeats: list[dict[str, Any]]) -> dict[str, Any]:
    """Verdicts, and how far A/A was from 1 at most."""
    return {
        "verdicts": Counter(repeat["verdict"] for repeat in repeats),
        "control_verdicts": Counter(repeat["control_verdict"] for repeat in repeats),
        "control_off_by_at_most": max(abs(repeat["control"]["value"] - 1) for repeat in repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--neighbours", type=int, nargs="*", default=[0, 2])
    options = parser.parse_args()
    questions = {
        "5% more calls": (("bench_comparison:Twenty", "bench_comparison:TwentyOne"), GENERATED),
        "lean against generate": (("generate", "lean"), 32),
    }
    figures: dict[str, Any] = {}
    machine = describe_machine()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), DEFAULT, "cpu")
        for count in options.neighbours:
            for name, (engines, generated) in questions.items():
                with neighbours(count):
                    repeats = [compared(study, engines, generated, seed) for seed in range(options.repeats)]
                figures[f"{name}, {count} neighbours"] = {"summary": summary(repeats), "repeats": repeats}
                print(f"{name}, {count} neighbours (load {os.getloadavg()[0]:.1f}):", summary(repeats), flush=True)
                write_json(options.output, {"benchmark": "comparison", "figures": figures, "machine": machine})


if __name__ == "__main__":
    main()
