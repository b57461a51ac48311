import subprocess

import pytest

from house import House, build


@pytest.fixture
def empty_house(tmp_path) -> House:
    """A house in which nothing was run yet."""
    return build(tmp_path / "house")


@pytest.fixture(scope="session")
def finished_house(tmp_path_factory) -> House:
    """A house in which the whole tiny study was run. Not to be changed: take a `house`."""
    house = build(tmp_path_factory.mktemp("finished") / "house")
    house.snakemake()
    return house


@pytest.fixture
def house(finished_house, tmp_path) -> House:
    """A copy of the finished house, times and all."""
    subprocess.run(["cp", "-a", str(finished_house.root), str(tmp_path / "house")], check=True)
    return House(tmp_path / "house")
