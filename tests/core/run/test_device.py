import pytest
import torch

from plumbline.core.errors import UserError
from plumbline.core.run.device import torch_device


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("value", "threads"), [("3", 3), ("2,4", 2), (None, 1)])
def test_stage_computes_on_as_many_threads_as_openmp_is_told_and_on_one_untold(monkeypatch, value, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert torch_device("cpu") == torch.device("cpu")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("value", ["many", "0", "-1", ""])
def test_what_is_no_number_of_threads_is_refused_by_its_name(monkeypatch, value):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    with pytest.raises(UserError, match=f"OMP_NUM_THREADS: '{value}' is not a number of threads"):
        torch_device("cpu")
