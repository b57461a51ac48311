import json
import subprocess
import sys

import psutil
import pytest
import torch

from plumbline.core.measure import machine
from plumbline.core.run.processes import in_child, limit_address_space
from plumbline.throughput.measurement.energy import rapl
from plumbline.throughput.measurement.memory import free_bytes

CPU = torch.device("cpu")
MEBIBYTE = 2**20


def fresh_process(script):
    """What a new process prints: in the tests' own, garbage of other tests is freed when it pleases."""
    setting = (
        "import torch\nfrom plumbline.throughput.measurement.memory import meter\nmeter = meter(torch.device('cpu'))\n"
    )
    done = subprocess.run([sys.executable, "-c", setting + script], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_peak_is_what_was_resident_since_the_reset():
    before, low, resident, later = fresh_process("""
large = torch.ones(400 * 2**20, dtype=torch.uint8)
before = meter.peak()
del large
meter.reset()
low, resident = meter.peak(), meter.now()
again = torch.ones(200 * 2**20, dtype=torch.uint8)
print([before, low, resident, meter.peak()])
""")
    assert low < before - 300 * MEBIBYTE
    assert low >= resident
    assert low + 100 * MEBIBYTE < later < before


def test_untouched_memory_does_not_count():
    before, later = fresh_process("""
meter.reset()
before = meter.peak()
untouched = torch.empty(400 * 2**20, dtype=torch.uint8)
print([before, meter.peak()])
""")
    assert later < before + 100 * MEBIBYTE


def test_free_memory_respects_the_address_space_limit():
    assert 0 < free_bytes(CPU) <= psutil.virtual_memory().total

    def limited():
        limit_address_space(psutil.Process().memory_info().vms + 64 * MEBIBYTE)
        return free_bytes(CPU)

    assert 32 * MEBIBYTE < in_child(limited) <= 64 * MEBIBYTE


@pytest.mark.parametrize(
    ("limit", "used", "controller"),
    [("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory")],
)
def test_memory_is_no_more_than_the_control_group_has_left(tmp_path, monkeypatch, limit, used, controller):
    files = {limit: "1000000", used: "700000", "memory.stat": "anon 5\ninactive_file 100000\nactive_file 50000\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def group_file(name, wanted=""):
        return tmp_path / name if wanted == controller and (tmp_path / name).exists() else None

    monkeypatch.setattr(machine, "cgroup_file", group_file)
    assert machine.available_bytes() == 450_000
    (tmp_path / limit).write_text("max" if not controller else str(2**63))
    assert machine.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.fixture
def powercap(tmp_path):
    """Two packages, one of them with a part of its own, as Linux shows them."""
    for zone, joules in (("intel-rapl:0", 10), ("intel-rapl:0:0", 4), ("intel-rapl:1", 262_000)):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "energy_uj").write_text(f"{joules * 1_000_000}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("262143000000\n")
    return tmp_path


def test_energy_sums_packages_and_handles_wraparound(powercap):
    counters = rapl(powercap)
    before = counters.read()
    (powercap / "intel-rapl:0/energy_uj").write_text("12500000\n")
    (powercap / "intel-rapl:1/energy_uj").write_text("57000000\n")
    assert counters.method == "RAPL"
    assert counters.between(before, counters.read()) == pytest.approx(2.5 + 143 + 57)


def test_no_counter_is_no_energy(tmp_path, powercap):
    assert rapl(tmp_path / "none") is None
    (powercap / "intel-rapl:1/energy_uj").unlink()
    assert rapl(powercap) is None
