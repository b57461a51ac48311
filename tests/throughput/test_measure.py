import json
import math
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from plumbline.core.errors import UserError
from plumbline.core.run.processes import ChildFault
from plumbline.core.run.progress import append_to
from plumbline.throughput.measure import MeasureSpec, measure
from plumbline.throughput.measurement import latency
from plumbline.throughput.measurement.agreement import sha256
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.plan import plan
from plumbline.throughput.record import TrialRecord
from plumbline.throughput.settings import ThroughputSettings
from throughput import trials
from throughput.grid_records import failed, trial, write

WRONG = "throughput.wrong_engines"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return trials.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(made, tmp_path):
    """Runs a trial, by default of the tiny model, and returns its record."""

    def run(spec, **paths):
        output = tmp_path / "trial.json"
        measure(MeasureSpec(**spec), **{**made, "output": output, **paths})
        return TrialRecord.read(output)

    return run


@pytest.fixture
def manifest_of(made, tmp_path):
    """A manifest like the tiny model's, with changes."""

    def manifest_of(**changes):
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(json.loads(made["manifest"].read_text()) | changes))
        return path

    return manifest_of


def test_successful_trial_fills_its_whole_record(run, made):
    record = run(trials.spec())
    assert record.outcome == "ok", record.message
    absent = {name for name in TrialRecord.model_fields if getattr(record, name) is None}
    assert {"message"} <= absent <= {"message", "compile_seconds", "energy"}
    assert (record.model, record.variant, record.weights) == ("tiny", "base", "random")
    assert (record.engine, record.batch, record.prompt, record.generated) == ("lean", 2, 5, 8)
    assert record.engine_config == EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=False)
    good = record.batches
    assert all(batch.ok and batch.tokens == 16 for batch in good)
    assert record.tokens_generated == 16 * len(good) == 16 * record.successful_batches
    rate = record.tokens_generated / sum(batch.seconds for batch in good)
    assert record.tokens_per_second == pytest.approx(rate)
    assert record.interval[0] <= rate <= record.interval[1]
    tokens = load_file(made["reference"])["p5"][:2, :8]
    assert record.tokens_sha256 == record.reference_sha256 == sha256(tokens)
    assert (record.rows_equal, record.rows_tied, record.attempts) == (2, 0, 1)
    assert len(record.inter_token_seconds) % 7 == 0
    assert record.time_per_output_token_seconds == pytest.approx(
        sum(record.inter_token_seconds) / len(record.inter_token_seconds)
    )
    assert record.decode_tokens_per_second == pytest.approx(2 / record.time_per_output_token_seconds)
    assert record.prefill_tokens_per_second == pytest.approx(10 / record.time_to_first_token_seconds)


def test_memory_is_that_of_each_phase(run):
    record = run(trials.spec())
    memory = record.memory
    assert memory.method == "VmHWM"
    assert memory.load_peak_bytes >= memory.after_load_bytes > 0
    assert memory.load_peak_bytes >= memory.before_load_bytes
    assert record.peak_bytes == max(memory.prefill_peak_bytes, memory.decode_peak_bytes)
    assert record.activation_bytes == record.peak_bytes - memory.after_load_bytes
    assert record.memory_overhead == pytest.approx(record.peak_bytes / (record.weights_bytes + record.kv_bytes))


def test_ceiling_follows_from_the_limits(run):
    record = run(trials.spec())
    seconds = max(record.decode_step_bytes / 1e10, record.decode_step_flops / 1e11)
    assert record.ceiling_tokens_per_second == pytest.approx(2 / seconds)
    assert record.ceiling_share == pytest.approx(record.decode_tokens_per_second * seconds / 2)
    assert record.ceiling_share == pytest.approx(max(record.mbu, record.mfu))
    assert record.binds == ("bandwidth" if record.mbu > record.mfu else "compute")


@pytest.mark.parametrize("other", [{"device": "NVIDIA H100"}, {"machine": {"cpu_model": "another", "cores": 96}}])
def test_limits_of_another_machine_are_ignored(run, tmp_path, other):
    (tmp_path / "other.json").write_text(json.dumps(trials.LIMITS | other))
    record = run(trials.spec(), limits=tmp_path / "other.json")
    assert record.outcome == "ok"
    assert record.mbu is None
    assert record.decode_step_bytes > 0


def test_one_token_has_no_time_between_tokens(run):
    record = run(trials.spec(generated=1))
    assert record.outcome == "ok"
    assert record.inter_token_seconds == []
    assert record.time_per_output_token_seconds is None
    assert record.ceiling_share is None
    assert record.time_to_first_token_seconds > 0


def test_auto_settings_are_tuned_recorded_and_checked_for_equal_tokens(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    auto = {"threads": "auto", "attention": "auto", "compile": "auto", "probe_seconds": 20}
    record = run(trials.spec(f"{WRONG}:SlowWithTwoThreads", autotune=auto))
    assert record.outcome == "ok", record.message
    assert record.engine_config == EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=False)
    tried = {(each.threads, each.attention): each for each in record.tried_configs}
    assert set(tried) == {(2, "sdpa"), (1, "sdpa"), (1, "eager")}
    assert tried[2, "sdpa"].seconds > 0.05
    assert tried[1, "eager"].equal is False
    assert "row 0, token 0" in tried[1, "eager"].note


def test_nan_weight_is_invalid_output(run, made, manifest_of, tmp_path):
    folder = tmp_path / "nan"
    folder.mkdir()
    source = Path(json.loads(made["manifest"].read_text())["folder"])
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    record = run(trials.spec(), manifest=manifest_of(folder=str(folder)))
    assert (record.outcome, record.message) == ("invalid_output", "logits are not finite")
    assert record.load_seconds > 0
    assert record.batches == []


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("WrongToken", "row 1, token 2: id"),
        ("EndsEarly", "(2, 7) instead of (2, 8)"),
        ("TooMany", "(2, 9) instead of (2, 8)"),
        ("OutsideVocabulary", "row 0, token 7: id 97 is outside the vocabulary of 97"),
    ],
)
def test_wrong_tokens_are_invalid_output(run, engine, message):
    record = run(trials.spec(f"{WRONG}:{engine}"))
    assert record.outcome == "invalid_output"
    assert message in record.message
    assert (record.model, record.variant, record.ratio, record.batch) == ("tiny", "base", 1.0, 2)


def test_token_that_goes_wrong_later_is_found_and_every_batch_kept(run):
    record = run(trials.spec(f"{WRONG}:WrongLater", timing={"seconds": 60, "precision": 1e-6}))
    assert record.outcome == "invalid_output"
    assert record.message.startswith("3 of 4 batches: row 0, token 0")
    assert [batch.ok for batch in record.batches] == [True, False, False, False]
    assert (record.successful_batches, record.failed_batches, record.tokens_generated) == (1, 3, 16)
    assert record.interval is None


def test_latency_pass_that_disagrees_with_the_batches_says_so(run):
    record = run(trials.spec(f"{WRONG}:SlowWithTokens"))
    assert record.outcome == "ok"
    assert record.latency_seconds_ratio > 1.1
    assert record.latency_agrees is False


@pytest.mark.parametrize(
    ("token_seconds", "agrees"), [(1.0, True), (1.09, True), (0.91, True), (1.2, False), (0.8, False)]
)
def test_latencies_agree_within_a_tenth_of_the_batches(token_seconds, agrees):
    calls = [[0.5 * token_seconds, token_seconds], [0.4 * token_seconds, token_seconds]]
    found = latency.agreement(calls, [0.9, 1.1])
    assert found == {"latency_seconds_ratio": pytest.approx(token_seconds), "latency_agrees": agrees}
    assert latency.agreement([[]], [1.0]) == {}


def test_engine_that_reports_no_token_has_no_latencies(run):
    record = run(trials.spec(f"{WRONG}:SaysNothing"))
    assert record.outcome == "ok"
    assert record.time_to_first_token_seconds is None
    assert record.decode_tokens_per_second is None
    assert record.peak_bytes > 0


def test_trial_that_takes_too_long_is_a_timeout(run):
    record = run(trials.spec(f"{WRONG}:Sleeps", timing={"timeout_seconds": 4}))
    assert (record.outcome, record.message) == ("timeout", "took longer than 4 s")
    assert record.attempts == 1


def test_crash_is_a_fault_and_leaves_no_record(run, tmp_path):
    with pytest.raises(ChildFault, match="SIGABRT"):
        run(trials.spec(f"{WRONG}:Crashes"))
    with pytest.raises(ChildFault, match="ZeroDivisionError: a bug"):
        run(trials.spec(f"{WRONG}:Raises"))
    assert not (tmp_path / "trial.json").exists()


def test_unavailable_variant_is_recorded_without_an_attempt(run, manifest_of, tmp_path):
    gone = manifest_of(outcome="unavailable", message="models/llama-0.8 does not exist", folder="")
    record = run(trials.spec(), manifest=gone, reference=tmp_path / "none")
    assert (record.outcome, record.message) == ("unavailable", "models/llama-0.8 does not exist")
    assert record.attempts == 0


def test_trial_takes_over_the_references_outcome(run, tmp_path):
    save_file({}, tmp_path / "reference.safetensors", {"outcome": "invalid_output", "message": "not finite"})
    record = run(trials.spec(), reference=tmp_path / "reference.safetensors")
    assert (record.outcome, record.message) == ("invalid_output", "not finite")


def test_out_of_memory_is_tried_twice_and_recorded_and_the_next_trial_runs(run, made, tmp_path):
    reference, large = tmp_path / "large.safetensors", 60_000
    tokens = load_file(made["reference"])
    save_file({name: tensor.repeat(large // 4, 1) for name, tensor in tokens.items()}, reference, {"outcome": "ok"})
    append_to(tmp_path / "journal.jsonl")
    limit = {"timing": {"memory_limit_bytes": psutil.Process().memory_info().vms + 150 * 2**20}}
    record = run(trials.spec(batch=large, **limit), reference=reference)
    append_to(None)
    assert record.outcome == "out_of_memory"
    assert "batch 60000, prompt 5, generated 8: " in record.message
    assert "bytes were free" in record.message
    assert record.attempts == 2
    starts = [line for line in (tmp_path / "journal.jsonl").read_text().splitlines() if '"done": 0,' in line]
    assert len(starts) == 2
    assert record.load_seconds > 0
    assert run(trials.spec(**limit)).outcome == "ok"


def test_trial_is_measured_untuned_if_two_engines_do_not_fit(run, monkeypatch):
    def killed(_):
        raise MemoryError("the kernel ended the process")

    monkeypatch.setattr("plumbline.throughput.measurement.trial.in_child", killed)
    record = run(trials.spec(autotune={"threads": "auto"}))
    assert record.outcome == "ok", record.message
    assert record.engine_config.threads == 1
    assert [each.note for each in record.tried_configs] == ["out of memory: the kernel ended the process"]


def test_second_try_keeps_nothing_of_the_first(run, monkeypatch):
    answers = [
        {"outcome": "out_of_memory", "message": "full", "findings": {"load_seconds": 1.0, "batches": []}},
        {"outcome": "timeout", "message": "took longer", "findings": {}},
    ]
    monkeypatch.setattr("plumbline.throughput.measure.in_child", lambda *_, **__: answers.pop(0))
    record = run(trials.spec())
    assert (record.outcome, record.attempts) == ("timeout", 2)
    assert (record.load_seconds, record.batches) == (None, [])


def test_larger_batch_is_skipped_after_out_of_memory_if_configured(run, tmp_path):
    (smaller,) = write([failed("out_of_memory")], tmp_path)
    skip = trials.spec(timing={"skip_larger_after_oom": True})
    record = run(skip, smaller=[smaller])
    assert (record.outcome, record.message) == ("out_of_memory", "not tried: batch 1 did not fit")
    assert record.attempts == 0
    assert run(trials.spec(), smaller=[smaller]).outcome == "ok"
    write([trial()], tmp_path)
    assert run(skip, smaller=[smaller]).outcome == "ok"


def test_dtype_that_the_device_lacks_is_refused(run, monkeypatch):
    monkeypatch.setattr("plumbline.core.measure.machine._cpu_field", lambda name: "avx2 fma")
    for dtype in ("float16", "bfloat16"):
        with pytest.raises(
            UserError,
            match=rf"^throughput.autotune.dtype: this cpu has no {dtype} arithmetic; use one of float32, or auto$",
        ):
            run(trials.spec(autotune={"dtype": dtype}))


def test_recorded_spec_equals_the_plans():
    settings = ThroughputSettings.model_validate({"model": {"source": "config"}})
    target = next(target for target in plan(settings, 0, {}, "cpu") if target.stage == "measure")
    spec = json.loads(target.spec)
    assert MeasureSpec.model_validate(spec).model_dump(mode="json") == spec


def test_stage_runs_by_hand_and_imports_neither_torch_nor_transformers_for_itself(made, tmp_path):
    program = (
        "import os, sys; from plumbline.throughput.measure import measure\n"
        "leave, stage = os._exit, os.getpid()\n"
        "def report(status):\n"
        "    if os.getpid() == stage: print({'torch', 'numpy', 'transformers'} & set(sys.modules), flush=True)\n"
        "    leave(status)\n"
        "os._exit = report\nmeasure.main()"
    )
    paths = [part for name, path in made.items() for part in (f"--{name}", str(path))]
    command = [sys.executable, "-X", "importtime", "-c", program, "--spec", json.dumps(trials.spec())]
    command += [*paths, "--smaller", "--output", str(tmp_path / "trial.json"), "--log", str(tmp_path / "trial.log")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["workflow", "tests"])}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "set()\n"
    imported = {line.split("|")[-1].strip() for line in answer.stderr.splitlines() if "import time:" in line}
    assert "torch" in imported  # by the child
    assert not {"transformers", "scipy.stats", "pandas"} & imported
    assert "batch 3: " in answer.stderr
    assert TrialRecord.read(tmp_path / "trial.json").outcome == "ok"
