import os
import resource
import subprocess
import sys

import pytest

TAKE = "from plumbline.core.measure.priority import take_priority; print(take_priority())"


def niceness(before: str = "") -> int:
    """What a process of its own takes after `before`."""
    code = f"import os, resource; import plumbline.core.measure.priority; {before}\n{TAKE}"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def may_take_any() -> bool:
    return subprocess.run(["nice", "-n", "-20", "nice"], capture_output=True, text=True).stdout.strip() == "-20"


@pytest.mark.skipif(not may_take_any(), reason="only root may take any priority, and not in every container")
def test_root_takes_the_highest_priority_and_its_children_have_it() -> None:
    child = "import subprocess; print(subprocess.run(['nice'], capture_output=True, text=True).stdout.strip())"
    code = f"{TAKE}\n{child}"
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert lines == ["-20", "-20"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("limit", [0, 25])
def test_another_user_takes_what_the_limit_allows(limit: int) -> None:
    if limit > resource.getrlimit(resource.RLIMIT_NICE)[1]:
        pytest.skip("a higher limit than this process has is not for every root to set")
    before = f"resource.setrlimit(resource.RLIMIT_NICE, ({limit}, {limit})); os.setuid(65534)"
    assert niceness(before) == min(20 - limit, 0)


def test_a_priority_that_is_as_high_as_allowed_stays() -> None:
    assert niceness() <= os.getpriority(os.PRIO_PROCESS, 0)
