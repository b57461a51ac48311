"""One thread for every test: two beside a busy neighbour are many times slower than one, and have other bits."""

import os
import sys
from collections.abc import Iterator

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def figures_are_closed() -> Iterator[None]:
    """No test sees a figure that another left open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole studies come first: they take longest, and what starts last should end soon."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)
