import os
from importlib import metadata

import psutil
import pytest

from plumbline.core.measure import machine
from plumbline.core.measure.clocks import cpu_pressure
from plumbline.core.measure.machine import core_count, describe_machine


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A control group whose files the test writes, on a machine with 8 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(
        machine, "cgroup_file", lambda name, controller="": path if (path := tmp_path / name).exists() else None
    )
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)]
)
def test_cores_are_those_of_the_affinity_that_the_quota_can_keep_busy(group, quota, cores):
    (group / "cpu.max").write_text(quota + "\n")
    assert core_count() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("300000", 3)])
def test_a_quota_of_cgroup_version_1_counts_too(group, quota, cores):
    (group / "cpu.cfs_quota_us").write_text(quota + "\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert core_count() == cores


def test_without_a_control_group_the_affinity_decides(group):
    assert core_count() == 8


def test_a_record_has_the_affinity_and_the_pressure_of_the_machine():
    described = describe_machine()
    assert described["cores"] == len(os.sched_getaffinity(0))
    assert (described["cpu_pressure_some_avg10_percent"] is None) == (cpu_pressure() is None)


@pytest.mark.parametrize(
    ("build", "visible", "count"),
    [("2.13.0", None, 2), ("2.13.0", "1", 1), ("2.13.0", "", 0), ("2.13.0", "0,1,2", 2), ("2.13.0+cpu", None, 0)],
)
def test_gpus_are_those_of_the_driver_that_torch_may_use(monkeypatch, build, visible, count):
    monkeypatch.setattr(machine, "_gpus", lambda: [{}, {}])
    monkeypatch.setattr(machine, "_version", lambda package: build)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpu_count() == count


def test_versions_are_those_that_importlib_reads_and_none_where_a_package_is_missing():
    expected = {}
    for package in machine.PACKAGES:
        try:
            expected[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            expected[package] = None
    assert describe_machine()["versions"] == expected
    assert expected["torch"]


def test_memory_is_what_psutil_reads():
    assert describe_machine()["memory_bytes"] == psutil.virtual_memory().total
    assert describe_machine()["memory_available_bytes"] == pytest.approx(psutil.virtual_memory().available, rel=0.2)
