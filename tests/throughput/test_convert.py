"""A variant is converted for an engine as a target, or is unavailable with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from plumbline.throughput.engine_needs import FORMATS, NEEDED, missing_packages
from plumbline.throughput.models.llama_config import not_llama
from throughput import trials

WITHOUT_PACKAGES = """
import sys

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusal())
"""
"""Begins a program in whose interpreter packages are not installed."""


def run_without(engine: str, program: str, *arguments: str) -> str:
    """What `program` prints where the packages of `engine` are not installed."""
    source = WITHOUT_PACKAGES.format(missing=set(NEEDED[engine])) + program
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trials.make(tmp_path_factory.mktemp("tiny"))["manifest"]


@pytest.mark.parametrize("engine", ["ctranslate2", "llama_cpp"])
def test_missing_package_makes_a_conversion_unavailable_with_the_fix(
    manifest: Path, tmp_path: Path, engine: str
) -> None:
    program = """
from pathlib import Path
from plumbline.throughput.convert import ConvertSpec, convert
engine, manifest, output = sys.argv[1:]
spec = ConvertSpec(code="", inputs="", variant="base", engine=engine, dtype="float32", missing=[])
convert(spec, Path(manifest), Path(output))
"""
    output = tmp_path / "base+engine" / "manifest.json"
    run_without(engine, program, engine, str(manifest), str(output))
    found = json.loads(output.read_text())
    assert found["outcome"] == "unavailable"
    assert found["message"].startswith(f"engine {engine} is not installed (No module named ")
    assert found["message"].endswith("pip install 'plumbline[engines]'")


@pytest.mark.parametrize("engine", NEEDED)
def test_missing_package_makes_an_engine_unavailable_and_is_known_to_the_plan(manifest: Path, engine: str) -> None:
    program = """
from pathlib import Path
from plumbline.core.run.record import OutcomeError
from plumbline.throughput.engine_needs import missing_packages
from plumbline.throughput.engines.interface import load
from plumbline.throughput.models.manifest import read_manifest
try:
    load(sys.argv[1]).prepare(read_manifest(Path(sys.argv[2])))
except OutcomeError as error:
    print(error.outcome.value, *missing_packages(sys.argv[1]), sep=",")
"""
    assert run_without(engine, program, engine, str(manifest)).strip() == ",".join(["unavailable", *NEEDED[engine]])


def test_installed_packages_are_not_missing_and_engines_of_torch_need_none() -> None:
    assert missing_packages("ctranslate2") == missing_packages("llama_cpp") == missing_packages("generate") == []


def test_every_format_belongs_to_an_engine_with_packages() -> None:
    engines = {path.stem for path in FORMATS.glob("[!_]*.py")}
    assert engines <= NEEDED.keys()
    assert all((FORMATS.parent / "engines" / f"{name}.py").exists() for name in NEEDED)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "gpt2"}, "model_type llama, not gpt2"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "hidden_act silu, not gelu"),
        ({"model_type": "llama", "rope_scaling": {"type": "linear"}}, "rope_type default, not linear"),
    ],
)
def test_other_architectures_are_told_from_llamas(config: dict[str, object], reason: str | None) -> None:
    assert not_llama(config) == reason
