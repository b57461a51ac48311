import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from merging import merge_fields
from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome
from plumbline.throughput.analysis.evaluation import evaluation_lines, experiment_ids, oom_runs
from plumbline.throughput.analysis.frames import main_cell, statistics_frame, trials_frame
from plumbline.throughput.analysis.quality import is_noisy
from plumbline.throughput.analysis.records import read_manifests, read_trials
from plumbline.throughput.analysis.speedups import fastest, rivals, speedups_frame
from plumbline.throughput.grid import main_engine
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import ComparisonRecord, MaxBatchRecord, TrialRecord, TriedBatch
from plumbline.throughput.settings import TABLES
from plumbline.throughput.summarize import SummarizeSpec, summarize
from throughput.grid_records import (
    RATIOS,
    changed,
    comparison,
    comparisons,
    failed,
    grid,
    manifest,
    manifests,
    timed_batch,
    trial,
    without_speed,
    write,
    write_manifests,
)

SOURCE_FIELDS = {
    "timestamp", "experiment_id", "model_base", "updated_model_path", "ratio", "batch_size", "generated_len", "seq_len",
    "seed", "pytorch_version", "throughput_tokens_per_sec", "total_peak_memory_gb", "activation_memory_gb",
    "successful_batches", "failed_batches", "avg_batch_time_sec", "total_tokens_generated", "evaluation_batches",
    "consecutive_oom_failures", "error",
}  # fmt: skip


def summarized(
    records: list[TrialRecord], variants: list[Manifest], folder: Path, compared: Sequence[ComparisonRecord] = ()
) -> Path:
    tried = [
        TriedBatch(batch=b, fits=b < 5200, outcome=outcome, peak_bytes=None, seconds=1.0, message=None)
        for b, outcome in ((8192, Outcome.OUT_OF_MEMORY), (5120, Outcome.OK), (5200, Outcome.OUT_OF_MEMORY))
    ]
    head: dict[str, Any] = {"schema": 1, "started": "", "seconds": 1.0, "spec": {}, "machine": {}, "variant": "base"}
    head |= {"prompt": 4, "generated": 32}
    found = {"trial": "base/lean/p4-g32", "engine": "lean", "outcome": "ok", "largest": 5120, "bound": "out_of_memory"}
    none = {"trial": "base/static/p4-g32", "engine": "static", "outcome": "out_of_memory", "message": "batch 1: 9 GB"}
    largest = [MaxBatchRecord(**head, **found, tried_batches=tried), MaxBatchRecord(**head, **none)]
    files = write(largest, folder / "max_batch")
    written = write_manifests(variants, folder / "models"), write(records, folder / "trials")
    spec = SummarizeSpec(**merge_fields([*records, *compared, *largest]))
    summarize(spec, *written, write(compared, folder / "comparisons"), files, folder / "out" / "results.json")
    return folder / "out"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return summarized(grid(), manifests(), tmp_path_factory.mktemp("whole"), comparisons())


def lines(folder: Path) -> list[TrialRecord]:
    text = (folder / "evaluation_results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def answers(folder: Path) -> str:
    return (folder / "throughput_analysis.md").read_text()


def test_every_trial_is_a_line_with_the_sources_field_names(whole: Path) -> None:
    found = lines(whole)
    assert len(found) == len(grid())
    assert all(line.keys() >= SOURCE_FIELDS for line in found)
    assert len({line["experiment_id"] for line in found}) == len(found)


def test_numbers_of_a_line_are_those_of_its_record() -> None:
    changes: dict[str, Any] = {"peak_bytes": 3 * 10**9, "activation_bytes": 5 * 10**8}
    changes |= {"weights_bytes": 2 * 10**9, "kv_bytes": 10**8}
    batches = [
        timed_batch(0.2, 6),
        timed_batch(0.4, 6),
        timed_batch(9.0, 0, ok=False),
    ]
    changes |= {"tokens_per_second": 20.0, "interval": [19.0, 21.0], "successful_batches": 2}
    record = trial(batch=2, generated=3, batches=batches, **changes)
    (line,) = evaluation_lines([record], [manifest()])
    expected = {
        "experiment_id": "small_r1.0_b2_g3", "throughput_tokens_per_sec": 20.0, "throughput_ci95_low": 19.0,
        "total_peak_memory_gb": 3.0, "activation_memory_gb": 0.5, "weight_memory_gb": 2.0, "kv_cache_memory_gb": 0.1,
        "successful_batches": 2, "failed_batches": 1, "evaluation_batches": 2, "avg_batch_time_sec": pytest.approx(0.3),
        "total_tokens_generated": 12, "consecutive_oom_failures": 0, "success": True, "error": None,
        "generation_length": 3, "prompt_length": 4, "engine": "lean", "perplexity": 30.4,
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected


def test_failed_trial_has_its_reason_and_nulls_and_never_zeros() -> None:
    (line,) = evaluation_lines([failed("timeout")], [manifest()])
    assert (line["success"], line["error"]) == (False, "asked for 9 GB, 3 GB were free")
    empty = {line[name] for name in ("throughput_tokens_per_sec", "total_peak_memory_gb", "avg_batch_time_sec")}
    assert empty == {None}
    assert (line["total_tokens_generated"], line["failed_batches"]) == (0, 0)


def test_experiment_ids_name_what_differs_from_the_usual() -> None:
    named = [
        (trial(), "small_r1.0_b1_g32"),
        (trial("base", "lean", 2), "small_r1.0_b2_g32"),
        (trial("base", "generate"), "small_r1.0_b1_g32_generate"),
        (trial("base", "lean", 1, 8), "small_r1.0_b1_g32_p8"),
        (trial("whitened-0.2"), "small_r0.2_b1_g32"),
        (trial("whitened-0.2", "lean", 2), "small_r0.2_b2_g32"),
        (trial("plain-0.2"), "small_r0.2_b1_g32_plain-0.2"),
        (changed(trial(), variant="mine", method="user", ratio=None, trial="mine"), "small_mine_b1_g32"),
    ]
    assert list(experiment_ids([record for record, _ in named]).values()) == [name for _, name in named]


def test_out_of_memory_runs_are_counted_along_rising_batch_size() -> None:
    base = [failed("out_of_memory", "base", "lean", batch) for batch in (512, 128, 256, 4)]
    others = [
        trial("base", "lean", 8),
        failed("timeout", "base", "lean", 1024),
        failed("out_of_memory", "base", "generate"),
    ]
    runs = oom_runs([*base, *others])
    assert [runs[f"base/lean/b{batch}-p4-g32"] for batch in (4, 8, 128, 256, 512, 1024)] == [1, 0, 1, 2, 3, 0]
    assert runs["base/generate/b1-p4-g32"] == 1
    line = evaluation_lines(base, [manifest()])[0]
    assert (line["consecutive_oom_failures"], line["failed_batches"]) == (4, 1)
    (line,) = evaluation_lines([failed(batches=[timed_batch(0.1, 0, ok=False)])], [manifest()])
    assert line["failed_batches"] == 1


def test_every_trial_has_a_row_with_its_numbers(whole: Path) -> None:
    summary = pd.read_csv(whole / "summary.csv").set_index("trial")
    assert len(summary) == len(grid())
    for record in grid():
        row = summary.loc[record.trial]
        for name in ("batch", "generated", "tokens_per_second", "peak_bytes", "ceiling_share", "binds", "converged"):
            assert row[name] == getattr(record, name)
        assert [row["tokens_per_second_low"], row["tokens_per_second_high"]] == list(record.interval or ())
        assert row["needed_bytes"] == record.weights_bytes + record.kv_bytes + record.least_activation_bytes
        assert row["tokens_per_second_per_gigabyte"] == pytest.approx(
            record.tokens_per_second / row["needed_bytes"] * 1e9
        )


def test_statistics_of_a_variant_and_engine_are_over_its_cells(whole: Path) -> None:
    rates = {1: 10.0, 4: 320.0}
    records = [trial("base", "lean", batch, tokens_per_second=rate) for batch, rate in rates.items()]
    records += [failed("out_of_memory", "base", "lean", 8)]
    frame = statistics_frame(trials_frame(records, manifests()), speedups_frame([])).set_index("variant")
    row = frame.loc["base"]
    assert [row[name] for name in ("trials", "ok", "out_of_memory", "other_outcomes")] == [3, 2, 1, 0]
    assert (row["tokens_per_second_min"], row["tokens_per_second_max"]) == (10, 320)
    assert "tokens_per_second_overall" not in frame.columns  # it would weight cells by how many batches were timed


def test_successful_batches_mean_the_same_in_every_table(tmp_path: Path) -> None:
    batches = [timed_batch(0.01, 32), timed_batch(0.01, 32), timed_batch(0.01, 0, ok=False)]
    folder = summarized([trial(batches=batches, successful_batches=2)], [manifest()], tmp_path)
    assert pd.read_csv(folder / "summary.csv")["successful_batches"].tolist() == [2]
    assert [line["successful_batches"] for line in lines(folder)] == [2]


def test_every_speedup_comes_from_a_comparison_with_interval_verdict_and_control(whole: Path) -> None:
    found = pd.read_csv(whole / "speedups.csv").set_index(["comparison", "candidate"])
    assert len(found) == 3 + 3 * 4
    row = found.loc["engines/base/b1-p4-g32", "lean"]
    assert (row["baseline"], row["verdict"], row["trial"]) == ("generate", "faster", "base/lean/b1-p4-g32")
    assert row["ratio"] == pytest.approx(8.0, rel=0.02)
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["control_low"] < 1 < row["control_high"]
    small = found.loc["variants/lean/b1-p4-g32"]["verdict"]
    assert dict(small) == {f"whitened-{r}": "slower" if r > 0.2 else "no difference" for r in RATIOS}
    statistics = pd.read_csv(whole / "summary_statistics.csv").set_index(["variant", "engine"])
    row = statistics.loc["whitened-0.8", "lean"]
    assert (row["speedup"], row["speedup_verdict"]) == (pytest.approx(0.91, rel=0.01), "slower")
    assert row["speedup_low"] < row["speedup"] < row["speedup_high"] < 1
    assert row["speedup_cell"] == "b1-p4-g32"
    assert statistics.loc["base", "lean"]["speedup_control"] == row["speedup_control"]
    others = [name for name in statistics.columns if name.startswith("speedup")]
    assert statistics.loc["base", "static"][others].isna().all()
    table = (whole / "tables" / "variants.tex").read_text()
    assert "A/A" in table
    assert "slower" in table
    assert "{note}" not in table
    losses = {each.variant: np.array(each.window_nats) for each in manifests()}
    more = (losses["whitened-0.2"] - losses["base"]).mean()
    assert f"& +{more:.3f} [+0." in table
    assert f"the base's 30.40 (loss +{more:.3f} [+0." in answers(whole)


def test_rates_of_trials_make_no_speedup(tmp_path: Path) -> None:
    """The base's trials ran while the machine was slow; interleaved, the variant is the slower one."""
    records = [trial(slower=1.5), trial("whitened-0.8")]
    folder = summarized(records, manifests(), tmp_path, [comparison({"whitened-0.8": 0.91})])
    assert "reaches 0.91 [" in answers(folder)
    assert "of base: slower" in answers(folder)
    alone = summarized(records, manifests(), tmp_path / "alone")
    assert "times the tokens per second" not in answers(alone)
    assert pd.read_csv(alone / "summary_statistics.csv")["speedup"].isna().all()


def test_main_cell_has_most_variants_at_the_smallest_batch() -> None:
    smallest = {"engine": "lean", "batch": 1, "prompt": 4, "generated": 32}
    assert main_cell(trials_frame(grid(), manifests()), speedups_frame([])) == smallest
    assert main_cell(trials_frame(grid(), manifests()), speedups_frame(comparisons())) == smallest
    compared = speedups_frame([comparison({"whitened-0.2": 1.1}, batch=8)])
    assert main_cell(trials_frame(grid(), manifests()), compared) == smallest | {"batch": 8}
    only = [failed("timeout", "base", "lean", 8)]
    assert main_cell(trials_frame(only, manifests()), speedups_frame([]))["batch"] == 8


def test_results_hold_all_records_and_manifests_unchanged(whole: Path) -> None:
    merged = json.loads((whole / "results.json").read_text())
    assert {each["trial"]: each for each in merged["trials"]} == {each.trial: each.to_json() for each in grid()}
    assert [Manifest(**values) for values in merged["manifests"]] == sorted(
        manifests(), key=lambda m: (-m.ratio, m.variant)
    )
    assert merged["max_batch"][0]["largest"] == 5120
    assert {row["variant"] for row in merged["analysis"]["variants"]} == {variant.variant for variant in manifests()}


def test_findings_name_the_fastest_engine_what_compression_buys_and_the_limit(whole: Path) -> None:
    text = answers(whole)
    for said in (
        "base at b1-p4-g32: lean is the fastest of 4 engines.",
        "base at b1-p4-g32: continuous reaches 0.60 [",
        "times the tokens per second of generate: slower. In its own trial: ",
        "Comparison engines/base/b1-p4-g32: 100 rounds with all candidates loaded, in 4 processes; generate ",
        "whitened-0.2 (ratio 0.2, 38% of all parameters) with engine lean: at b1-p4-g32 it reaches 1.00 [",
        "times the tokens per second of base: no difference beyond 3%; at b8-p4-g32 it reaches 1.06 [",
        "Memory of base at b1-p4-g32 with engine lean: weights and KV cache take 0.657 MB, 0.224% of the",
        "its perplexity is 41.95, the base's 30.40",
        "Whitened SVD has the lower perplexity at 4 of 4 ratios",
        "So neither limit alone is the bottleneck of these trials; overhead between operations",
        " tokens per second, each from its own trial: ",
        "Of 28 trials: 28 ok.",
        "The largest batch that fits, base/lean/p4-g32: at least 5,120; 5,200 did not fit.",
        "None of 28 successful trials is noisy",
        "No batch fits, base/static/p4-g32: out of memory (batch 1: 9 GB).",
    ):
        assert said in text, said
    assert "nan" not in text


def test_findings_are_true_where_plain_is_better_or_the_ceiling_is_near(tmp_path: Path) -> None:
    variants = [manifest(), manifest("plain-0.8", perplexity=31.0), manifest("whitened-0.8", perplexity=32.0)]
    text = answers(summarized([trial(ceiling_share=0.82), trial(batch=2, ceiling_share=0.4)], variants, tmp_path))
    assert "Whitened SVD has the lower perplexity at 0 of 1 ratio " in text
    assert "at 82%: the limit is its bottleneck." in text
    assert "1 of 2 trials reaches 70% or more" in text
    text = answers(summarized([trial(ceiling_share=1.4)], variants, tmp_path / "above"))
    assert "above the measured limit" in text


def test_every_outcome_is_named_with_its_reason(tmp_path: Path) -> None:
    missing = {"outcome": Outcome.UNAVAILABLE, "message": "models/mine does not exist"}
    gone = manifest().model_copy(update={"variant": "mine", "method": "user", **missing})
    records = [trial(), failed("out_of_memory", "base", "lean", 8), failed("timeout", "base", "generate")]
    folder = summarized(records, [manifest(), gone], tmp_path)
    text = answers(folder)
    assert "Of 3 trials: 1 ok, 1 out of memory, 1 timeout." in text
    assert "base/lean/b8-p4-g32: out of memory (asked for 9 GB, 3 GB were free)." in text
    assert "mine: unavailable (models/mine does not exist)." in text
    table = (folder / "tables" / "throughput.tex").read_text()
    assert "base & lean & 8 & 4 & 32 & -- & out of memory & -- & -- & --" in table
    assert (
        "mine & user & 1 (by name) & 155,000 & unavailable & -- & -- & --"
        in (folder / "tables" / "variants.tex").read_text()
    )


@pytest.mark.parametrize("case", ["only failures", "one trial", "no perplexity", "one batch"])
def test_poor_grids_are_summarised_without_a_claim(case: str, tmp_path: Path) -> None:
    unknown = manifests(perplexity=None, evaluation_tokens=None, window_nats=[])
    records, variants = {
        "only failures": ([failed(), failed("unavailable", "whitened-0.8")], manifests()),
        "one trial": ([trial()], [manifest()]),
        "no perplexity": (grid(weights="random"), unknown),
        "one batch": ([trial(batches=trial().batches[:1], interval=None, interval_share=None)], [manifest()]),
    }[case]
    folder = summarized(records, variants, tmp_path)
    assert "nan" not in answers(folder)
    assert "nan" not in "".join(path.read_text() for path in (folder / "tables").iterdir())
    assert len(lines(folder)) == len(records)
    if case == "no perplexity":
        assert "No variant has a perplexity" in answers(folder)
        assert "The weights are random" in answers(folder)


def test_tables_are_escaped_and_print_no_bare_mean(tmp_path: Path) -> None:
    mine = changed(trial(), variant="my_50%_model", method="user", ratio=None, trial="mine")
    variant = manifest().model_copy(update={"variant": "my_50%_model", "method": "user", "ratio": None})
    folder = summarized([trial(), mine], [manifest(), variant], tmp_path)
    assert {path.stem for path in (folder / "tables").iterdir()} == set(TABLES)
    for name in TABLES:
        text = (folder / "tables" / f"{name}.tex").read_text()
        assert r"my\_50\%\_model" in text
        rows = [line for line in text.splitlines() if line.startswith(("base", "my"))]
        assert len(rows) == 2
        assert all(row.count("[") >= 1 for row in rows)


def test_different_machines_are_reported_and_one_machine_is_not(whole: Path, tmp_path: Path) -> None:
    records = [
        trial(),
        trial(batch=8, cpu="EPYC"),
        failed("timeout", "base", "lean", 64, cpu="Other", device=None),
    ]
    mixed = summarized(records, [manifest()], tmp_path)
    for text in (answers(mixed), (mixed / "tables" / "throughput.tex").read_text()):
        assert "different machines (Xeon, 2 cores: 1 trial; EPYC, 2 cores: 1 trial)" in text
    assert pd.read_csv(mixed / "summary.csv")["different_machines"].all()
    assert "different machines" not in answers(whole)


def test_unconverged_trials_are_named(tmp_path: Path) -> None:
    text = answers(summarized([trial(converged=False), trial(batch=8)], [manifest()], tmp_path))
    assert "did not reach the requested precision in base/lean/b1-p4-g32." in text


def busy(record: TrialRecord, percent: float = 82.0) -> TrialRecord:
    return changed(record, machine=record.machine | {"cpu_pressure_some_avg10_percent": percent})


@pytest.mark.parametrize(
    ("record", "noisy"),
    [
        (busy(trial()), True),
        (busy(trial(), 19.0), False),
        (trial(warmup_steady=False), True),
        (trial(drifted=True), True),
        (trial(interval_share=0.1), True),
        (trial(interval_share=0.08, converged=False), False),
    ],
)
def test_noise_is_said_of_a_trial_and_decides_no_verdict(record: TrialRecord, noisy: bool, tmp_path: Path) -> None:
    assert is_noisy(record) == noisy
    compared = [comparison({"whitened-0.2": 1.14})]
    folder = summarized([record, trial("whitened-0.2")], manifests(), tmp_path, compared)
    text = answers(folder)
    assert text.splitlines()[2] == "## How good the measurements are"
    assert ("1 of 2 successful trials is noisy: the machine was busy" in text) == noisy
    assert "times the tokens per second of base: faster" in text
    summary = pd.read_csv(folder / "summary.csv").set_index("trial")
    assert summary.loc["base/lean/b1-p4-g32", "noisy"] == noisy


def test_requested_precision_decides_what_is_wide() -> None:
    record = trial(interval_share=0.1)
    record.spec["timing"]["precision"] = 0.05
    assert not is_noisy(record)


def test_latencies_that_do_not_match_the_batches_are_named(whole: Path, tmp_path: Path) -> None:
    apart = trial(latency_seconds_ratio=1.25, latency_agrees=False)
    text = answers(summarized([apart, trial(batch=8)], [manifest()], tmp_path))
    assert "In 1 of 2 successful trials the calls of the token-latency pass took 125% of the time" in text
    assert "(base/lean/b1-p4-g32)" in text
    assert "token-latency pass" not in answers(whole)


def test_only_an_engine_beyond_its_runner_up_is_the_fastest(tmp_path: Path) -> None:
    clear = comparison({"lean": 8.0, "static": 7.0}, "engines")
    assert (fastest(clear), rivals(clear, "lean")) == ("lean", [])
    close = comparison({"lean": 8.0, "static": 7.98}, "engines")
    assert rivals(close, fastest(close)) == [{"lean": "static", "static": "lean"}[fastest(close)]]
    text = answers(summarized([trial(), trial("base", "static")], [manifest()], tmp_path, [close]))
    assert "is among the fastest of 3 engines; " in text
    slow = comparison({"lean": 0.5}, "engines")
    assert (fastest(slow), rivals(slow, "generate")) == ("generate", [])


def test_where_the_baseline_beats_itself_every_verdict_is_inconclusive(tmp_path: Path) -> None:
    broken = comparison({"whitened-0.2": 1.3}, control=1.1)
    assert list(speedups_frame([broken])["verdict"]) == ["inconclusive"]
    text = answers(summarized([trial(), trial("whitened-0.2")], manifests(), tmp_path, [broken]))
    assert "times the tokens per second of base: inconclusive" in text
    assert "base against itself (A/A) 1.10 [" in text


def test_left_out_candidates_and_missing_comparisons_are_named_with_their_reason(tmp_path: Path) -> None:
    lost = {"name": "static", "trial": "base/static/b1-p4-g32", "outcome": "timeout", "message": "took 600 s"}
    compared = [comparison({"lean": 8.0}, "engines", left_out=[lost]), without_speed()]
    text = answers(summarized([trial()], [manifest()], tmp_path, compared))
    assert "Left out of the comparison engines/base/b1-p4-g32: static: timeout (took 600 s)." in text
    assert "No comparison variants/lean/b1-p4-g32: unavailable (the baseline has no speed: out_of_memory)." in text


def test_pairs_and_the_time_used_up_are_said(tmp_path: Path) -> None:
    whole = comparison({"whitened-0.8": 0.9, "whitened-0.2": 1.2}).to_json()
    columns = {name: whole["rounds"][0]["names"].index(name) for name in ("whitened-0.8", "whitened-0.2")}
    parts = [
        {
            "arrangement": "pairs",
            "names": ["base", "control", name],
            "seconds": [[row[0], row[1], row[column]] for row in whole["rounds"][0]["seconds"]],
            "orders": [[0, 1, 2]] * 100,
            "processes": whole["rounds"][0]["processes"],
            "precise": False,
            "waiting_shares": {},
            "niceness": 0,
        }
        for name, column in columns.items()
    ]
    record = ComparisonRecord.model_validate(whole | {"rounds": parts})
    assert rivals(record, "whitened-0.2") == []
    text = answers(summarized([trial()], manifests(), tmp_path, [record]))
    assert "100 rounds pair by pair, because memory did not hold all, in 4 processes;" in text
    assert "The time was used up before every interval was within 2%." in text


def test_main_engine_has_most_trials_and_the_first_wins_a_tie(tmp_path: Path) -> None:
    records = [trial("base", engine) for engine in ("static", "continuous")]
    assert [record.engine for record in read_trials(write(records, tmp_path))] == ["static", "continuous"]
    assert main_engine(["a", "b", "b"]) == "b"
    folder = summarized(records, [manifest()], tmp_path)
    assert [line["experiment_id"] for line in lines(folder)] == ["small_r1.0_b1_g32", "small_r1.0_b1_g32_continuous"]
    assert json.loads((folder / "results.json").read_text())["analysis"]["main_cell"]["engine"] == "static"


def test_other_dtypes_of_trials_are_named(tmp_path: Path) -> None:
    half = trial("whitened-0.2")
    config = EngineConfig(dtype="bfloat16", attention="sdpa", threads=2, compile=False)
    half = changed(half, engine_config=config)
    folder = summarized([trial(), half], manifests(), tmp_path)
    assert "Not all trials compute in the same way (float32 with sdpa, bfloat16 with sdpa)" in answers(folder)
    assert "whitened-0.2 & lean & 1 & 4 & 32 & bfloat16 &" in (folder / "tables" / "throughput.tex").read_text()


def test_ratio_of_a_user_folder_is_marked_as_its_name(tmp_path: Path) -> None:
    mine = changed(trial("whitened-0.2"), variant="mine", method="user", trial="mine")
    variant = manifest("whitened-0.2").model_copy(update={"variant": "mine", "method": "user"})
    compared = [comparison({"mine": 1.1})]
    folder = summarized([trial(), mine], [manifest(), variant], tmp_path, compared)
    assert "mine (ratio 0.2 by its name, " in answers(folder)


def test_a_range_of_one_value_is_one_value(tmp_path: Path) -> None:
    text = answers(summarized([trial(ceiling_share=0.143)], [manifest()], tmp_path))
    assert "decoding reaches 14.3% of it" in text


def test_same_records_in_another_order_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    other = summarized(grid()[::-1], manifests()[::-1], tmp_path, comparisons()[::-1])
    names = [str(path.relative_to(whole)) for path in whole.rglob("*.*")]
    assert len(names) == 8
    for name in names:
        if name != "evaluation_results.jsonl":
            assert (other / name).read_bytes() == (whole / name).read_bytes(), name
    assert lines(other) == lines(whole)


def test_records_are_read_in_the_order_of_the_study(tmp_path: Path) -> None:
    records = read_trials(write(grid()[::-1], tmp_path))
    names = list(dict.fromkeys(record.variant for record in records))
    assert names == ["base", *(f"whitened-{ratio}" for ratio in RATIOS)]
    batches = [record.batch for record in records if record.variant == "base" and record.engine == "lean"]
    assert batches == [1, 8, 8, 8, 64]
    assert read_manifests(write_manifests(manifests()[::-1], tmp_path / "models"))[0].variant == "base"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 99}, "is not a record of schema 1"),
        ({"stage": "max_batch"}, "stage is 'max_batch', not 'measure'"),
        ({"batches": "absent"}, "batches is missing"),
        ({"outcome": "timeout", "batch": "absent"}, "batch: missing"),
    ],
)
def test_foreign_record_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    paths = write([trial()], tmp_path)
    record = {key: value for key, value in (trial().to_json() | changes).items() if value != "absent"}
    paths[0].write_text(json.dumps(record))
    with pytest.raises(UserError, match=said) as caught:
        read_trials(paths)
    assert "b1-p4-g32" in str(caught.value)


def test_trial_recorded_twice_and_no_record_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recorded twice"):
        read_trials(write([trial()], tmp_path / "a") + write([trial()], tmp_path / "b"))
    with pytest.raises(UserError, match="run its trials first"):
        read_trials([])


def test_perplexities_are_told_without_speeds_and_so_is_what_the_manifests_note(tmp_path: Path) -> None:
    variants = [each.model_copy(update={"notes": ["all have this"]}) for each in manifests()]
    one = next(number for number, each in enumerate(variants) if each.variant == "plain-0.2")
    variants[one] = variants[one].model_copy(update={"notes": ["all have this", "it has that"], "reached": 0.93})
    text = answers(summarized([failed("unavailable", "base")], variants, tmp_path))
    assert "whitened-0.2 (ratio 0.2, 38% of all parameters): no speed was compared; its perplexity is 41.95" in text
    assert "plain-0.2 (ratio 0.93 (asked for: 0.2), 38% of all parameters)" in text
    assert "\n- All variants: all have this.\n" in text
    assert "\n- plain-0.2: it has that.\n" in text


def test_a_lone_base_has_its_perplexity_told(tmp_path: Path) -> None:
    alone = [record for record in grid() if record.variant == "base"]
    assert "base has a perplexity of 30.40" in answers(summarized(alone, [manifest()], tmp_path))
