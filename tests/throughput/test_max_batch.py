import json

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.run.processes import TimeUpError
from plumbline.throughput.convert import ConvertSpec, convert
from plumbline.throughput.max_batch import CLOSE, MaxBatchSpec, largest_batch, max_batch
from plumbline.throughput.measurement import batch_search
from plumbline.throughput.plan import plan
from plumbline.throughput.record import MaxBatchRecord
from plumbline.throughput.settings import ThroughputSettings
from throughput import trials

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    paths = trials.make(tmp_path_factory.mktemp("tiny"))
    return {"manifest": paths["manifest"], "text": paths["text"]}


@given(limit=st.integers(0, 10**6), start=st.integers(0, 10**6))
def test_search_ends_at_the_limit_from_wherever_it_starts(limit, start):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    found = largest_batch(start, fits)
    assert len(set(tried)) == len(tried)
    assert found <= limit <= found + max(0, found // CLOSE)
    assert found == 0 or found in tried
    assert min((batch for batch in tried if batch > found), default=0) - found <= max(1, found // CLOSE)


def spec(**changes):
    cell = trials.spec()["cell"] | {"batch": 1} | changes.pop("cell", {})
    values = {"cell": cell, "autotune": trials.AUTOTUNE, "memory_limit_bytes": None, "timeout_seconds": 60.0}
    values["device"] = "cpu"
    return MaxBatchSpec(code="", inputs="", **(values | changes))


def test_largest_batch_fits_and_the_next_one_tried_does_not(made, tmp_path):
    limit = psutil.Process().memory_info().vms + 40 * MEBIBYTE
    max_batch(spec(memory_limit_bytes=limit), **made, output=tmp_path / "found.json")
    found = MaxBatchRecord.read(tmp_path / "found.json")
    assert (found.outcome, found.stage, found.trial) == ("ok", "max_batch", "base/lean/p5-g8")
    fitting = [tried.batch for tried in found.tried_batches if tried.fits]
    too_large = [tried.batch for tried in found.tried_batches if not tried.fits]
    assert found.largest == max(fitting) < min(too_large) <= max(fitting) * (1 + 1 / CLOSE) + 1
    assert found.tried_batches[0].batch == found.estimate
    assert found.estimate / 8 < found.largest < 8 * found.estimate
    assert all(tried.peak_bytes > 0 for tried in found.tried_batches if tried.fits)
    assert all("allocate" in tried.message for tried in found.tried_batches if not tried.fits)
    assert found.limit_bytes <= 40 * MEBIBYTE
    assert found.bound == "out_of_memory"


def test_search_never_uses_more_memory_than_is_free(made, tmp_path, monkeypatch):
    monkeypatch.setattr("plumbline.core.measure.machine.available_bytes", lambda: 30 * MEBIBYTE)
    monkeypatch.setattr(batch_search, "available_bytes", lambda: 30 * MEBIBYTE)
    max_batch(spec(), **made, output=tmp_path / "found.json")
    found = MaxBatchRecord.read(tmp_path / "found.json")
    assert found.limit_bytes <= 27 * MEBIBYTE
    assert found.largest < 30_000


def test_model_that_does_not_fit_at_all_is_out_of_memory(made, tmp_path):
    limit = psutil.Process().memory_info().vms
    max_batch(spec(memory_limit_bytes=limit), **made, output=tmp_path / "found.json")
    found = MaxBatchRecord.read(tmp_path / "found.json")
    assert found.outcome == "out_of_memory"
    assert found.message.startswith("batch 1: ")
    assert found.tried_batches[-1].batch == 1


@pytest.mark.parametrize(("slow_from", "outcome", "largest"), [(6, "ok", 5), (1, "timeout", 0)])
def test_batch_that_times_out_is_not_called_out_of_memory(made, tmp_path, monkeypatch, slow_from, outcome, largest):
    def in_child(generated, *, seconds):
        if generated.args[1] >= slow_from:
            raise TimeUpError(f"took longer than {seconds:g} s")
        return 1

    monkeypatch.setattr("plumbline.throughput.measurement.batch_search.in_child", in_child)
    max_batch(spec(), **made, output=tmp_path / "found.json")
    found = MaxBatchRecord.read(tmp_path / "found.json")
    assert (found.outcome, found.largest, found.bound) == (outcome, largest, "timeout")


def test_unavailable_variant_is_recorded(made, tmp_path):
    changed = tmp_path / "manifest.json"
    changed.write_text(
        json.dumps(json.loads(made["manifest"].read_text()) | {"outcome": "unavailable", "message": "x"})
    )
    max_batch(spec(), changed, made["text"], tmp_path / "found.json")
    found = MaxBatchRecord.read(tmp_path / "found.json")
    assert (found.outcome, found.message, found.largest) == ("unavailable", "x", None)


def test_recorded_spec_equals_the_plans():
    settings = ThroughputSettings.model_validate({"model": {"source": "config"}, "timing": {"max_batch": True}})
    target = next(target for target in plan(settings, 0, {}, "cpu") if target.stage == "max_batch")
    values = json.loads(target.spec)
    assert MaxBatchSpec.model_validate(values).model_dump(mode="json") == values


def test_an_engine_that_takes_no_more_rows_ends_the_search_there(made, tmp_path):
    manifest = tmp_path / "base+llama_cpp" / "manifest.json"
    values = {"variant": "base", "engine": "llama_cpp", "dtype": "float32", "missing": []}
    convert(ConvertSpec(code="", inputs="", **values), made["manifest"], manifest)
    of = spec(cell={"engine": "llama_cpp"}, memory_limit_bytes=psutil.Process().memory_info().vms + 8192 * MEBIBYTE)
    max_batch(of, manifest=manifest, text=made["text"], output=tmp_path / "found.json")
    found = MaxBatchRecord.read(tmp_path / "found.json")
    assert (found.outcome, found.bound) == ("ok", "unavailable")
    assert 256 / (1 + 1 / CLOSE) - 1 <= found.largest <= 256
    assert any("at most 256 rows" in (tried.message or "") for tried in found.tried_batches)
