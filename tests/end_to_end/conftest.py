import fcntl
import subprocess
from pathlib import Path

import pytest

from house import House, build


@pytest.fixture
def empty_house(tmp_path) -> House:
    """A house in which nothing was run yet."""
    return build(tmp_path / "house")


@pytest.fixture(scope="session")
def finished_house(tmp_path_factory, worker_id) -> House:
    """A house in which the whole tiny study was run, by the worker that needs it first. Not to be changed: take a
    `house`."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    with (shared / "finished.txt").open("a+") as place:
        fcntl.flock(place, fcntl.LOCK_EX)
        place.seek(0)
        if root := place.read():
            return House(Path(root))
        house = build(tmp_path_factory.mktemp("finished") / "house")
        house.snakemake()
        place.write(str(house.root))
        return house


@pytest.fixture
def house(finished_house, tmp_path) -> House:
    """A copy of the finished house, times and all."""
    subprocess.run(["cp", "-a", str(finished_house.root), str(tmp_path / "house")], check=True)
    return House(tmp_path / "house")
