import pytest
import torch

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.measurement import autotune as module
from plumbline.throughput.measurement.autotune import alternatives, autotune, initial_config
from plumbline.throughput.measurement.settings import AutotuneSettings, EngineConfig

CPU = torch.device("cpu")
FIRST = EngineConfig(dtype="float32", attention="sdpa", threads=2, compile=False)
COORDINATES = {"threads": [1, 2], "attention": ["sdpa", "eager"], "dtype": ["float32", "bfloat16"]}


class Engine:
    """Stands for an engine: takes as long as its config says, on a simulated clock."""

    attentions = ("sdpa", "eager")
    can_compile = True
    live = 0

    def __init__(self, config):
        self.config = config
        Engine.live += 1

    def close(self):
        Engine.live -= 1


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on only when an engine runs."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def tune(clock):
    def tune(seconds, wrong=(), probe_seconds=100.0):
        order = []

        def run(engine):
            order.append(engine.config)
            clock[0] += seconds(engine.config)
            return engine.config

        def check(config):
            if config in wrong or config.dtype in wrong:
                raise OutcomeError(Outcome.INVALID_OUTPUT, "row 0")

        chosen, tried = autotune(FIRST, COORDINATES, Engine, run, check, lambda: None, probe_seconds)
        assert Engine.live == 0
        return chosen, tried, order

    return tune


def seconds_of(config):
    """One thread, eager and bfloat16 are the fastest."""
    return 1.0 + 0.5 * (config.threads == 2) + 0.25 * (config.attention == "sdpa") + 0.25 * (config.dtype == "float32")


def test_fastest_is_found_coordinate_by_coordinate(tune):
    chosen, tried, _ = tune(seconds_of)
    assert chosen == EngineConfig(dtype="bfloat16", attention="eager", threads=1, compile=False)
    assert [(p.threads, p.attention, p.dtype) for p in tried] == [
        (2, "sdpa", "float32"),
        (1, "sdpa", "float32"),
        (1, "eager", "float32"),
        (1, "eager", "bfloat16"),
    ]
    assert [p.seconds for p in tried] == [2.0, 1.5, 1.25, 1.0]
    assert all(p.equal for p in tried)


def test_candidate_with_other_tokens_is_never_chosen(tune):
    chosen, tried, _ = tune(seconds_of, wrong=("bfloat16",))
    assert chosen.dtype == "float32"
    assert (tried[-1].equal, tried[-1].seconds, tried[-1].note) == (False, None, "row 0")


def test_wrong_initial_config_is_replaced_by_a_right_one(tune):
    chosen, tried, _ = tune(lambda config: 1.0, wrong=(FIRST,))
    assert chosen.threads == 1
    assert not tried[0].equal


def test_slightly_faster_is_not_enough(tune):
    chosen, _, _ = tune(lambda config: 0.98 if config.threads == 1 else 1.0)
    assert chosen == FIRST


def test_no_candidate_starts_when_the_time_is_up(tune):
    chosen, tried, _ = tune(seconds_of, probe_seconds=3.0)
    assert chosen.threads == 1
    late = "not tried: no time left"
    assert [p.note for p in tried] == ["", "0.750 of the time of the best before it", late, late]
    assert tried[2].equal is None


def test_candidate_and_best_take_turns(tune):
    _, _, order = tune(seconds_of)
    assert [config.threads for config in order[:8]] == [2, 1, 2, 1, 2, 1, 2, 1]


def test_failed_candidate_releases_its_memory(clock):
    alive = []

    def check(config):
        alive.append(Engine.live)
        if config == FIRST:
            raise MemoryError("full")

    autotune(FIRST, {"threads": [1, 2]}, Engine, lambda e: e.config, check, lambda: None, 100.0)
    assert alive == [1, 1]


def test_out_of_memory_candidate_is_noted_and_tuning_goes_on(clock):
    def make(config):
        if config.attention == "eager":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return Engine(config)

    def run(engine):
        clock[0] += seconds_of(engine.config)

    chosen, tried = autotune(FIRST, COORDINATES, make, run, lambda tokens: None, lambda: None, 100.0)
    assert chosen == EngineConfig(dtype="bfloat16", attention="sdpa", threads=1, compile=False)
    assert "out of memory" in tried[2].note


def test_threads_are_at_most_omp_num_threads_and_the_cores(monkeypatch):
    monkeypatch.setattr(module, "core_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert module.threads_available() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert module.threads_available() == 8
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert module.threads_available() == 8


def test_only_available_values_of_auto_settings_are_tried(monkeypatch):
    monkeypatch.setattr(module, "threads_available", lambda: 4)
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx2"}))
    assert alternatives(AutotuneSettings(threads="auto", attention="auto"), Engine, CPU) == {
        "threads": [1, 4],
        "attention": ["sdpa", "eager"],
    }
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert alternatives(AutotuneSettings(threads=1, attention="eager"), Engine, CPU) == {
        "dtype": ["float32", "bfloat16"]
    }
    fixed = {"threads": 1, "attention": "sdpa", "dtype": "float32"}
    assert alternatives(AutotuneSettings(**fixed, probe_seconds=60), Engine, CPU) == {"compile": [False, True]}
    assert alternatives(AutotuneSettings(**fixed, probe_seconds=60, compile="on"), Engine, CPU) == {}


class Plain(Engine):
    attentions = ("sdpa",)
    can_compile = False


def test_initial_config_is_what_the_engine_can_do():
    assert initial_config(AutotuneSettings(compile="on", threads=3), Engine) == EngineConfig(
        dtype="float32", attention="sdpa", threads=3, compile=True
    )
    assert not initial_config(AutotuneSettings(compile="on"), Plain).compile
    with pytest.raises(OutcomeError, match="Plain has no attention 'eager'; it has sdpa") as found:
        initial_config(AutotuneSettings(attention="eager"), Plain)
    assert found.value.outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        (set(), ["float32"]),
        ({"avx512_bf16"}, ["float32", "bfloat16"]),
        ({"amx_bf16", "amx_fp16"}, ["float32", "bfloat16", "float16"]),
        ({"avx512_fp16"}, ["float32", "float16"]),
    ],
)
def test_dtype_that_the_processor_lacks_is_refused_with_the_alternatives(monkeypatch, flags, there):
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset(flags))
    assert module.native_dtypes(CPU) == there
    for dtype in ("float32", "bfloat16", "float16"):
        if dtype in there:
            module.check_dtype(dtype, CPU)
        else:
            with pytest.raises(
                UserError, match=f"throughput.autotune.dtype: .*{dtype}.*use one of {', '.join(there)}, or"
            ):
                module.check_dtype(dtype, CPU)
    module.check_dtype("auto", CPU)
