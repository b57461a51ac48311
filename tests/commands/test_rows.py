"""Every study says what its trials' rows begin with, whatever a trial found."""

import json
from statistics import fmean, median

import pytest

from ablation import trial_records as ablation
from data_parallel import some_records as data_parallel
from disaggregation import some_records as disaggregation
from lr_sweep import sweep_records as lr_sweep
from plumbline import config as configuration
from plumbline.commands.show import as_texts, columns_of, essential, read_rows, table_lines, that_fit
from plumbline.core.files import write_json
from plumbline.data_parallel.analysis.frames import epochs_frame, trials_frame
from plumbline.data_parallel.record import TrialRecord
from sweep import some as sweep
from throughput import grid_records as throughput

OOM = {"outcome": "out_of_memory", "message": "asked for 9 GB"}
TRANSLATOR = {"trial": "ddp-strong-2", "spec": {}, "method": "ddp", "scaling": "strong", "world": 2, "batch": 4}
RECORDS = {
    "ablation": [
        ablation.trial_record("factor", "all_layers", "spectral", 0.6),
        ablation.trial_record("factor", "all_layers", "flat", 0.6) | OOM | {"runs": []},
    ],
    "lr_sweep": [lr_sweep.trial(0.01, 0).to_json(), lr_sweep.unfinished(0.1, 0).to_json()],
    "throughput": [throughput.trial().to_json(), throughput.failed().to_json()],
    "data_parallel": [
        data_parallel.trial(2).to_json(),
        TrialRecord(**(data_parallel.HEAD | TRANSLATOR | OOM)).to_json(),
    ],
    "disaggregation": [
        disaggregation.block(0).to_json(),
        disaggregation.block(1, outcome="unavailable", message="no tc", contexts=[]).to_json(),
    ],
    "sweep": [sweep.trial({"x": 1}, 0, 0.5).to_json(), sweep.trial({"x": 1}, 1, 0.5, outcome="timeout").to_json()],
}


def rows(study, folder):
    for number, record in enumerate(RECORDS[study]):
        write_json(folder / "trials" / f"{number}.json", record)
    found = read_rows(folder, study)
    return [row.keys | row.found | {"outcome": row.values["outcome"]} for row in found]


@pytest.mark.parametrize("study", configuration.STUDIES)
def test_a_trial_that_found_nothing_has_a_row_that_says_so(study, tmp_path):
    good, bad = rows(study, tmp_path)
    assert (good["outcome"], bad["outcome"]) == ("ok", RECORDS[study][1]["outcome"])
    assert all(
        value is None or isinstance(value, bool | int | float | str) for value in [*good.values(), *bad.values()]
    )
    assert sum(value is not None for value in good.values()) > sum(value is not None for value in bad.values())


@pytest.mark.parametrize("study", configuration.STUDIES)
@pytest.mark.parametrize("width", [120, 80])
def test_the_table_of_every_study_fits_and_keeps_its_keys_and_first_answer(study, width, tmp_path):
    rows(study, tmp_path)
    found = read_rows(tmp_path, study)
    table = that_fit(as_texts(columns_of(found, None, is_full=False), found), essential(found), width)
    assert max(map(len, table_lines(table))) <= width
    names = [column.name for column in table]
    assert set(found[0].keys) <= set(names)
    assert next(iter(found[0].found)) in names


def test_accuracies_are_means_over_the_runs_of_each_classifier(tmp_path):
    record = json.loads(json.dumps(RECORDS["ablation"][0]))
    runs = [run for run in record["runs"] if run["classifier"] == record["runs"][0]["classifier"]]
    row = rows("ablation", tmp_path)[0]
    expected = fmean(run["test"]["accuracy"] for run in runs if run["outcome"] == "ok")
    assert row[f"{runs[0]['classifier']}_accuracy"] == pytest.approx(expected)


def test_rate_of_ranks_is_the_one_that_the_study_prints(tmp_path):
    records = [data_parallel.trial(2)]
    expected = trials_frame(records, epochs_frame(records))["tokens_per_second_mean"].iloc[0]
    assert rows("data_parallel", tmp_path)[0]["tokens_per_second"] == pytest.approx(expected)


def test_a_block_of_graphs_shows_the_median_milliseconds_of_a_call(tmp_path):
    record = disaggregation.graphs_block(0).to_json()
    write_json(tmp_path / "trials" / "block-0" / "a.json", record)
    (row,) = read_rows(tmp_path, "disaggregation")
    assert row.keys == {"workload": record["workload"], "link": "loopback", "block": 0, "context": None}
    expected = {f"{arm['name']}_ms": pytest.approx(1000 * median(arm["seconds"])) for arm in record["arms"]}
    assert {name: row.values[name] for name in expected} == expected


def test_the_micro_workload_shows_all_its_programs_together_and_each_when_asked(tmp_path):
    record = disaggregation.graphs_block(0).to_json() | {"workload": "microbenchmark"}
    arms = {"norm_32x1/local": [0.001, 0.003], "norm_32x16/local": [0.01, 0.03], "round_trip": [0.0001, 0.0003]}
    record["arms"] = [record["arms"][0] | {"name": name, "seconds": seconds} for name, seconds in arms.items()]
    write_json(tmp_path / "trials" / "block-0" / "a.json", record)
    (row,) = read_rows(tmp_path, "disaggregation")
    assert row.found == {"local_ms": pytest.approx(2 + 20)}
    assert row.values["norm_32x16/local_ms"] == pytest.approx(20)
    assert row.values["round_trip_ms"] == pytest.approx(0.2)


def test_a_block_of_decoding_is_a_row_for_each_context(tmp_path):
    record = RECORDS["disaggregation"][0]
    write_json(tmp_path / "trials" / "0.json", record)
    found = read_rows(tmp_path, "disaggregation")
    assert [row.keys["context"] for row in found] == [one["context"] for one in record["contexts"]]
    assert {row.keys["workload"] for row in found} == {"llm_decode"}
    for row, context in zip(found, record["contexts"], strict=True):
        for arm in context["arms"]:
            assert row.values[f"{arm['name']}_ms"] == pytest.approx(1000 * median(arm["seconds"]))
