"""What really runs is in the digest: every job of small studies is traced, and held against what its spec names."""

import __future__

import copy
import dis
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from house import TINY, build
from plumbline.core.plan.code import NO_PART_OF_A_RESULT

SMALL = {
    "ablation": {
        **TINY["ablation"],
        "representations": {"factor": ["simple_stats"], "product": ["stats", "tokens"]},
        "transformer": {"epochs": 2},
        "ensembles": {},
        "layers": ["all_layers"],
    },
    "lr_sweep": {**TINY["lr_sweep"], "extend_at_most": 1},
    "throughput": {
        **TINY["throughput"],
        "grid": [{"batch": [1], "generated": [6], "engines": ["lean"]}],
        "timing": {**TINY["throughput"]["timing"], "max_batch": False},
    },
}
WITHOUT = {name.removeprefix("plumbline.") for name in NO_PART_OF_A_RESULT}


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> dict[str, tuple[set[tuple[str, str]], dict[str, str]]]:
    """Digest of a stage's code -> the calls (caller, callee) that its jobs made, and the definitions it is over."""
    house = build(tmp_path_factory.mktemp("traced") / "house")
    house.configure(copy.deepcopy(SMALL))
    shutil.copy(Path(__file__).with_name("tracing.py"), house.root / "sitecustomize.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_TRACED", "1")
        house.snakemake("lr_sweep", "throughput")  # beside the house's own study, ablation
    found: dict[str, tuple[set[tuple[str, str]], dict[str, str]]] = {}
    for line in (house.root / "traced.txt").read_text().splitlines():
        code, caller, callee = line.split("\t")
        if code not in found:
            found[code] = set(), json.loads((house.root / "results" / "code" / f"{code}.json").read_text())
        found[code][0].add((caller, callee))
    return found


def stage_of(closure: dict[str, str]) -> str:
    return next(name.removesuffix(" when run") for name in closure if name.endswith(" when run"))


def test_every_function_that_runs_in_a_stage_is_in_its_digest(traced):
    missing, stages = set(), set()
    for calls, closure in traced.values():
        stage = stage_of(closure)
        stages.add(stage)
        assert ("main", "core.run.stage.Stage") in calls
        assert any(callee.rpartition(".")[0] == stage for _, callee in calls), "the stage itself was traced"
        for caller, callee in calls:
            named = f"{caller.rpartition('.')[0]}.{callee.rpartition('.')[2]}"  # as the caller's module imports it
            needed = caller in closure or "<" in caller  # a lambda at the top of a module
            if needed and "<" not in callee and callee not in closure and WITHOUT.isdisjoint({callee, named}):
                missing.add((stage, caller, callee))
    assert missing == set()
    assert {stage.partition(".")[0] for stage in stages} == {"ablation", "lr_sweep", "throughput"}
    assert len(stages) >= 20


def functions_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions_in(constant)


def globals_of(module: ModuleType, definition: str) -> Iterator[tuple[str, str]]:
    """Module-level names that the bytecode of a definition reads, each with the attribute read from it."""
    without_annotations = __future__.annotations.compiler_flag
    top = compile(Path(module.__file__).read_text(), module.__file__, "exec", without_annotations)
    for code in functions_in(top):
        if code.co_qualname.partition(".")[0] == definition:
            steps = list(dis.get_instructions(code))
            for step, following in zip(steps, [*steps[1:], steps[-1]], strict=True):
                if step.opname == "LOAD_GLOBAL" and step.argval in vars(module).keys() - vars(ModuleType("")).keys() - {
                    "__file__"
                }:
                    is_attribute = following.opname in ("LOAD_ATTR", "LOAD_METHOD")
                    yield step.argval, following.argval if is_attribute else ""


def test_every_global_that_a_traced_function_reads_is_in_the_digest(traced):
    """By the bytecode, which the digest does not look at. Loggers are left out: what they are given is no result."""
    missing, read = set(), 0
    for calls, closure in traced.values():
        for name in {callee for _, callee in calls} & closure.keys():
            place, _, definition = name.rpartition(".")
            module = importlib.import_module(f"plumbline.{place}")
            for found, attribute in globals_of(module, definition):
                value, read = vars(module)[found], read + 1
                if isinstance(value, ModuleType) and value.__name__.startswith("plumbline."):
                    found_in = f"{value.__name__.removeprefix('plumbline.')}.{attribute}"
                    names = {f"{place}.{found}", found_in} - WITHOUT
                else:
                    names = {f"{place}.{found}"} - ({f"{place}.log"} | WITHOUT)
                missing |= {(name, one) for one in names - closure.keys()}
    assert missing == set()
    assert read > 1000
