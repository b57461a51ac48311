import json
from typing import Any

import pytest

from plumbline.core.measure.interleave import MIN_PROCESSES, MIN_ROUNDS
from plumbline.throughput.analysis.speedups import rivals, speedups_frame
from plumbline.throughput.comparison import ComparisonSpec, comparison
from plumbline.throughput.grid import Cell, cells, contests
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.plan import plan
from plumbline.throughput.record import ComparisonRecord
from plumbline.throughput.settings import ThroughputSettings
from throughput import grid_records, trials

WRONG = "throughput.wrong_engines"
CONFIG = {"dtype": "float32", "attention": "sdpa", "threads": 1, "compile": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return trials.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(made, tmp_path):
    """Runs a comparison of the tiny model and returns its record. Every variant has the same weights."""

    def run(question: str, *others: dict[str, Any], configs: Any = None, outcomes: Any = None, **changes: Any):
        baseline = {"engine": others[0].get("engine", "lean")} if question == "variants" else {}
        spec = trials.comparison_spec(question, baseline, *others, **changes)
        compared = [Cell(**cell) for cell in (spec["baseline"], *spec["others"])]
        records = []
        for number, cell in enumerate(compared):
            head = {"trial": cell.trial, **cell._asdict()}
            if outcome := (outcomes or {}).get(number):
                records.append(grid_records.failed(outcome).model_copy(update=head))
            else:
                config = EngineConfig(**CONFIG | (configs or {}).get(number, {}))
                records.append(grid_records.trial().model_copy(update=head | {"engine_config": config}))
        manifest = json.loads(made["manifest"].read_text())
        variants = list(dict.fromkeys(cell.variant for cell in compared))
        paths = [tmp_path / f"{variant}.json" for variant in variants]
        for path, variant in zip(paths, variants, strict=True):
            path.write_text(json.dumps(manifest | {"variant": variant}))
        comparison(
            ComparisonSpec(**spec),
            manifests=paths,
            references=[made["reference"]] * len(variants),
            text=made["text"],
            trials=grid_records.write(records, tmp_path / "trials"),
            output=tmp_path / "comparison.json",
        )
        return ComparisonRecord.read(tmp_path / "comparison.json")

    return run


def test_an_engine_that_does_everything_twice_is_slower_and_the_baseline_ran_twice_a_round(run) -> None:
    record = run("engines", {"engine": f"{WRONG}:Twice"}, comparison={"seconds": 2.0, "precision": 0.5})
    assert (record.outcome, record.baseline) == ("ok", "lean")
    (rounds,) = record.rounds
    assert rounds.arrangement == "together"
    assert rounds.names == ["lean", "control", "Twice"]
    assert len(rounds.seconds) == len(rounds.orders) == len(rounds.processes) >= MIN_ROUNDS
    assert len(set(rounds.processes)) >= MIN_PROCESSES
    assert {tuple(sorted(order)) for order in rounds.orders} == {(0, 1, 2)}
    (row,) = speedups_frame([record]).to_dict("records")
    assert row["ratio"] < 0.8
    assert rivals(record, "lean") == []


def test_every_candidates_tokens_are_checked_and_recorded(run) -> None:
    record = run("engines", {"engine": f"{WRONG}:Twice"})
    assert {each.tokens_sha256 for each in record.candidates} == {record.candidates[0].tokens_sha256}
    assert [each.rows_equal for each in record.candidates] == [2, 2]


@pytest.mark.parametrize("engine", ["WrongToken", "WrongLater"])
def test_a_candidate_with_wrong_tokens_is_left_out_whenever_they_come(run, engine: str) -> None:
    record = run("engines", {"engine": f"{WRONG}:Twice"}, {"engine": f"{WRONG}:{engine}"})
    assert record.outcome == "ok"
    assert [each.name for each in record.candidates] == ["lean", "Twice"]
    (lost,) = record.left_out
    assert (lost.name, lost.outcome) == (engine, "invalid_output")
    assert "instead of" in lost.message
    assert record.rounds[0].names == ["lean", "control", "Twice"]


def test_a_candidate_whose_trial_has_no_speed_is_left_out_and_named(run) -> None:
    record = run("variants", {"variant": "a"}, {"variant": "b"}, outcomes={2: "out_of_memory"})
    assert [each.name for each in record.candidates] == ["base", "a"]
    assert [(each.name, each.outcome) for each in record.left_out] == [("b", "out_of_memory")]
    assert "3 GB were free" in record.left_out[0].message


@pytest.mark.parametrize(("lost", "said"), [(0, "the baseline base/lean/"), (1, "no candidate has a speed")])
def test_with_fewer_than_two_candidates_there_is_no_comparison(run, lost: int, said: str) -> None:
    record = run("variants", {"variant": "a"}, outcomes={lost: "timeout"})
    assert record.outcome == "unavailable"
    assert said in record.message
    assert record.rounds == []


def test_a_baseline_with_wrong_tokens_ends_the_comparison(run) -> None:
    record = run("variants", {"variant": "a", "engine": f"{WRONG}:WrongToken"})
    assert record.outcome == "invalid_output"
    assert record.message.startswith("the baseline base: row 1, token 2")


@pytest.mark.parametrize(("engine", "arrangement"), [("TwoAtATime", "pairs"), ("OneAtATime", "reloads")])
def test_candidates_that_do_not_fit_side_by_side_are_compared_with_the_baseline_alone(
    run, engine: str, arrangement: str
) -> None:
    others = [{"variant": name, "engine": f"{WRONG}:{engine}"} for name in ("a", "b")]
    record = run("variants", *others)
    assert record.outcome == "ok"
    assert [part.arrangement for part in record.rounds] == [arrangement] * 2
    assert [part.names for part in record.rounds] == [["base", "control", name] for name in ("a", "b")]
    assert list(speedups_frame([record])["candidate"]) == ["a", "b"]
    assert set(rivals(record, "a")) <= {"base", "b"}


def test_a_candidate_that_does_not_even_fit_alone_is_left_out(run) -> None:
    record = run("engines", {"engine": f"{WRONG}:Twice"}, {"engine": f"{WRONG}:Huge"})
    assert record.outcome == "ok"
    assert [part.names for part in record.rounds] == [["lean", "control", "Twice"]]
    assert [(each.name, each.outcome, each.message) for each in record.left_out] == [("Huge", "out_of_memory", "full")]


def test_variants_compute_as_the_base_and_engines_in_their_own_way_with_its_threads(run) -> None:
    configs = {0: {"threads": 2, "attention": "eager"}, 1: {"threads": 1, "attention": "sdpa"}}
    record = run("variants", {"variant": "a"}, configs=configs)
    assert [(each.engine_config.threads, each.engine_config.attention) for each in record.candidates] == [
        (2, "eager"),
        (2, "eager"),
    ]
    record = run("engines", {"engine": f"{WRONG}:Twice"}, configs=configs)
    assert [(each.engine_config.threads, each.engine_config.attention) for each in record.candidates] == [
        (2, "eager"),
        (2, "sdpa"),
    ]


def test_a_comparison_that_takes_too_long_is_a_timeout(run) -> None:
    timing = trials.TIMING | {"timeout_seconds": 1.0}
    record = run("variants", {"variant": "a", "engine": f"{WRONG}:Sleeps"}, timing=timing)
    assert record.outcome == "timeout"


def targets(**changes: Any) -> dict[str, Any]:
    settings = ThroughputSettings.model_validate({"model": {"source": "config"}, **changes})
    return {target.path: target for target in plan(settings, 0, {}, "cpu")}


def test_default_compares_variants_at_every_batch_and_engines_with_the_base() -> None:
    found = [path for path in targets() if path.startswith("comparison/")]
    assert found == [
        "comparison/variants/lean/b1-p4-g32",
        "comparison/variants/lean/b64-p4-g32",
        "comparison/engines/base/b1-p4-g32",
    ]
    found = targets()["comparison/engines/base/b1-p4-g32"]
    spec = json.loads(found.spec)
    assert spec["baseline"]["engine"] == "generate"
    assert ComparisonSpec.model_validate(spec).model_dump(mode="json") == spec
    assert found.is_trial


def test_a_grid_without_the_base_or_with_one_engine_has_nothing_to_compare() -> None:
    alone = [{"batch": [1, 8], "variants": ["whitened-0.8"]}]
    assert not any(path.startswith("comparison/") for path in targets(grid=alone))
    one = contests(cells(ThroughputSettings.model_validate({"model": {"source": "config"}, "grid": alone})))
    assert list(one) == []


def test_what_decides_a_candidates_trial_makes_its_comparison_stale() -> None:
    before, after = targets(), targets(timing={"seconds": 0.7})
    name = "comparison/variants/lean/b1-p4-g32"
    assert before[name].spec != after[name].spec
    assert targets(comparison={"seconds": 1.0})["measure/base/lean/b1-p4-g32"].spec == (
        before["measure/base/lean/b1-p4-g32"].spec
    )
