"""The `throughput` study against its figures: what measuring costs, how far it repeats, how near the ceiling it gets.

    python tests/benchmarks/bench_generation.py --output generation.json [--device cuda] [--small]

- overhead: tokens/s of a trial's timed batches over tokens/s of a bare loop over the same calls, in turn, one process.
- repeatability: one trial in a process of its own, several times; how far the rates are apart.
- engines: each engine's rate over that of `generate`, all of them in turn in one process, batch 1, the default's shape.
- ceiling: decoding at batch 1 of 134 million parameters drawn from a seed, as a share of the bandwidth that was
  measured just before, by the study's own stages. Left out with --small.

Uses all cores there are (thread counts are tuned in each trial), so nothing should run beside it. Two minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from plumbline.core.files import write_json
from plumbline.core.measure.machine import core_count, describe_machine
from plumbline.core.plan.target import Target
from plumbline.core.run.device import torch_device
from plumbline.core.run.progress import Progress
from plumbline.throughput.analysis.quality import is_noisy
from plumbline.throughput.engines.interface import load
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.roofline import read_limits
from plumbline.throughput.measurement.settings import EngineConfig, TrialTiming
from plumbline.throughput.measurement.trial import Request, Trial
from plumbline.throughput.models.manifest import read_manifest
from plumbline.throughput.plan import plan
from plumbline.throughput.record import TrialRecord
from plumbline.throughput.settings import ThroughputSettings

DEFAULT = {"vocabulary": 512, "context": 64, "width": 64, "hidden": 176, "layers": 2, "heads": 4}
"""The model that the study lr_sweep trains by default."""
LARGE = {"vocabulary": 32_000, "context": 256, "width": 768, "hidden": 2048, "layers": 12, "heads": 12}
ENGINES = ("lean", "generate", "static", "continuous")
CELL = Cell("base", "lean", 1, 4, 32)


class Study:
    """The study on a model drawn from a seed, its stages run by hand in `folder`."""

    def __init__(self, folder: Path, architecture: dict[str, int], device: str, **more: Any) -> None:
        model = {"source": "config", "config": architecture}
        variants = {"ratios": [1.0], "methods": ["plain"]}
        self.settings = ThroughputSettings.model_validate(
            {"model": model, "variants": variants, "grid": [{"batch": [1]}], **more}
        )
        self.folder, self.device = folder, device
        self.targets = {(target.stage, target.name): target for target in plan(self.settings, 0, {}, device)}
        base, limits = self.targets["base", ""], self.targets["limits", ""]
        self.manifest, self.limits = base.file(folder), limits.file(folder)
        self.text = self.manifest.with_name("text.safetensors")
        reference = self.targets["reference", "base"]
        self.reference = reference.file(folder)
        here = ("--device", device)
        self.run(base, "--best", "--corpus", *here)
        self.run(reference, *here, "--manifest", str(self.manifest), "--text", str(self.text))
        self.run(limits)

    def run(self, target: Target, *options: str) -> float:
        """Runs the target's stage; seconds of its process."""
        command = [sys.executable, "-m", f"plumbline.throughput.{target.stage}", "--spec", target.spec]
        command += ["--output", str(target.file(self.folder)), *options]
        environment = os.environ | {"OMP_NUM_THREADS": str(core_count())}
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - began

    def measure(self) -> TrialRecord:
        """The record of the trial, measured again."""
        target = self.targets["measure", CELL.trial]
        needs = {"manifest": self.manifest, "reference": self.reference, "text": self.text, "limits": self.limits}
        self.run(target, *(word for name, path in needs.items() for word in (f"--{name}", str(path))))
        record = TrialRecord.read(target.file(self.folder))
        if not record.ok:
            sys.exit(f"{target.name}: {record.outcome}: {record.message}")
        return record

    def trial(self, engine: str, threads: int, timing: dict[str, Any]) -> Trial:
        """A trial in this process, its engine loaded and called once."""
        request = Request(
            cell=CELL._replace(engine=engine),
            autotune=self.settings.autotune,
            timing=TrialTiming(**timing),
            seed=0,
            manifest=read_manifest(self.manifest),
            reference=self.reference,
            text=self.text,
            limits=read_limits(self.limits),
            device=self.device,
        )
        trial = Trial(request, {}, Progress(1, "phases"))
        trial.device = torch_device(self.device)
        kind = load(engine)
        config = EngineConfig(dtype="float32", attention=kind.attentions[0], threads=threads, compile=False)
        trial.synchronise = torch.cuda.synchronize if trial.device.type == "cuda" else lambda: None
        trial.load(kind, config)
        trial.call_first()
        return trial


def overhead(study: Study, blocks: int) -> dict[str, Any]:
    """A trial's timed batches against a bare loop over as many calls, in turn."""
    trial = study.trial("lean", 1, {"seconds": 0.3, "max_batches": 60, "min_batches": 60})
    rates: dict[str, list[float]] = {"trial": [], "bare": []}
    for block in range(blocks + 1):
        for way in ("trial", "bare") if block % 2 else ("bare", "trial"):
            if way == "trial":
                trial.time()
                rate = trial.findings["tokens_per_second"]
            else:
                began = time.perf_counter()
                for _ in range(60):
                    trial.engine.generate(trial.prompts, CELL.generated)
                trial.synchronise()
                rate = 60 * CELL.generated / (time.perf_counter() - began)
            if block:  # the first warms up
                rates[way].append(rate)
    trial.engine.close()
    ratio = median(ours / bare for ours, bare in zip(rates["trial"], rates["bare"], strict=True))
    return {"ratio": ratio, "tokens_per_second": rates}


def repeatability(study: Study, runs: int) -> dict[str, Any]:
    """Rates of one trial in separate processes, and how much they differ: all of them, and those that are not noisy.

    From run to run: the median over neighbours.
    """
    records = [study.measure() for _ in range(runs)]
    return {
        "not_noisy": apart([record.tokens_per_second or 0.0 for record in records if not is_noisy(record)]),
        "all": apart([record.tokens_per_second or 0.0 for record in records]),
        "engine_configs": [record.to_json()["engine_config"] for record in records],
        "noisy": [is_noisy(record) for record in records],
    }


def apart(rates: list[float]) -> dict[str, Any]:
    """How much the rates differ, in percent; None for fewer than two."""
    if len(rates) < 2:
        return {"rates": rates, "median_percent": None, "largest_percent": None}
    steps = [max(pair) / min(pair) - 1 for pair in pairwise(rates)]
    return {
        "rates": rates,
        "median_percent": 100 * median(steps),
        "largest_percent": 100 * (max(rates) / min(rates) - 1),
    }


def engines(study: Study, blocks: int) -> dict[str, Any]:
    """Seconds of a call with each engine, in turn, and their rates over that of `generate`."""
    trials = {name: study.trial(name, 1, {}) for name in ENGINES}
    seconds: dict[str, list[float]] = {name: [] for name in ENGINES}
    for block in range(blocks + 1):
        for name, trial in trials.items():
            torch.set_num_threads(1)
            took = trial._clocked()
            if block:
                seconds[name].append(took)
    for trial in trials.values():
        trial.engine.close()
    against = {
        name: median(theirs / ours for theirs, ours in zip(seconds["generate"], own, strict=True))
        for name, own in seconds.items()
    }
    return {"rate_over_generate": against, "seconds": seconds}


def ceiling(study: Study, runs: int) -> dict[str, Any]:
    """Share of the ceiling that a trial's decoding reaches, with the limits measured again before each."""
    found = []
    for _ in range(runs):
        study.run(study.targets["limits", ""])
        record = study.measure()
        keys = ("ceiling_share", "mbu", "binds", "decode_tokens_per_second", "decode_step_bytes", "engine_config")
        found.append({key: record.to_json()[key] for key in keys})
    return {"median_share": median(run["ceiling_share"] for run in found), "runs": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        small = Study(Path(folder) / "small", DEFAULT, options.device)
        figures["overhead"] = overhead(small, 15)
        print(f"overhead: a trial measures {figures['overhead']['ratio']:.4f} of a bare loop's rate", flush=True)
        figures["engines"] = engines(small, 25)
        print("engines:", json.dumps(figures["engines"]["rate_over_generate"]), flush=True)
        figures["repeatability"] = repeatability(small, 10)
        for name in ("not_noisy", "all"):
            print(f"repeatability, {name}:", json.dumps(figures["repeatability"][name]), flush=True)
        if not options.small:
            large = Study(
                Path(folder) / "large", LARGE, options.device, autotune={"dtype": "float32"}, timing={"seconds": 6}
            )
            figures["ceiling"] = ceiling(large, 3)
            print(f"ceiling: {100 * figures['ceiling']['median_share']:.0f}% of what bandwidth allows", flush=True)
    write_json(options.output, {"benchmark": "generation", "figures": figures, "machine": describe_machine()})


if __name__ == "__main__":
    main()
