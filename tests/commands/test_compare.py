"""`plumbline compare` of every study, from its records."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablation import trial_records as ablation
from data_parallel import some_records as data_parallel
from disaggregation import some_records as disaggregation
from lr_sweep import sweep_records as lr_sweep
from plumbline.cli import app
from plumbline.core.files import write_json
from sweep import some as sweep
from throughput import grid_records as throughput


def said(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])
    return done.exit_code, done.output


def write(records, folder: Path) -> Path:
    for number, record in enumerate(records):
        values = record if isinstance(record, dict) else record.to_json()
        write_json(folder / values["study"] / "trials" / f"{number}.json", values)
    return folder


def points(shift=0.0, seeds=5, failed=()):
    for x in (1, 2):
        for seed in range(seeds):
            outcome = "timeout" if (x, seed) in failed else "ok"
            noise = 0.01 * ((7 * seed + 3 * x) % 5)
            change = (shift + 0.001 * (seed % 3)) if x == 2 and shift else 0.0
            record = sweep.trial({"x": x}, seed, 0.5 + noise + change, outcome)
            yield record.to_json() | {"spec": {"metric": "score"}}


def goal(folder: Path, word: str) -> Path:
    write_json(folder / "sweep" / "s" / "best.json", {"metric": "score", "goal": word})
    return folder


MAKERS = (disaggregation.block, disaggregation.graphs_block, disaggregation.micro_block)


def blocks(folder: Path, edit=lambda record: None, first=0, makers=MAKERS) -> Path:
    """Four blocks of each workload. first: number of the block whose noise the first one has."""
    records = []
    for make in makers:
        for number in range(4):
            record = make(number + first).to_json() | {"block": number}
            record["trial"] = f"{record.get('workload', 'llm_decode')}-loopback-{number}"
            edit(record)
            records.append(record)
    return write(records, folder)


def arm(record, name):
    arms = record["contexts"][0]["arms"] if "contexts" in record else record["arms"]
    return next((one for one in arms if one["name"] == name), None)


STUDIES = {
    "ablation": [ablation.trial_record("factor", "all_layers", "spectral", 0.6)],
    "lr_sweep": lr_sweep.sweep(),
    "data_parallel": [data_parallel.trial(1), data_parallel.trial(2)],
    "disaggregation": [make(number) for make in MAKERS for number in (0, 1)],
    "sweep": list(points()),
    "throughput": [throughput.trial(warmup_steady=False), throughput.failed("timeout", "base", "static")],
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_folder_is_equal_to_itself(study, tmp_path):
    folder = write(STUDIES[study], tmp_path)
    status, text = said(folder, folder)
    assert status == 0
    assert re.search(r"\b(\d+) (trials|numbers|number)( in both)?: \1 equal\.", text), text
    assert said(folder / study, folder / study, "--study", study) == (status, text)


def test_every_study_that_both_folders_hold_is_compared(tmp_path):
    both = write([*STUDIES["sweep"], *STUDIES["data_parallel"]], tmp_path / "a")
    one = write(STUDIES["sweep"], tmp_path / "b")
    assert "data_parallel" in said(both, both)[1]
    assert "data_parallel" not in said(both, one)[1]


@pytest.mark.parametrize(
    ("word", "verdict", "status"), [("max", "better", 0), ("min", "worse", 1), (None, "different", 1)]
)
def test_the_point_that_changed_is_found_and_only_that(word, verdict, status, tmp_path):
    first, second = write(points(), tmp_path / "a"), write(points(shift=0.02), tmp_path / "b")
    if word:
        goal(second, word)
    found, text = said(first, second)
    assert found == status
    rows = [line.split() for line in text.splitlines() if line.startswith("s/x=")]
    assert [row[:3] for row in rows] == [["s/x=2", "score", verdict]]
    assert f"compared in 2 numbers: 1 {verdict}, 1 equal" in text


def test_a_threshold_above_the_change_makes_it_equal(tmp_path):
    first, second = write(points(), tmp_path / "a"), goal(write(points(shift=-0.02), tmp_path / "b"), "max")
    assert said(first, second)[0] == 1
    assert said(first, second, "--threshold", "0.2")[0] == 0


def test_a_trial_that_no_longer_succeeds_is_named_and_status_1(tmp_path):
    first, second = write(points(), tmp_path / "a"), write(points(failed=[(1, 3)]), tmp_path / "b")
    status, text = said(first, second)
    assert status == 1
    assert "Outcomes that changed: s/x=1/3 (ok → timed out)." in text
    assert said(second, first)[0] == 0


def test_one_run_each_is_inconclusive(tmp_path):
    worse = data_parallel.trial(2).to_json()
    worse["epochs"][-1]["validation_loss"] += 0.5
    first, second = write([data_parallel.trial(2)], tmp_path / "a"), write([worse], tmp_path / "b")
    status, text = said(first, second)
    assert "1 unknown, 1 equal" in text
    assert status == 0
    worse["translations"]["test"]["bleu"] += 1
    assert said(first, write([worse], tmp_path / "b"))[0] == 2


def test_trials_of_one_side_and_settings_that_differ_are_named(tmp_path):
    others = [record | {"spec": {"metric": "score", "files": "2b"}} for record in points(seeds=6)]
    text = said(write(points(), tmp_path / "a"), write(others, tmp_path / "b"))[1]
    (only,) = [line for line in text.splitlines() if line.startswith(f"Only in {tmp_path / 'b' / 'sweep'}: ")]
    assert sorted(only.rstrip(".").split(": ")[1].split(", ")) == ["s/x=1/5", "s/x=2/5"]
    assert "Settings differ in 10 of 10 trials: files of code" in text


def test_json_holds_every_number_and_no_nan(tmp_path):
    first = write(STUDIES["data_parallel"], tmp_path)
    values = json.loads(said(first, first, "--json", "--study", "data_parallel")[1])
    assert {change["measure"] for change in values["changes"]} == {"validation_loss", "test_bleu"}
    assert all(change["p_value"] is None for change in values["changes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study", "swep"], "'swep' cannot be compared; choose from"),
        (["--study", "lr_sweep"], "holds no trials of lr_sweep; name a results folder"),
        (["--study", "sweep", "--threshold", "-1"], "--threshold: -1 is below 0"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message, tmp_path):
    folder = write(STUDIES["sweep"], tmp_path)
    status, text = said(folder, folder, *arguments)
    assert (status, len(text.splitlines())) == (2, 1)
    assert message in text


def test_disaggregation_is_compared_by_times_over_local_bytes_and_the_cost_models_error(
    tmp_path,
):
    found = json.loads(said(blocks(tmp_path), tmp_path, "--json")[1])["changes"]
    values = {(one["unit"], one["measure"]): one["before"] for one in found}
    times = {
        unit.split()[-1]: value for (unit, measure), value in values.items() if "llm" in unit and "time" in measure
    }
    known = {name: value for name, value in disaggregation.TIMES.items() if name not in ("local", "control")}
    assert times == pytest.approx(known, rel=0.005)
    calls = {unit.split()[-1] for unit, _ in values if "vqa" in unit}
    assert calls == {name for name in disaggregation.CALLS if name not in ("local", "control", *PROBES)}
    assert values["llm_decode loopback 32 full", "bytes_per_token"] == 36.0 * disaggregation.TIMES["full"]
    assert values["multimodal_vqa loopback full", "bytes_per_call"] == 1000.0 * disaggregation.CALLS["full"]
    assert 0 < values["microbenchmark loopback", "cost_model_error"] < 0.05
    assert values["microbenchmark loopback", "cost_model_correlation"] > 0.99


PROBES = ("image", "text", "both_workers")


def test_other_noise_alone_makes_no_block_better_or_worse(tmp_path):
    status, text = said(blocks(tmp_path / "a"), blocks(tmp_path / "b", first=4))
    assert re.search(r"compared in \d+ numbers: \d+ unclear, \d+ equal\.", text), text
    assert status == 0


def slow(record):
    for one in record.get("arms", []):
        if one["name"] == "rpc":
            one["seconds"] = [1.1 * seconds for seconds in one["seconds"]]


def chatty(record):
    if "contexts" in record:
        arm(record, "full")["bytes_per_token"] += 4  # a stream, of which nothing is certain when no block differs
        arm(record, "no_stream")["bytes_per_token"] += 4


def unlike_the_model(record):
    for one in record.get("arms", []):
        if one["name"].startswith("matmul"):
            one["seconds"] = [2 * seconds for seconds in one["seconds"]]


@pytest.mark.parametrize(
    ("edit", "worse"),
    [
        (slow, {("multimodal_vqa loopback rpc", "time_over_local")}),
        (chatty, {("llm_decode loopback 32 no_stream", "bytes_per_token")}),
        (unlike_the_model, {("microbenchmark loopback", f"cost_model_{what}") for what in ("error", "correlation")}),
    ],
)
def test_a_variant_that_is_slower_or_sends_more_is_found_and_so_is_a_worse_cost_model(edit, worse, tmp_path):
    status, text = said(blocks(tmp_path / "a"), blocks(tmp_path / "b", edit, first=4), "--json")
    found = {(one["unit"], one["measure"]) for one in json.loads(text)["changes"] if one["verdict"] == "worse"}
    assert (found, status) == (worse, 1)


def without_ray(record):
    record["spec"]["baselines"] = ["rpc", "ray"]
    record["unavailable"] = {"ray": "not installed"}


def with_ray(record):
    record["spec"]["baselines"] = ["rpc", "ray"]


def test_a_baseline_that_no_longer_runs_is_named_and_status_1_but_not_one_that_was_not_asked_for(tmp_path):
    ran = blocks(tmp_path / "a", with_ray, makers=MAKERS[:2])
    gone = blocks(tmp_path / "b", without_ray, makers=MAKERS[:2])
    status, text = said(ran, gone)
    assert status == 1
    assert "Outcomes that changed: llm_decode-loopback-0 ray (ok → unavailable), " in text
    assert said(gone, ran)[0] == 0
    status, text = said(blocks(tmp_path / "c", makers=MAKERS[:2]), gone)
    assert (status, "Outcomes that changed" in text) == (0, False)


def test_other_machines_are_named_as_a_possible_reason(tmp_path):
    def elsewhere(record):
        record["machine"]["cpu_model"] = "another CPU"

    first = blocks(tmp_path / "a", makers=MAKERS[:2])
    text = said(first, blocks(tmp_path / "b", elsewhere, makers=MAKERS[:2]))[1]
    assert "Machines differ in 8 of 8 trials: a CPU, 2 cores → another CPU, 2 cores\n" in text
    assert "The machines differ, which may be why the numbers do." in text
    assert "The machines differ" not in said(first, first)[1]


def test_a_folder_that_is_not_there_is_named_before_any_study_is(tmp_path):
    folder = write(STUDIES["sweep"], tmp_path / "a")
    status, text = said(folder, tmp_path / "nothere")
    assert (status, text.count("\n")) == (2, 1)
    assert f"compare: {tmp_path}/nothere does not exist" in text
    assert "throughput" not in text
