import json

import pytest
import torch

from plumbline.throughput import limits as module
from plumbline.throughput.limits import LimitsSpec, bandwidth, cache_bytes, limits, matmul

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "LEAST_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(module, "TIMES_CACHE", 0)


def test_file_holds_the_best_of_its_samples(tmp_path):
    output = tmp_path / "machine.json"
    limits(LimitsSpec(code="", inputs="", limits={"seconds": 0.02}, device="cpu"), output)
    found = json.loads(output.read_text())
    moved, multiplied = found["samples"]["bandwidth"], found["samples"]["matmul"]
    copies = [sample["bytes_per_second"] for sample in moved if sample["kind"] == "copy"]
    reads = [sample["bytes_per_second"] for sample in moved if sample["kind"] in ("sum", "dot", "product")]
    assert len(copies) + len(reads) == len(moved)
    assert found["copy_bytes_per_second"] == max(copies)
    assert found["read_bytes_per_second"] == max(reads)
    assert found["bandwidth_bytes_per_second"] == max(copies + reads)
    assert set(found["matmul_flops_per_second"]) == {"float32", "bfloat16", "float16"}
    for dtype, rate in found["matmul_flops_per_second"].items():
        assert rate == max(sample["flops_per_second"] for sample in multiplied if sample["dtype"] == dtype)
    assert found["device"] == "cpu"
    assert found["machine"]["cores"] > 0


def test_bytes_include_every_array_that_is_accessed():
    arrays = {"copy": 2, "sum": 1, "dot": 2, "product": 1}
    samples = list(bandwidth(CPU, 0.01))
    assert {sample["kind"] for sample in samples} == set(arrays)
    for sample in samples:
        moved = sample["bytes_per_second"] * sample["seconds"]
        assert moved == pytest.approx(arrays[sample["kind"]] * 2**20)


def test_matrices_grow_only_while_there_is_time():
    samples = list(matmul("float32", CPU, 0.05))
    sides = sorted({sample["side"] for sample in samples})
    assert sides == [128 * 2**power for power in range(len(sides))]
    for sample in samples:
        assert sample["flops_per_second"] * sample["seconds"] == pytest.approx(2 * sample["side"] ** 3)
    assert {sample["side"] for sample in matmul("float32", CPU, 1e-6)} == {128}


def test_cache_is_read_from_the_system(tmp_path, monkeypatch):
    for index, size in enumerate(("32K", "1024K", "32768K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}/size").write_text(f"{size}\n")
    monkeypatch.setattr(module, "CACHES", tmp_path)
    assert cache_bytes() == 32 * 2**20
    monkeypatch.setattr(module, "CACHES", tmp_path / "none")
    assert cache_bytes() == 0
