"""Every study says what its trials' rows begin with, whatever a trial found."""

import json
from statistics import fmean, median

import pytest

from ablation import trial_records as ablation
from data_parallel import some_records as data_parallel
from disaggregation import some_records as disaggregation
from lr_sweep import sweep_records as lr_sweep
from plumbline import config as configuration
from plumbline.commands.show import read_trials
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
    return [trial.headline for trial in read_trials(folder, study)]


@pytest.mark.parametrize("study", configuration.STUDIES)
def test_a_trial_that_found_nothing_has_a_row_that_says_so(study, tmp_path):
    good, bad = rows(study, tmp_path)
    assert (good["outcome"], bad["outcome"]) == ("ok", RECORDS[study][1]["outcome"])
    assert all(
        value is None or isinstance(value, bool | int | float | str) for value in [*good.values(), *bad.values()]
    )
    assert sum(value is not None for value in good.values()) > sum(value is not None for value in bad.values())


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
    (trial,) = read_trials(tmp_path, "disaggregation")
    expected = {f"{arm['name']}_ms": pytest.approx(1000 * median(arm["seconds"])) for arm in record["arms"]}
    assert {name: trial.headline[name] for name in expected} == expected


def test_a_block_shows_the_median_milliseconds_of_a_token(tmp_path):
    context = RECORDS["disaggregation"][0]["contexts"][0]
    arm = context["arms"][0]
    row = rows("disaggregation", tmp_path)[0]
    assert row[f"{arm['name']}_{context['context']}_ms"] == pytest.approx(1000 * median(arm["seconds"]))
