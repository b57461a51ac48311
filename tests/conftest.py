"""One thread for every test: two beside a busy neighbour are many times slower than one, and have other bits.

Bytecode is kept, whatever the environment says: hundreds of processes would each compile the package again.
"""

import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

from plumbline.core.measure.machine import core_count

os.environ["OMP_NUM_THREADS"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs: what tests interrupt would too
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # how long an example takes says how busy the machine is
hypothesis.settings.load_profile("untimed")


def pytest_xdist_auto_num_workers() -> int:
    """A worker on each core that a control group's quota leaves; 8 at most, each of which takes a gigabyte."""
    return min(core_count(), 8)


@pytest.fixture(autouse=True)
def figures_are_closed() -> Iterator[None]:
    """No test sees a figure that another left open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole studies come first: they take longest, and what starts last should end soon."""
    items.sort(key=lambda item: "end_to_end" not in item.path.parts)
