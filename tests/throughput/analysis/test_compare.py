import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import plumbline
from plumbline.cli import app
from plumbline.core.errors import UserError
from plumbline.throughput.analysis.compare import compare, exit_status
from plumbline.throughput.record import TrialRecord
from throughput.grid_records import failed, grid, timed_batch, trial, write

CONFIG = {"dtype": "float32", "attention": "sdpa", "threads": 2, "compile": False}


def results(records: list[TrialRecord], folder: Path, below: str = ".") -> Path:
    write(records, folder / below / "trials")
    return folder


def said(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compare", *(str(argument) for argument in arguments)])
    return done.exit_code, done.output


def test_same_folder_twice_is_equal(tmp_path: Path) -> None:
    folder = results(grid(), tmp_path)
    status, text = said(folder, folder)
    assert status == 0
    assert "28 trials in both: 28 equal." in text
    assert "The batches of 28 trials of 28 are the same on both sides." in text


def test_a_wide_interval_and_a_busy_machine_make_no_difference_between_a_record_and_its_copy(tmp_path: Path) -> None:
    wide = [timed_batch(0.01 * (1 + number), 32) for number in range(3)]
    records = [trial(batches=wide), trial(batch=8, warmup_steady=False), trial(batch=64, batches=wide[:1])]
    folder = results([*records, failed("timeout", "base", "static")], tmp_path / "a")
    copied = results([trial(batches=wide, seed=1)], tmp_path / "b")
    comparison = compare(folder, folder, 0.0)
    assert {name: count for name, count in comparison["counts"].items() if count} == {"equal": 4}
    assert {(pair["ratio"], pair["low"], pair["high"]) for pair in comparison["trials"]} == {(1, 1, 1), (None,) * 3}
    assert compare(folder, copied, 0.0)["counts"]["equal"] == 1
    others = results([trial(batches=[*wide[:2], wide[0]])], tmp_path / "c")
    assert compare(folder, others, 0.0)["counts"]["unclear"] == 1


def test_one_trial_slower_by_a_tenth_is_found_and_only_that(tmp_path: Path) -> None:
    changed = [trial(batch=8, seed=1, slower=1.1) if r.trial == "base/lean/b8-p4-g32" else r for r in grid(seed=1)]
    first, second = results(grid(), tmp_path / "a"), results(changed, tmp_path / "b")
    comparison = compare(first, second, 0.03)
    assert {name: count for name, count in comparison["counts"].items() if count} == {"slower": 1, "equal": 27}
    worst = comparison["trials"][0]
    assert (worst["trial"], worst["direction"]) == ("base/lean/b8-p4-g32", "slower")
    assert worst["ratio"] == pytest.approx(1 / 1.1, rel=0.01)
    assert worst["low"] < worst["ratio"] < worst["high"] < 1 / 1.03
    status, text = said(first, second)
    assert status == 1
    assert "base/lean/b8-p4-g32" in text
    assert "base/lean/b1-p4-g32" not in text


def test_faster_trial_is_found_and_is_not_a_failure(tmp_path: Path) -> None:
    first, second = results([trial(slower=1.1)], tmp_path / "a"), results([trial()], tmp_path / "b")
    assert compare(first, second, 0.03)["counts"]["faster"] == 1
    assert said(first, second)[0] == 0


def test_noise_alone_is_no_difference(tmp_path: Path) -> None:
    first = results(grid(), tmp_path / "a")
    for seed in range(1, 4):
        second = results(grid(seed=seed), tmp_path / f"b{seed}")
        assert compare(first, second, 0.03)["counts"]["equal"] == 28


def test_threshold_decides_what_a_difference_is(tmp_path: Path) -> None:
    first, second = results([trial()], tmp_path / "a"), results([trial(slower=1.1)], tmp_path / "b")
    assert said(first, second, "--threshold", "0.2")[0] == 0
    assert said(first, second, "--threshold", "0.05")[0] == 1
    assert said(first, second, "--threshold", "-1")[0] == 2


@pytest.mark.parametrize(
    ("before", "after", "direction", "status"),
    [
        (trial(), failed("out_of_memory"), "slower", 1),
        (failed("out_of_memory"), trial(), "faster", 0),
        (failed("timeout"), failed("invalid_output"), "changed", 0),
        (failed("timeout"), failed("timeout"), "equal", 0),
    ],
)
def test_changed_outcome_is_a_difference(
    tmp_path: Path, before: TrialRecord, after: TrialRecord, direction: str, status: int
) -> None:
    rest = trial(batch=8)
    first, second = results([before, rest], tmp_path / "a"), results([after, rest], tmp_path / "b")
    comparison = compare(first, second, 0.03)
    pair = next(pair for pair in comparison["trials"] if pair["trial"] == "base/lean/b1-p4-g32")
    assert pair["direction"] == direction
    assert pair["notes"] == ([f"{before.outcome} → {after.outcome}"] if direction != "equal" else [])
    assert exit_status(comparison) == said(first, second)[0] == status


def test_worktrees_and_results_folders_are_both_found(tmp_path: Path) -> None:
    one = results([trial()], tmp_path / "worktree", "results/throughput")
    two = results([trial()], tmp_path / "results", "throughput")
    three = results([trial()], tmp_path / "study")
    assert {said(first, second)[0] for first in (one, two, three) for second in (one, two, three)} == {0}


def test_unshared_trials_settings_machines_and_configs_are_reported(tmp_path: Path) -> None:
    other = trial(cpu="EPYC", tokens_sha256="other", engine_config=CONFIG | {"threads": 1})
    other.spec.update(seed=7, code="changed")
    other.spec["timing"] = {"seconds": 2.0}
    other.machine["versions"] = {"torch": "2.14"}
    first, second = (
        results([trial(), trial(batch=2)], tmp_path / "a"),
        results([other, trial(batch=3)], tmp_path / "b"),
    )
    comparison = compare(first, second, 0.03)
    assert comparison["only_in_first"] == ["base/lean/b2-p4-g32"]
    assert comparison["only_in_second"] == ["base/lean/b3-p4-g32"]
    assert comparison["settings"] == {"seed: 0 → 7": 1, "timing.seconds: 0.6 → 2.0": 1, "code": 1}
    assert comparison["machines"] == {"Xeon, 2 cores → EPYC, 2 cores": 1, 'torch: "2.13" → "2.14"': 1}
    assert comparison["trials"][0]["notes"] == ["threads 2 → 1", "other tokens"]
    assert "The machines differ" in said(first, second)[1]


def test_trial_that_reached_no_device_is_not_on_another_machine(tmp_path: Path) -> None:
    first = results([trial(device="NVIDIA H100"), trial(batch=8)], tmp_path / "a")
    second = results([failed(device=None), trial(batch=8)], tmp_path / "b")
    assert compare(first, second, 0.03)["machines"] == {}


def test_noisy_pair_gets_no_verdict_and_is_marked(tmp_path: Path) -> None:
    first = results([trial(), trial(batch=8)], tmp_path / "a")
    second = results([trial(slower=2.0, drifted=True, warmup_steady=False), trial(batch=8)], tmp_path / "b")
    comparison = compare(first, second, 0.03)
    (pair,) = (pair for pair in comparison["trials"] if pair["noisy"])
    assert (pair["trial"], pair["direction"]) == ("base/lean/b1-p4-g32", "unclear")
    assert pair["notes"] == ["noisy after"]
    status, text = said(first, second)
    assert status == 0
    assert "1 of 2 trials are noisy, before or after" in text
    alone = results([trial(slower=2.0, drifted=True)], tmp_path / "c")
    assert said(first, alone)[0] == 2


def test_timeout_of_a_busy_machine_is_no_verdict(tmp_path: Path) -> None:
    late = failed("timeout")
    late.machine["cpu_pressure_some_avg10_percent"] = 90.0
    first, second = results([trial()], tmp_path / "a"), results([late], tmp_path / "b")
    assert compare(first, second, 0.03)["trials"][0]["direction"] == "unclear"
    assert said(first, second)[0] == 2


def test_another_model_is_reported_first_and_not_compared(tmp_path: Path) -> None:
    first = results([trial(batch=2), trial()], tmp_path / "a")
    larger = trial(slower=9.0, decode_step_flops=1e9, reference_sha256="other")
    second = results([larger, trial(batch=2)], tmp_path / "b")
    assert compare(first, second, 0.03)["counts"]["other model"] == 1
    status, text = said(first, second)
    assert status == 0
    assert text.splitlines()[1] == "1 of 2 trials use a different model and are not compared."
    for other in (larger, trial(model="large"), failed(model="large")):
        assert said(first, results([other], tmp_path / other.model / other.outcome))[0] == 2


def test_retrained_weights_are_reported_first_and_compared(tmp_path: Path) -> None:
    first = results([trial()], tmp_path / "a")
    second = results([trial(slower=2.0, reference_sha256="retrained")], tmp_path / "b")
    status, text = said(first, second)
    assert status == 1
    assert text.splitlines()[1].startswith("1 of 1 trials use retrained weights of the same shapes")
    counted_otherwise = results([trial(slower=2.0, decode_step_flops=1e9)], tmp_path / "c")
    assert said(first, counted_otherwise)[0] == 1


def test_narrow_terminal_cuts_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    changed = trial(
        slower=2.0,
        tokens_sha256="other",
        engine_config=CONFIG | {"dtype": "bfloat16", "attention": "eager", "threads": 1},
    )
    first, second = results([trial()], tmp_path / "a"), results([changed], tmp_path / "b")
    row = next(line for line in said(first, second)[1].splitlines() if line.startswith("base/lean/b1-p4-g32"))
    assert len(row) > 120
    assert row.rstrip().endswith("dtype float32 → bfloat16; attention sdpa → eager; threads 2 → 1; other tokens")
    assert "…" not in row


def test_settings_that_differ_in_equally_many_trials_share_a_line(tmp_path: Path) -> None:
    other = trial()
    other.spec.update(code="d", inputs="j")
    text = said(results([trial()], tmp_path / "a"), results([other], tmp_path / "b"))[1]
    assert text.count("Settings differ in 1 of 1 trials:") == 1
    assert "Settings differ in 1 of 1 trials: code; what it reads" in text


def test_json_holds_the_comparison(tmp_path: Path) -> None:
    folder = results(grid()[:3], tmp_path)
    status, text = said(folder, folder, "--json")
    assert (status, json.loads(text)["counts"]["equal"]) == (0, 3)


def test_single_batches_are_inconclusive(tmp_path: Path) -> None:
    first, second = (
        results([trial(batches=trial().batches[:1])], tmp_path / "a"),
        results([trial(slower=2)], tmp_path / "b"),
    )
    assert said(first, second)[0] == 2
    assert "1 unknown" in said(first, second)[1]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([trial()], None, "does not exist"),
        ([trial()], [], "holds no trials of throughput"),
        ([trial()], [trial(batch=8)], "no trial of .* is also in"),
        ([failed()], [failed()], "none of the 1 trials in both folders succeeded"),
    ],
)
def test_nothing_to_compare_is_one_line_and_status_2(
    tmp_path: Path, first: list[Any], second: list[Any] | None, message: str
) -> None:
    one, two = results(first, tmp_path / "a"), tmp_path / "b"
    if second is not None:
        two.mkdir()
        write(second, two / "trials")
    with pytest.raises(UserError, match=message):
        compare(one, two, 0.03)
    status, text = said(one, two)
    assert status == 2
    assert text.startswith("plumbline: ")
    assert len(text.splitlines()) == 1


def test_comparing_imports_neither_torch_nor_pandas() -> None:
    program = "import sys; import plumbline.cli, plumbline.throughput.analysis.compare; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(plumbline.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert {"torch", "pandas", "scipy", "transformers", "matplotlib"}.isdisjoint(done.stdout.split())
