"""Injects twelve causes of slow training into real runs: is the first cause that the diagnosis names the right one?

    python tests/benchmarks/bench_diagnosis.py --output diagnosis.json [--healthy 20] [--only float64]

Also: healthy runs, in which every alarm is false; the expected tokens/s of model shapes that it was not tuned on; the
time of a diagnosis; and what the evidence costs during training. Takes about ten minutes. On a shared machine the load
of others is a real cause too: each case reports how many cores they used, and a second score ignores contention when
that was more than a tenth of a core.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from plumbline.core.files import write_json
from plumbline.core.measure.clocks import clocks
from plumbline.core.measure.machine import describe_machine
from plumbline.core.run.progress import append_to, log_event
from plumbline.lr_sweep.diagnosis.evidence import read_trials
from plumbline.lr_sweep.diagnosis.report import diagnose_study
from plumbline.lr_sweep.diagnosis.verdict import Diagnosis
from plumbline.lr_sweep.settings import ModelSettings, StabilitySettings, TrainingSettings

STEPS = 100
REPEATS = 3
"""Of each unseen shape: one run and one replay differ by what the machine does between them."""
LOAD_CORES = 0.1
CONTENTION = ("cpu_contention", "cpu_neighbour")
UNSEEN = ({"width": 96, "hidden": 256, "layers": 3, "heads": 6}, {"width": 48, "hidden": 130, "context": 48})


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cause, and how it is put into a run."""

    cause: str | None
    training: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    threads: int = 1
    """OMP_NUM_THREADS, which decides what a stage computes on."""
    prelude: str = ""
    """Python that runs in the trial's process before it begins."""
    at_once: int = 1
    meanwhile: str = ""
    """`stop`: it is stopped for a while; `neighbours`: others compute, and it is diagnosed while it runs."""


SLOW_DATA = """
from plumbline.lr_sweep.training.data import TrainingWindows
draw = TrainingWindows.draw
TrainingWindows.draw = lambda self: (time.sleep(0.05), draw(self))[1]
"""
SLOW_JOURNAL = """
from plumbline.lr_sweep.training import loop
log_event = loop.log_event
loop.log_event = lambda **fields: (log_event(**fields), time.sleep(0.05))[0]
"""
DOUBLE = "import torch; torch.set_default_dtype(torch.float64)"
SLEEP = """
calls, real = iter(range(10**9)), time.clock_gettime
time.clock_gettime = lambda clock: real(clock) + (3600.0 if next(calls) >= 5 else 0.0)
"""
CASES = {
    "too_many_threads": Case(cause="too_many_threads", threads=8, training={"steps": 30}, options=("--log-steps", "3")),
    "contention": Case(cause="cpu_contention", at_once=6, training={"steps": 40}),
    "slow_data": Case(cause="data_wait", prelude=SLOW_DATA),
    "small_batch": Case(
        cause="small_batch", training={"batch": 1, "validation_windows": 2, "steps": 300}, model={"context": 16}
    ),
    "frequent_validation": Case(cause="frequent_validation", training={"validate_every": 1, "validation_windows": 128}),
    "frequent_checkpoints": Case(cause="frequent_checkpoints", options=("--checkpoint-steps", "1")),
    "logging_sync": Case(cause="frequent_logging", options=("--log-steps", "1"), prelude=SLOW_JOURNAL),
    "float64": Case(cause="float64", prelude=DOUBLE),
    "compile_not_paying": Case(cause="compile_not_paying", training={"compile": "on", "steps": 60}),
    "stopped_process": Case(cause="stopped_process", meanwhile="stop"),
    "neighbour_process": Case(cause="cpu_neighbour", meanwhile="neighbours", training={"steps": 3000}),
    "suspended": Case(cause="suspended", prelude=SLEEP),
}
HEALTHY = Case(cause=None)


def write_tokens(folder: Path) -> None:
    """Random tokens: how fast a model trains does not depend on what they say."""
    random, folder_tokens = np.random.default_rng(0), {"train": 200_000, "validation": 20_000}
    folder.mkdir()
    for side, count in folder_tokens.items():
        random.integers(512, size=count).astype("<u2").tofile(folder / f"{side}.bin")
    meta = {f"{side}_tokens": count for side, count in folder_tokens.items()}
    write_json(
        folder / "meta.json",
        meta | {"dtype": "uint16", "vocabulary": 512, "end_of_text": 0, "unigram_entropy_nats": 6.2, "sha256": {}},
    )


def start(case: Case, study: Path, tokens: Path, name: str) -> subprocess.Popen[bytes]:
    """The trial's process."""
    spec = {
        "model": ModelSettings(**case.model).model_dump(),
        "training": TrainingSettings(**{"steps": STEPS, "compile": "off", **case.training}).model_dump(),
        "stability": StabilitySettings().model_dump(),
        **{"rate": 0.003, "seed": 0, "code": "bench", "inputs": "bench"},
    }
    program = f"import time\n{case.prelude}\nfrom plumbline.lr_sweep.train import train\ntrain.main()"
    log = study / "logs" / "train" / f"{name}.log"
    output = study / "trials" / name / "record.json"
    command = [sys.executable, "-c", program, "--spec", json.dumps(spec), "--tokens", str(tokens / "meta.json")]
    command += ["--output", str(output), "--log", str(log), "--device", "cpu", *case.options]
    environment = os.environ | {"OMP_NUM_THREADS": str(case.threads)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for_steps(study: Path, seconds: float) -> None:
    """Returns when the first trial has trained for `seconds`."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        trials = read_trials(study)
        if trials and trials[0].training_seconds >= seconds and trials[0].done:
            return
        time.sleep(0.2)
    raise TimeoutError(f"no trial in {study} has begun to train")


def run(case: Case, root: Path, name: str) -> dict[str, Any]:
    """Runs the case's trials, diagnoses them, and says what came out."""
    study = root / name / "lr_sweep"
    began, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    processes = [start(case, study, root / "tokens", f"trial{index}") for index in range(case.at_once)]
    others: list[subprocess.Popen[bytes]] = []
    diagnosis: Diagnosis | None = None
    spent = 0.0
    if case.meanwhile == "stop":
        wait_for_steps(study, 1.0)
        processes[0].send_signal(signal.SIGSTOP)
        time.sleep(10)
        processes[0].send_signal(signal.SIGCONT)
    elif case.meanwhile == "neighbours":
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
        wait_for_steps(study, 8.0)
        diagnosis, spent = timed(lambda: diagnose_study(study))
        processes[0].kill()
    for process in [*processes, *others]:
        if process in others:
            process.kill()
        _, errors = process.communicate()
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{name}: {errors.decode()}")
    foreign = max(0.0, busy_seconds() - busy - (own_seconds() - own)) / (time.monotonic() - began)
    if diagnosis is None:
        diagnosis, spent = timed(lambda: diagnose_study(study))
    causes = [item.cause for item in diagnosis.causes]
    others_cores = foreign if foreign > LOAD_CORES else 0.0
    beside = [cause for cause in causes if not others_cores or cause not in CONTENTION or cause == case.cause]
    alarms = [item.cause for item in diagnosis.causes if item.share >= 0.1 and item.cause in beside]
    return {
        "asked": case.cause,
        "status": diagnosis.status,
        "causes": causes,
        "seconds_lost": [item.seconds_lost for item in diagnosis.causes],
        "right": causes[:1] == [case.cause] if case.cause else diagnosis.status == "healthy",
        "right_beside_foreign_load": beside[:1] == [case.cause] if case.cause else not alarms,
        "others_cores": foreign,
        "diagnosis_seconds": spent,
        "expected": diagnosis.to_json()["expected"][:1],
        "why": diagnosis.why,
    }


def timed(work: Callable[[], Diagnosis]) -> tuple[Diagnosis, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def busy_seconds() -> float:
    """CPU seconds that all cores have worked since boot."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def own_seconds() -> float:
    """CPU seconds of this process and the children it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def unseen_shape(shape: dict[str, int], root: Path, name: str) -> dict[str, Any]:
    """Expected over seen tokens/s of a shape, waiting for a core left out: of several runs, and their median."""
    runs = []
    for repeat in range(REPEATS):
        found = run(Case(cause=None, model=shape), root, f"{name}-{repeat}")
        (trial,) = read_trials(root / f"{name}-{repeat}" / "lr_sweep")
        seen = trial.done * trial.tokens_per_step / (trial.compute_seconds - trial.run_delay_seconds)
        expected = found["expected"][0]["expected_tokens_per_second"]
        runs.append({"expected_tokens_per_second": expected, "seen": seen, "expected_over_seen": expected / seen})
    return {"shape": shape, "runs": runs, "expected_over_seen": median(one["expected_over_seen"] for one in runs)}


def evidence_cost(root: Path, looks: int = 2000) -> float:
    """CPU seconds of one look at the clocks and its journal line."""
    append_to(root / "cost.jsonl")
    began = time.process_time()
    for _ in range(looks):
        log_event(
            spans=dict.fromkeys("abcdefgh", 0.123456789), clock=clocks(), threads=1, dtype="float32", device="cpu"
        )
    spent = time.process_time() - began
    append_to(None)
    return spent / looks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--healthy", type=int, default=20)
    parser.add_argument("--only", choices=CASES, nargs="*", default=list(CASES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tokens(root / "tokens")
        cases = {}
        for name in options.only:
            cases[name] = run(CASES[name], root, name)
            show(name, cases[name])
        healthy = []
        for number in range(options.healthy):
            healthy.append(run(HEALTHY, root, f"healthy{number}"))
            show(f"healthy {number}", healthy[-1])
        shapes = [unseen_shape(shape, root, f"shape{number}") for number, shape in enumerate(UNSEEN)]
        cost = evidence_cost(root)
    step = next((one["expected"][0]["expected_step_seconds"] for one in healthy if one["expected"]), None)
    figures = {
        "cases": cases,
        "healthy": healthy,
        "right_first_causes": sum(case["right"] for case in cases.values()),
        "right_first_causes_beside_foreign_load": sum(case["right_beside_foreign_load"] for case in cases.values()),
        "false_alarms": sum(not one["right"] for one in healthy),
        "false_alarms_beside_foreign_load": sum(not one["right_beside_foreign_load"] for one in healthy),
        "unseen_shapes": shapes,
        "longest_diagnosis_seconds": max(
            (one["diagnosis_seconds"] for one in [*cases.values(), *healthy]), default=0.0
        ),
        "evidence_seconds_a_look": cost,
        "evidence_share_of_training": cost / (10 * step) if step else None,
    }
    write_json(options.output, {"benchmark": "diagnosis", "figures": figures, "machine": describe_machine()})
    count = len(cases)
    print(
        f"first cause right: {figures['right_first_causes']} of {count}"
        f" ({figures['right_first_causes_beside_foreign_load']} of {count} beside the load of others);"
        f" false alarms: {figures['false_alarms']} of {len(healthy)}"
        f" ({figures['false_alarms_beside_foreign_load']} beside the load of others)"
    )
    for shape in shapes:
        each = ", ".join(f"{one['expected_over_seen']:.2f}" for one in shape["runs"])
        print(f"expected over seen at {shape['shape']}: {shape['expected_over_seen']:.2f} (median of {each})")
    share = figures["evidence_share_of_training"]
    print(f"a look at the clocks: {1e6 * cost:.0f} µs" + ("" if share is None else f", {share:.2%} of training"))
    print(f"longest diagnosis: {figures['longest_diagnosis_seconds']:.1f} s")


def show(name: str, found: dict[str, Any]) -> None:
    verdict = "right" if found["right"] else "right beside others" if found["right_beside_foreign_load"] else "WRONG"
    ranked = zip(found["causes"], found["seconds_lost"], strict=True)
    causes = ", ".join(f"{cause} {lost:.1f} s" for cause, lost in ranked) or found["why"]
    print(f"{name}: {verdict}: {causes} [others: {found['others_cores']:.1f} cores]", flush=True)


if __name__ == "__main__":
    main()
