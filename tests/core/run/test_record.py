from typing import Literal

import pytest

from plumbline.core.errors import UserError
from plumbline.core.plan.target import Spec
from plumbline.core.run.record import Outcome, OutcomeError, Record, read_record, recording

SPEC = Spec(code="1a", inputs="2b")


class DemoRecord(Record):
    study: Literal["demo"] = "demo"
    stage: Literal["train"] = "train"
    runs: list[int] = []


def record(path):
    return recording(path, DemoRecord, trial="t", spec=SPEC)


def test_record_carries_spec_machine_and_findings(tmp_path):
    with record(tmp_path / "t.json") as findings:
        findings["runs"] = [1, 2]
    read = read_record(tmp_path / "t.json")
    assert read["outcome"] == "ok"
    assert read["spec"] == {"code": "1a", "inputs": "2b"}
    assert read["runs"] == [1, 2]
    assert read["machine"]["cores"] >= 1
    assert read["machine"]["versions"]["torch"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OutcomeError(Outcome.DIVERGED, "loss is NaN"), "diverged"),
        (MemoryError("9 GB"), "out_of_memory"),
    ],
)
def test_what_a_trial_finds_is_recorded(tmp_path, error, outcome):
    with record(tmp_path / "t.json"):
        raise error
    read = read_record(tmp_path / "t.json")
    assert (read["outcome"], read["message"]) == (outcome, str(error))


def test_a_fault_leaves_no_record(tmp_path):
    with pytest.raises(ZeroDivisionError), record(tmp_path / "t.json"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_other_json_is_no_record(tmp_path):
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(UserError, match="is not a record"):
        read_record(tmp_path / "t.json")
