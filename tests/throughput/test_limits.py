from itertools import product

import pytest
import torch

from plumbline.throughput import limits as module
from plumbline.throughput.limits import ROW, LimitsSpec, _readers, bandwidth, cache_bytes, ladder, limits, matmul
from plumbline.throughput.measurement.roofline import read_limits

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "LEAST_BYTES", {"cpu": 2**20})
    monkeypatch.setattr(module, "TIMES_CACHE", 0)


def test_file_holds_the_best_sample_of_every_working_set_dtype_and_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "thread_counts", lambda device: [1, 2])
    output = tmp_path / "machine.json"
    limits(LimitsSpec(code="", inputs="", limits={"seconds": 0.02}, device="cpu"), output)
    found = read_limits(output)
    assert {(each.threads, each.bytes) for each in found.bandwidths} == set(product((1, 2), ladder(CPU)))
    for each in found.bandwidths:
        assert each.bytes_per_second == max(
            sample["bytes_per_second"]
            for sample in found.samples["bandwidth"]
            if (sample["threads"], sample["bytes"]) == (each.threads, each.bytes)
        )
    assert {(each.threads, each.dtype) for each in found.matmul_rates} == set(
        product((1, 2), ("float32", "bfloat16", "float16"))
    )
    for rate in found.matmul_rates:
        assert rate.flops_per_second == max(
            sample["flops_per_second"]
            for sample in found.samples["matmul"]
            if (sample["threads"], sample["dtype"]) == (rate.threads, rate.dtype)
        )
    assert found.device == "cpu"
    assert found.machine["cores"] > 0


def test_ladder_doubles_from_a_quarter_mebibyte_to_well_beyond_the_largest_cache(monkeypatch):
    monkeypatch.setattr(module, "TIMES_CACHE", 4)
    monkeypatch.setattr(module, "cache_bytes", lambda: 33 * 2**20)
    sizes = ladder(CPU)
    assert sizes == [2**18 * 2**step for step in range(len(sizes))]
    assert sizes[-2] < 4 * 33 * 2**20 <= sizes[-1]


def test_each_sample_counts_the_bytes_of_all_its_calls():
    samples = list(bandwidth(CPU, 0.01))
    assert {sample["kind"] for sample in samples} == {"sum", "dot", "product"}
    assert list(dict.fromkeys(sample["bytes"] for sample in samples)) == ladder(CPU)
    for sample in samples:
        calls = sample["bytes_per_second"] * sample["seconds"] / sample["bytes"]
        assert calls == pytest.approx(max(1, 2**23 // sample["bytes"]))


@pytest.mark.parametrize("size", [2**18, 2**20])
def test_readers_read_the_whole_working_set(size):
    for read in _readers(size, CPU).values():
        arrays = [part for part in read.args if part.numel() > ROW]
        assert sum(part.nbytes for part in arrays) == size


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
