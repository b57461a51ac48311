import pytest
import torch

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import Choice
from plumbline.throughput.measurement import autotune as choosing
from plumbline.throughput.settings import ChoiceSettings

CPU = torch.device("cpu")
FIRST = Choice(dtype="float32", attention="sdpa", threads=2, compile=False)
COORDINATES = {"threads": [1, 2], "attention": ["sdpa", "eager"], "dtype": ["float32", "bfloat16"]}


class Engine:
    """Stands for an engine: takes as long as its choice says, on a clock of its own."""

    attentions = ("sdpa", "eager")
    can_compile = True
    live = 0

    def __init__(self, choice):
        self.choice = choice
        Engine.live += 1

    def close(self):
        Engine.live -= 1


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on only when an engine runs."""
    now = [0.0]
    monkeypatch.setattr(choosing.time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def choose(clock):
    def choose(seconds, wrong=(), probe_seconds=100.0):
        order = []

        def run(engine):
            order.append(engine.choice)
            clock[0] += seconds(engine.choice)
            return engine.choice

        def check(choice):
            if choice in wrong or choice.dtype in wrong:
                raise OutcomeError(Outcome.INVALID_OUTPUT, "row 0")

        chosen, probe = choosing.choose(FIRST, COORDINATES, Engine, run, check, lambda: None, probe_seconds)
        assert Engine.live == 0
        return chosen, probe, order

    return choose


def seconds_of(choice):
    """One thread, eager and bfloat16 are the fastest."""
    return 1.0 + 0.5 * (choice.threads == 2) + 0.25 * (choice.attention == "sdpa") + 0.25 * (choice.dtype == "float32")


def test_fastest_is_found_coordinate_by_coordinate(choose):
    chosen, probe, _ = choose(seconds_of)
    assert chosen == Choice(dtype="bfloat16", attention="eager", threads=1, compile=False)
    assert [(p["threads"], p["attention"], p["dtype"]) for p in probe] == [
        (2, "sdpa", "float32"),
        (1, "sdpa", "float32"),
        (1, "eager", "float32"),
        (1, "eager", "bfloat16"),
    ]
    assert [p["seconds"] for p in probe] == [2.0, 1.5, 1.25, 1.0]
    assert all(p["equal"] for p in probe)


def test_candidate_with_other_tokens_is_never_chosen(choose):
    chosen, probe, _ = choose(seconds_of, wrong=("bfloat16",))
    assert chosen.dtype == "float32"
    assert (probe[-1]["equal"], probe[-1]["seconds"], probe[-1]["note"]) == (False, None, "row 0")


def test_first_that_is_wrong_gives_way_to_one_that_is_right(choose):
    chosen, probe, _ = choose(lambda choice: 1.0, wrong=(FIRST,))
    assert chosen.threads == 1
    assert not probe[0]["equal"]


def test_hardly_faster_is_not_enough(choose):
    chosen, _, _ = choose(lambda choice: 0.98 if choice.threads == 1 else 1.0)
    assert chosen == FIRST


def test_none_is_begun_when_the_time_is_up(choose):
    chosen, probe, _ = choose(seconds_of, probe_seconds=3.0)
    assert chosen.threads == 1
    late = "not tried: no time left"
    assert [p["note"] for p in probe] == ["", "0.750 of the time of the best before it", late, late]
    assert probe[2]["equal"] is None


def test_candidate_and_best_take_turns(choose):
    _, _, order = choose(seconds_of)
    assert [choice.threads for choice in order[:8]] == [2, 1, 2, 1, 2, 1, 2, 1]


def test_one_that_failed_takes_no_memory_from_the_next(clock):
    alive = []

    def check(choice):
        alive.append(Engine.live)
        if choice == FIRST:
            raise MemoryError("full")

    choosing.choose(FIRST, {"threads": [1, 2]}, Engine, lambda e: e.choice, check, lambda: None, 100.0)
    assert alive == [1, 1]


def test_lack_of_memory_is_noted_and_the_rest_goes_on(clock):
    def make(choice):
        if choice.attention == "eager":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return Engine(choice)

    def run(engine):
        clock[0] += seconds_of(engine.choice)

    chosen, probe = choosing.choose(FIRST, COORDINATES, make, run, lambda tokens: None, lambda: None, 100.0)
    assert chosen == Choice(dtype="bfloat16", attention="sdpa", threads=1, compile=False)
    assert "out of memory" in probe[2]["note"]


def test_threads_are_those_omp_allows_at_most_one_a_core(monkeypatch):
    monkeypatch.setattr(choosing, "core_count", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert choosing.threads_available() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert choosing.threads_available() == 8
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert choosing.threads_available() == 8


def test_only_what_is_auto_and_there_is_tried(monkeypatch):
    monkeypatch.setattr(choosing, "threads_available", lambda: 4)
    monkeypatch.setattr(choosing, "cpu_flags", lambda: frozenset({"avx2"}))
    assert choosing.alternatives(ChoiceSettings(), Engine, CPU) == {"threads": [1, 4], "attention": ["sdpa", "eager"]}
    monkeypatch.setattr(choosing, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert choosing.alternatives(ChoiceSettings(threads=1, attention="eager"), Engine, CPU) == {
        "dtype": ["float32", "bfloat16"]
    }
    fixed = {"threads": 1, "attention": "sdpa", "dtype": "float32"}
    assert choosing.alternatives(ChoiceSettings(**fixed, probe_seconds=60), Engine, CPU) == {"compile": [False, True]}
    assert choosing.alternatives(ChoiceSettings(**fixed, probe_seconds=60, compile="on"), Engine, CPU) == {}


class Plain(Engine):
    attentions = ("sdpa",)
    can_compile = False


def test_first_choice_is_what_the_engine_can():
    assert choosing.first_choice(ChoiceSettings(compile="on", threads=3), Engine) == Choice(
        dtype="float32", attention="sdpa", threads=3, compile=True
    )
    assert not choosing.first_choice(ChoiceSettings(compile="on"), Plain).compile
    with pytest.raises(OutcomeError, match="Plain has no attention 'eager'; there are sdpa") as found:
        choosing.first_choice(ChoiceSettings(attention="eager"), Plain)
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
def test_type_that_the_processor_lacks_is_refused_with_what_there_is(monkeypatch, flags, there):
    monkeypatch.setattr(choosing, "cpu_flags", lambda: frozenset(flags))
    assert choosing.native_dtypes(CPU) == there
    for dtype in ("float32", "bfloat16", "float16"):
        if dtype in there:
            choosing.check_dtype(dtype, CPU)
        else:
            with pytest.raises(
                UserError, match=f"throughput.choice.dtype: .*{dtype}.*there are {', '.join(there)}, or"
            ):
                choosing.check_dtype(dtype, CPU)
    choosing.check_dtype("auto", CPU)
