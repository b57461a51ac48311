"""Faults of the machine: what was finished stays, what failed says so, and the next start goes on."""

import copy
import json
import re
import subprocess

import pytest

from house import TINY

OWN = """
import os, pathlib, signal
import numpy as np

def peak(stack):
    if pathlib.Path("die").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return np.abs(stack).max(axis=(-2, -1))[..., None]
"""


def test_killed_worker_stops_only_what_needs_it_and_the_next_start_goes_on(house):
    (house.root / "lab.py").write_text(OWN)
    (house.root / "die").touch()
    settings = copy.deepcopy(TINY)
    settings["ablation"]["representations"]["factor"] += ["lab:peak", "stats"]
    house.configure(settings)
    said = house.snakemake(succeeds=False)
    failed = r"FAILED ablation_features factor/peak: .*; results/ablation/logs/features/factor/peak.log"
    assert re.search(rf"^\d\d:\d\d:\d\d {failed}$", said, re.M)
    assert re.search(
        r"^1 job failed, and \d+ jobs did not start:\n  ablation_features factor/peak: ", said, re.MULTILINE
    )
    assert "start the same command again" in said
    trials = house.study / "trials" / "factor" / "all_layers"
    assert (trials / "stats.json").exists()
    assert not (trials / "peak.json").exists()
    assert "missing ablation/features/factor/peak: interrupted" in house.plumbline(
        "status", "--configfile", "tiny.yaml"
    )
    (house.root / "die").unlink()
    house.snakemake()
    record = json.loads((trials / "peak.json").read_text())
    assert record["outcome"] == "ok"
    assert record["feature_width"] == 8


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB. Mounting takes root, which a container or a CI machine gives."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_is_one_line_and_loses_nothing(finished_house, tmp_path, small_disk):
    subprocess.run(["cp", "-a", finished_house.root, tmp_path / "house"], check=True)
    house = type(finished_house)(tmp_path / "house")
    features = house.study / "features"
    kept = (features / "factor" / "spectral.safetensors").read_bytes()
    subprocess.run(["cp", "-a", features / "product", small_disk], check=True)
    subprocess.run(["rm", "-r", features / "product"], check=True)
    (features / "product").symlink_to(small_disk / "product")
    (features / "product" / "flat.safetensors").unlink()
    filler = small_disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k", "status=none"], check=False)
    target = "results/ablation/features/product/flat.safetensors"
    text = house.snakemake(target, "--force", succeeds=False)
    assert "flat.safetensors: no space left on the device; free some and run again" in text
    assert (features / "factor" / "spectral.safetensors").read_bytes() == kept
    filler.unlink()
    house.snakemake()
    assert "Nothing to be done" in house.snakemake()
