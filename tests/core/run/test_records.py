import json
import math
from typing import Literal

import pytest
from pydantic import ValidationError

from plumbline.core.errors import UserError
from plumbline.core.plan.target import Spec
from plumbline.core.run.record import Number, Outcome, OutcomeError, Record, recording
from plumbline.core.run.records import machine_note, read_records, read_results, write_results

SPEC = Spec(code="0" * 16, inputs="1" * 16)


class DemoRecord(Record):
    study: Literal["demo"] = "demo"
    stage: Literal["train"] = "train"
    loss: Number | None = None
    seconds_a_step: float = 0.0


def write(path, trial, model=DemoRecord, **findings):
    with recording(path, model, trial=trial, spec=SPEC) as found:
        found |= findings


def test_records_come_back_as_their_model_with_non_finite_numbers(tmp_path):
    for trial, loss in (("a", 0.5), ("b", math.nan), ("c", -math.inf)):
        write(tmp_path / f"{trial}.json", trial, loss=loss)
    paths = [tmp_path / f"{trial}.json" for trial in "abc"]
    assert [json.loads(path.read_text())["loss"] for path in paths] == [0.5, "nan", "-inf"]
    read = read_records(DemoRecord, paths)
    assert [str(record.loss) for record in read] == ["0.5", "nan", "-inf"]


@pytest.mark.parametrize("seconds", [math.nan, math.inf])
def test_nan_in_a_plain_number_is_refused_when_written_and_leaves_no_record(tmp_path, seconds):
    with pytest.raises(ValidationError, match="seconds_a_step"):
        write(tmp_path / "a.json", "a", seconds_a_step=seconds)
    assert not (tmp_path / "a.json").exists()


def test_a_finding_that_the_model_does_not_know_leaves_no_record(tmp_path):
    with pytest.raises(ValidationError, match="lost"):
        write(tmp_path / "a.json", "a", lost=1.0)
    assert not (tmp_path / "a.json").exists()


def test_an_outcome_is_recorded_with_what_was_found_before(tmp_path):
    path = tmp_path / "a.json"
    with recording(path, DemoRecord, trial="a", spec=SPEC) as found:
        found["loss"] = 1.0
        raise OutcomeError(Outcome.DIVERGED, "loss above 10")
    record = DemoRecord.read(path)
    assert (record.outcome, record.message, record.loss, record.ok) == (Outcome.DIVERGED, "loss above 10", 1.0, False)


def test_a_trial_recorded_twice_is_named(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.json", "same")
    with pytest.raises(UserError, match=r"two\.json: trial same is recorded twice"):
        read_records(DemoRecord, [tmp_path / "one.json", tmp_path / "two.json"])


def test_no_record_says_what_to_run():
    with pytest.raises(UserError, match="demo: no record was given; run its trials first"):
        read_records(DemoRecord, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, r"not a record of schema 1"),
        ({"study": "other"}, r"study is 'other', not 'demo'"),
        ({"loss": "high"}, r"loss"),
        ({"outcome": None}, r"outcome"),
    ],
)
def test_a_file_that_is_no_such_record_is_refused_with_the_field_and_the_fix(tmp_path, change, message):
    path = tmp_path / "a.json"
    write(path, "a")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"a\.json.*{message}.*delete it to have it rebuilt"):
        DemoRecord.read(path)


def test_merged_records_are_read_back_the_same(tmp_path):
    write(tmp_path / "a.json", "a", loss=0.25)
    records = read_records(DemoRecord, [tmp_path / "a.json"])
    write_results(tmp_path / "results.json", records, analysis={"best": "a"})
    read, merged = read_results(tmp_path / "results.json", DemoRecord)
    assert read == records
    assert merged["analysis"] == {"best": "a"}


def test_machines_are_named_only_where_they_differ():
    assert machine_note(["X, 2 cores"] * 3) == ""
    text = machine_note(["X, 2 cores", "Y, 8 cores", "X, 2 cores"], "seconds")
    assert text == (
        "The trials ran on different machines (X, 2 cores: 2 trials; Y, 8 cores: 1 trial),"
        " so their seconds are not comparable."
    )
