"""The compiled path of engine static, which takes most of a minute by itself."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from plumbline.core.run.processes import in_child
from plumbline.throughput.engines.interface import Shape, load
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from throughput.small_models import write_random

COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


@pytest.mark.skipif(COMPILER is None, reason="torch.compile needs a C++ compiler, and there is none")
def test_compiled_static_gives_the_tokens_of_generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    write_random(tmp_path / "model", tokenizer=False, layers=1)
    manifest = Manifest(variant="base", method="none", folder=str(tmp_path / "model"))
    shape = Shape(batch=2, prompt=3, generated=6)
    prompts = torch.arange(6).view(2, 3)

    def compare() -> None:
        found = {}
        for name in ("generate", "static"):
            config = EngineConfig(dtype="float32", attention="sdpa", threads=1, compile=name == "static")
            engine = load(name)(manifest, torch.device("cpu"), config, shape)
            torch._dynamo.utils.counters.clear()
            found[name] = [engine.generate(prompts, 6), engine.generate(prompts, 6)]
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            engine.close()
        assert graphs == 1  # the decode step was compiled, and once for both calls
        for tokens in (*found["static"], found["generate"][1]):
            assert torch.equal(tokens, found["generate"][0])

    in_child(compare)  # compiling leaves threads behind, and a process that has them cannot be forked by later tests
