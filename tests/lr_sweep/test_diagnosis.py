import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from lr_sweep.sweep_records import unfinished
from plumbline.core.measure import clocks as clocks_module
from plumbline.core.measure.clocks import clocks
from plumbline.core.run.progress import append_to, log_event
from plumbline.lr_sweep.diagnosis.assessment import assess, progress
from plumbline.lr_sweep.diagnosis.causes import interface
from plumbline.lr_sweep.diagnosis.causes.cpu_contention import cpu_contention
from plumbline.lr_sweep.diagnosis.evidence import TrialEvidence, from_events, read_trials, with_concurrency
from plumbline.lr_sweep.diagnosis.journal import LogInterval
from plumbline.lr_sweep.diagnosis.ledger import ledger
from plumbline.lr_sweep.diagnosis.machine import Gpu, Machine, Neighbour, observe
from plumbline.lr_sweep.diagnosis.report import summary_lines
from plumbline.lr_sweep.settings import ModelSettings, TrainingSettings
from plumbline.lr_sweep.training.model import flops_per_token

STEP = 0.02
MACHINE = Machine(cores=2)
MODEL = ModelSettings(width=16, hidden=32, layers=1, heads=2, context=16, vocabulary=257)


class Clockwork:
    """A timer with made-up times: a step takes STEP times the factor of each option that the trial uses."""

    def __init__(self, **factors: float) -> None:
        self.factors = {"threads": 0.6, "float64": 2.0} | factors

    def step_seconds(self, trial):
        batch = trial.training.batch / 64
        seconds = STEP * (self.factors.get("batch", batch) if batch != 1 else 1.0)
        options = {"threads": trial.threads > 1, "float64": trial.dtype == "float64", "cuda": trial.device == "cuda"}
        options |= {"bf16": trial.uses("bf16"), "tf32": trial.uses("tf32")}
        for option, used in options.items():
            seconds *= self.factors.get(option, 1.0) if used else 1.0
        return seconds

    def ceiling(self, trial):
        return 1e11


def interval(**changes) -> LogInterval:
    """Ten steps of STEP, all of it compute."""
    busy = 10 * STEP
    spans = {"forward": 0.4 * busy, "backward": 0.5 * busy, "optimizer": 0.1 * busy}
    values = {"steps": 10, "monotonic": busy, "process": busy, "run_delay": 0.0, "suspended": 0.0, "spans": spans}
    return LogInterval(**values | changes)


def trial(intervals=None, **changes) -> TrialEvidence:
    """A healthy trial of 300 steps, or one made of the given intervals."""
    intervals = tuple(intervals or [interval()] * 30)
    spans: dict[str, float] = {}
    for one in intervals:
        for name, seconds in one.spans.items():
            spans[name] = spans.get(name, 0.0) + seconds
    values = {
        "name": "lr0.01-seed0",
        "state": "done",
        "done": round(sum(one.steps for one in intervals)),
        "total": 300,
        "model": MODEL,
        "training": TrainingSettings(batch=64),
        "spans": spans,
        "intervals": intervals,
        "wall": sum(one.monotonic + one.suspended for one in intervals),
    }
    return TrialEvidence(**values | changes)


def first_cause(evidence: TrialEvidence, machine: Machine = MACHINE, **factors: float) -> str | None:
    diagnosis = assess([evidence], machine, Clockwork(**factors))
    assert (diagnosis.status == "slower_than_expected") is bool(diagnosis.causes)
    return diagnosis.causes[0].cause if diagnosis.causes else None


def with_span(name: str, seconds: float) -> TrialEvidence:
    spans = {**interval().spans, name: seconds}
    return trial([interval(spans=spans, monotonic=10 * STEP + seconds)] * 30)


def test_a_healthy_trial_has_no_cause_and_no_alarm():
    diagnosis = assess([trial()], MACHINE, Clockwork())
    assert (diagnosis.status, diagnosis.causes) == ("healthy", [])


@pytest.mark.parametrize(
    ("span", "cause"),
    [
        ("data_wait", "data_wait"),
        ("validation", "frequent_validation"),
        ("checkpoint", "frequent_checkpoints"),
        ("logging", "frequent_logging"),
    ],
)
def test_a_span_that_takes_half_of_the_time_is_the_first_cause(span, cause):
    assert first_cause(with_span(span, 0.2)) == cause
    assert first_cause(with_span(span, 0.002)) is None


def test_threads_that_make_a_step_slower_are_named_and_threads_that_pay_are_not():
    slow = interval(spans={"forward": 1.0}, monotonic=1.0, process=2.0)  # 100 ms a step
    assert first_cause(trial([slow] * 30, threads=2), threads=5.0) == "too_many_threads"
    assert first_cause(trial(threads=2), threads=0.9) is None


def test_threads_are_not_named_when_only_the_replay_is_slow_on_them():
    assert first_cause(trial(threads=2), threads=5.0) is None


def test_float64_is_named_with_both_steps_measured():
    diagnosis = assess([trial(dtype="float64")], MACHINE, Clockwork())
    assert diagnosis.causes[0].cause == "float64"
    assert diagnosis.causes[0].counterfactual == "step in float64: 40 ms; in float32: 20 ms"


def test_a_batch_whose_fourfold_takes_hardly_longer_is_too_small():
    assert first_cause(trial(), batch=1.2) == "small_batch"
    assert first_cause(trial(), batch=3.0) is None


def test_waiting_for_a_core_is_contention_and_a_neighbours_where_one_is_busy_now():
    waits = trial([interval(run_delay=0.2, monotonic=0.4)] * 30, pressure_percent=60.0)
    assert first_cause(waits) == "cpu_contention"
    kept = {name: seconds / 4 for name, seconds in waits.spans.items()}  # a kill undid three quarters of the work
    resumed = cpu_contention(replace(waits, spans=kept), MACHINE, Clockwork())
    assert "6.0 s of 12.0 s ready to run" in resumed.evidence
    assert resumed.seconds_lost <= sum(kept.values())
    neighbour = Machine(cores=2, neighbours=(Neighbour(pid=7, name="encoder", cores=1.0),))
    assert first_cause(replace(waits, state="running"), neighbour) == "cpu_neighbour"
    assert first_cause(replace(waits, state="running", threads_at_once=6.0), neighbour) == "cpu_contention"


def test_time_neither_running_nor_ready_to_run_is_a_stopped_process():
    gap = interval(monotonic=10.2)
    gap = replace(gap, spans={**gap.spans, "forward": gap.spans["forward"] + 10.0})
    diagnosis = assess([trial([*[interval()] * 15, gap, *[interval()] * 14])], MACHINE, Clockwork())
    assert diagnosis.causes[0].cause == "stopped_process"
    assert diagnosis.causes[0].seconds_lost == pytest.approx(10.0)
    assert diagnosis.unexplained_seconds == pytest.approx(0.0, abs=1e-9)


def test_a_trial_that_is_stopped_now_is_named_with_the_fix():
    stopped = trial(state="running", process_status=psutil.STATUS_STOPPED, silent_seconds=60.0, pid=4711)
    diagnosis = assess([stopped], MACHINE, Clockwork())
    assert diagnosis.causes[0].cause == "stopped_process"
    assert diagnosis.causes[0].advice == "kill -CONT 4711"
    before_any_step = replace(stopped, done=0, spans={}, intervals=())
    assert assess([before_any_step], MACHINE, Clockwork()).causes[0].cause == "stopped_process"


def test_a_machine_that_gets_slower_is_throttled_and_one_that_always_was_slow_is_not():
    slow = {name: 2 * seconds for name, seconds in interval().spans.items()}
    later = interval(spans=slow, monotonic=0.4, process=0.4)
    assert first_cause(trial([*[interval()] * 10, *[later] * 20])) == "throttling"
    diagnosis = assess([trial([later] * 30)], MACHINE, Clockwork())
    assert (diagnosis.causes, diagnosis.status) == ([], "slower_than_expected")
    assert diagnosis.unexplained_seconds == pytest.approx(6.0)
    assert any("unexplained: 6.0 s" in line for line in summary_lines(diagnosis))


def compiled(seconds: float, **changes) -> TrialEvidence:
    """A trial of which compiling took `seconds`, and whose steps take half of STEP since."""
    spans = {name: value / 2 for name, value in interval().spans.items()}
    trained = trial([interval(spans=spans)] * 30, switches={"compile": True}, **changes)
    return replace(trained, spans={**trained.spans, "compile": seconds})


def test_compiling_that_a_short_run_does_not_win_back_is_named():
    diagnosis = assess([compiled(20.0, compiler={"graph_breaks": 3})], MACHINE, Clockwork())
    assert diagnosis.causes[0].cause == "compile_not_paying"
    assert diagnosis.causes[0].seconds_lost == pytest.approx(20.0 - 300 * STEP / 2)
    assert "3 graph breaks" in diagnosis.causes[0].evidence
    assert diagnosis.ledger_seconds.total["compile"] == 20.0


def test_compiling_that_the_steps_win_back_by_their_end_is_not_named():
    assert first_cause(compiled(2.0)) is None
    assert first_cause(compiled(20.0, state="running", total=3000)) is None


def test_compiling_again_and_again_counts_as_compiling_where_the_compiler_says_so():
    slow = interval(spans={"forward": 5.0}, monotonic=5.0, process=5.0)
    steps = [interval(), slow] + [interval()] * 28
    again = trial(steps, switches={"compile": True}, compiler={"recompilations": 1})
    assert first_cause(again) == "compile_not_paying"
    assert assess([replace(again, compiler={})], MACHINE, Clockwork()).causes == []


def test_gpu_causes_read_what_nvml_and_the_record_say():
    hot = Machine(cores=8, gpus=(Gpu(name="G", throttles=("too hot",), sm_clock_mhz=600, sm_clock_limit_mhz=1800),))
    on_gpu = trial(device="cuda", state="running")
    assert first_cause(on_gpu, hot) == "throttling"
    shared = Machine(cores=8, gpus=(Gpu(name="G", processes=(99,)),))
    assert first_cause(on_gpu, shared) == "gpu_neighbour"
    idle = Machine(cores=8, gpus=(Gpu(name="G"),))
    assert first_cause(trial(), idle, cuda=0.1) == "wrong_device"
    asked_off = TrainingSettings(batch=64, precision="off", tf32="off")
    assert first_cause(trial(device="cuda", training=asked_off), idle, tf32=0.4) == "tf32_off"
    assert first_cause(trial(device="cuda", training=asked_off), idle, bf16=0.4) == "no_reduced_precision"


def test_a_decision_that_auto_made_is_not_a_cause():
    left_off = trial(device="cuda", switches={"bf16": False, "tf32": False})
    assert first_cause(left_off, MACHINE, bf16=0.4, tf32=0.4) is None


def test_causes_are_ranked_by_seconds_lost_over_all_trials():
    trials = [replace(with_span("data_wait", 0.2), name="a"), replace(with_span("checkpoint", 0.8), name="b")]
    diagnosis = assess(trials, MACHINE, Clockwork())
    assert [item.cause for item in diagnosis.causes] == ["frequent_checkpoints", "data_wait"]
    assert diagnosis.causes[0].worst_trial == "b"


def test_words_say_which_trial_the_evidence_is_of_and_one_speed_for_all_trials():
    slow = interval(spans={"forward": 40 * STEP}, monotonic=40 * STEP)
    trials = [replace(with_span("data_wait", 0.2), name="a"), replace(trial([slow] * 30), name="b")]
    trials.append(replace(with_span("data_wait", 0.4), name="c"))
    diagnosis = assess(trials, MACHINE, Clockwork())
    words = "\n".join(summary_lines(diagnosis))
    assert "in 2 trials; worst is c: " in words
    speed = 3 * 300 * 1024 / (300 * 6 * STEP)  # all tokens over all seconds of computing
    assert f"{speed:,.0f} tokens/s in forward, backward and optimizer" in words
    assert f"MFU {speed * flops_per_token(MODEL) / 1e11:.1%} over 3 trials" in words


def test_nothing_to_assess_is_inconclusive_and_needs_no_measurement():
    diagnosis = assess([TrialEvidence(name="a", state="waiting")], MACHINE, None)
    assert diagnosis.status == "inconclusive"


def test_a_run_on_another_machine_without_a_cause_is_inconclusive():
    class Elsewhere(Clockwork):
        def step_seconds(self, trial):
            return None

    assert assess([trial(is_local=False)], MACHINE, Elsewhere()).status == "inconclusive"


def test_progress_counts_steps_and_not_lines():
    running = trial(name="b", state="running", done=150)
    waiting = TrialEvidence(name="c", state="waiting")
    values = progress([trial(), running, waiting])
    assert (values.done, values.running, values.left) == (1, 1, 1)
    assert (values.steps_done, values.steps) == (450, 900)
    assert values.tokens_per_second_now == pytest.approx(1024 / STEP)
    assert values.eta_seconds == pytest.approx(450 * STEP)


def test_ledger_adds_up_to_the_wall_time():
    sleeping = trial([*[interval()] * 29, interval(suspended=100.0)])
    spans = ledger(replace(sleeping, wall=sleeping.wall + 2.5))
    assert sum(spans.values()) == pytest.approx(30 * 10 * STEP + 100.0 + 2.5)
    assert (spans["suspended"], spans["outside_loop"]) == (pytest.approx(100.0), pytest.approx(2.5))


def write_run(study: Path, name: str, steps: int, *, log_every: int = 10) -> None:
    """Writes the journal of a run that sleeps instead of computing, in the format of a training run."""
    append_to(study / "logs" / "train" / f"{name}.jsonl")
    spec = {"model": MODEL.model_dump(), "training": TrainingSettings(steps=steps).model_dump()}
    boot = Path("/proc/sys/kernel/random/boot_id")
    log_event(event="start", pid=os.getpid(), boot=boot.read_text().strip() if boot.exists() else None, spec=spec)
    begun = time.perf_counter()
    for step in range(0, steps + 1, log_every):
        # whatever holds the loop up, writing the journal to a slow disk included, is waiting for data here
        spans = {"forward_seconds": 0.0, "data_wait_seconds": time.perf_counter() - begun}
        log_event(spans=spans, clock=clocks(), done=step, total=steps)
        if step == 0:
            log_event(done=0, total=steps)
        time.sleep(0.01)
    log_event(done=steps, total=steps)
    append_to(None)


def test_journals_are_read_step_by_step_while_the_trial_runs(tmp_path):
    write_run(tmp_path, "a", 100)
    (found,) = read_trials(tmp_path)
    assert (found.state, found.done, found.total, found.tokens_per_step) == ("running", 100, 100, 256)
    assert [one.steps for one in found.intervals] == [10.0] * 10
    waited = sum(one.spans["data_wait"] for one in found.intervals)
    assert waited >= 10 * 0.01
    assert sum(one.idle for one in found.intervals) < 0.5 * waited


def test_suspension_shows_as_the_boot_clock_running_ahead(tmp_path, monkeypatch):
    real, calls = time.clock_gettime, iter(range(10**6))
    # an hour passes on the boot clock alone, half way
    monkeypatch.setattr(clocks_module.time, "clock_gettime", lambda clock: real(clock) + 3600.0 * (next(calls) >= 5))
    write_run(tmp_path, "a", 100)
    (found,) = read_trials(tmp_path)
    finding = interface.load("suspended")(found, MACHINE, Clockwork())
    assert finding is not None
    assert finding.seconds_lost == pytest.approx(3600.0, abs=0.1)


def test_no_interval_spans_a_restart(tmp_path):
    write_run(tmp_path, "a", 50)
    write_run(tmp_path, "a", 50)
    (found,) = read_trials(tmp_path)
    assert len(found.intervals) == 2 * 5


def test_threads_at_once_is_the_average_over_a_trials_life():
    first, second = trial(name="a", began=0.0, ended=10.0), trial(name="b", began=5.0, ended=10.0, threads=2)
    assert [one.threads_at_once for one in with_concurrency([first, second])] == [2.0, 3.0]


def test_a_trial_whose_process_is_gone_is_interrupted():
    events = [
        {
            "time": time.time(),
            "event": "start",
            "pid": 2**22 + 1,
            "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "spec": {},
        },
        {"time": time.time(), "done": 1, "total": 9},
    ]
    assert from_events("a", events, None).state == "interrupted"


def test_a_trial_that_ran_out_of_memory_is_done_without_steps():
    evidence = from_events("a", [], unfinished(0.01, 0))
    assert (evidence.state, evidence.done, evidence.spans) == ("done", 0, {})


def test_a_busy_process_is_seen_as_a_neighbour_unless_it_is_ours():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            seen = {one.pid for one in observe([], seconds=1.0).neighbours}
            own = {one.pid for one in observe([busy.pid], seconds=0.3).neighbours}
        finally:
            busy.kill()
    assert busy.pid in seen
    assert busy.pid not in own


def test_replayed_step_is_measured_once_for_each_configuration():
    from plumbline.lr_sweep.diagnosis.expected import StepReplay

    replay = StepReplay()
    first = replay.step_seconds(trial())
    assert first is not None
    assert first > 0
    assert replay.step_seconds(trial(name="another")) == first
    assert replay.step_seconds(trial().with_batch(256)) > first
    assert replay.ceiling(trial()) > 1e8


def test_nothing_is_measured_when_the_time_is_spent():
    from plumbline.lr_sweep.diagnosis.expected import StepReplay

    assert StepReplay(budget_seconds=0.0).step_seconds(trial()) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch finds none here")
def test_replayed_step_runs_on_the_gpu():
    from plumbline.lr_sweep.diagnosis.expected import StepReplay

    assert StepReplay().step_seconds(trial(device="cuda")) is not None


def test_reading_evidence_imports_no_torch():
    program = "import sys, plumbline.lr_sweep.diagnosis.report; print('torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=_environment()
    )
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("study", "says"), [("lr_sweep", "inconclusive"), ("ablation", "'ablation' cannot be diagnosed")]
)
def test_command_exits_with_2_when_it_is_inconclusive(tmp_path, study, says):
    (tmp_path / "config.yaml").write_text(f"results: {tmp_path}/results\n")
    command = [sys.executable, "-c", "from plumbline.cli import main; main()", "diagnose", study]
    done = subprocess.run(command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert says in done.stdout + done.stderr


def test_diagnosis_is_json(tmp_path):
    assert json.loads(json.dumps(assess([trial()], MACHINE, Clockwork()).to_json()))["status"] == "healthy"


def _environment() -> dict[str, str]:
    package = Path(clocks_module.__file__).parents[3]
    return os.environ | {"PYTHONPATH": str(package)}
