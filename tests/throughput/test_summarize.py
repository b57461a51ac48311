import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from merging import merge_fields
from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome
from plumbline.throughput.analysis.evaluation import evaluation_lines, experiment_ids, oom_runs
from plumbline.throughput.analysis.frames import contrasts_frame, main_cell, statistics_frame, trials_frame
from plumbline.throughput.analysis.quality import noise_sources, noise_text
from plumbline.throughput.analysis.records import main_engine, read_manifests, read_trials
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import MaxBatchRecord, TrialRecord, TriedBatch
from plumbline.throughput.settings import TABLES, EngineConfig
from plumbline.throughput.summarize import SummarizeSpec, summarize
from throughput.grid_records import (
    RATIOS,
    changed,
    failed,
    grid,
    manifest,
    manifests,
    timed_batch,
    trial,
    write,
    write_manifests,
)

SOURCE_FIELDS = {
    "timestamp", "experiment_id", "model_base", "updated_model_path", "ratio", "batch_size", "generated_len", "seq_len",
    "seed", "pytorch_version", "throughput_tokens_per_sec", "total_peak_memory_gb", "activation_memory_gb",
    "successful_batches", "failed_batches", "avg_batch_time_sec", "total_tokens_generated", "evaluation_batches",
    "consecutive_oom_failures", "error",
}  # fmt: skip


def summarized(records: list[TrialRecord], variants: list[Manifest], folder: Path) -> Path:
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
    spec = SummarizeSpec(**merge_fields([*records, *largest]))
    summarize(spec, *written, files, folder / "out" / "results.json")
    return folder / "out"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return summarized(grid(), manifests(), tmp_path_factory.mktemp("whole"))


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
        timed_batch(0.9, 6, counts=False),
    ]
    changes |= {"tokens_per_second": 20.0, "interval": [19.0, 21.0], "successful_batches": 3}
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
        assert row["tokens_per_second_per_gigabyte"] == pytest.approx(
            record.tokens_per_second / record.peak_bytes * 1e9
        )


def test_statistics_of_a_variant_and_engine_are_over_its_cells() -> None:
    def steady(variant: str, batch: int, seconds: float) -> TrialRecord:
        batches = [timed_batch(seconds, batch * 10)] * 4
        return trial(variant, "lean", batch, tokens_per_second=batch * 10 / seconds, batches=batches)

    records = [steady("base", 1, 1.0), steady("base", 4, 1.0), steady("whitened-0.2", 1, 0.5)]
    records += [steady("whitened-0.2", 4, 0.125), failed("out_of_memory", "whitened-0.2", "lean", 8)]
    frame = statistics_frame(records, trials_frame(records, manifests())).set_index("variant")
    row = frame.loc["whitened-0.2"]
    assert [row[name] for name in ("trials", "ok", "out_of_memory", "cells_shared_with_base")] == [3, 2, 1, 2]
    assert row["tokens_per_second_overall"] == pytest.approx(50 / 0.625)
    assert (row["tokens_per_second_min"], row["tokens_per_second_max"]) == (20, 320)
    assert row["speedup_over_base"] == pytest.approx(4)  # √(2 · 8)
    assert (row["speedup_over_base_low"], row["speedup_over_base_high"]) == pytest.approx((4, 4))
    assert frame.loc["base", "speedup_over_base"] == 1


def test_contrasts_are_against_generate_and_against_the_base() -> None:
    records = [trial("base", engine) for engine in ("lean", "generate", "static")] + [trial("whitened-0.2")]
    frame = contrasts_frame([*records, failed("timeout", "whitened-0.4")])
    pairs = {
        (row["kind"], row["trial"].partition("/b1")[0], row["baseline"].partition("/b1")[0])
        for _, row in frame.iterrows()
    }
    assert pairs == {
        ("engine", "base/lean", "base/generate"),
        ("engine", "base/static", "base/generate"),
        ("variant", "whitened-0.2/lean", "base/lean"),
    }
    row = frame[frame["trial"] == "base/lean/b1-p4-g32"].iloc[0]
    rates = [sum(b.tokens for b in r.batches) / sum(b.seconds for b in r.batches) for r in records[:2]]
    assert row["ratio"] == pytest.approx(rates[0] / rates[1])
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]


def test_main_cell_has_most_variants_at_the_smallest_batch() -> None:
    assert main_cell(trials_frame(grid(), manifests())) == {"engine": "lean", "batch": 1, "prompt": 4, "generated": 32}
    only = [failed("timeout", "base", "lean", 8)]
    assert main_cell(trials_frame(only, manifests()))["batch"] == 8


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
        "base at b1-p4-g32: lean is the fastest of 4 engines, with 54",
        "continuous reaches 0.6",
        "times the tokens per second of generate",
        "whitened-0.2 (ratio 0.2, 38% of all parameters) at b1-p4-g32 with engine lean reaches 1.03 [",
        "times the tokens per second of the base: inconclusive, the interval is not all on one side of 3%;",
        "Memory of base at b1-p4-g32 with engine lean: weights and KV cache take 0.657 MB, 0.224% of the",
        "its perplexity is 41.95, the base's 30.40",
        "Whitened SVD has the lower perplexity at 4 of 4 ratios",
        "Neither limit is the bottleneck of any trial: overhead between the operations is.",
        "64 times the batch size changes the rate by a factor of ",
        "Of 28 trials: 28 ok.",
        "The largest batch that fits, base/lean/p4-g32: at least 5,120; 5,200 did not fit.",
        "None of 28 successful trials looks noisy",
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
        "mine & user & 1 (by name) & 155,000 & unavailable & -- & --"
        in (folder / "tables" / "variants.tex").read_text()
    )


@pytest.mark.parametrize("case", ["only failures", "one trial", "no perplexity", "one batch"])
def test_poor_grids_are_summarised_without_a_claim(case: str, tmp_path: Path) -> None:
    unknown = manifests(perplexity=None, evaluation_tokens=None)
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


def test_discarded_batches_are_reported(tmp_path: Path) -> None:
    records = [trial(slowed_batches=7), trial(batch=8), trial(batch=64, slowed=True, slowed_batches=30)]
    assert "7 of 90 batches were discarded" in answers(summarized(records, [manifest()], tmp_path / "some"))
    assert "were discarded" not in answers(summarized(records[1:], [manifest()], tmp_path / "none"))


def busy(record: TrialRecord, percent: float = 82.0) -> TrialRecord:
    return changed(record, machine=record.machine | {"cpu_pressure_some_avg10_percent": percent})


@pytest.mark.parametrize(
    ("record", "found", "counted"),
    [
        (busy(trial()), ["busy"], "waited for a CPU during 82% of the ten seconds"),
        (busy(trial(), 19.0), [], ""),
        (trial(slowed=True), ["slowed"], "during too few batches or during no call of the latency pass"),
        (trial(latency_slowed=True), ["slowed"], "no call of the latency pass (base/lean/b1-p4-g32)"),
        (trial(warmup_steady=False), ["unsteady"], "warm-up had not become steady when timing began (base/lean/b1"),
        (trial(drifted=True), ["drifted"], "became faster or slower over time (base/lean/b1-p4-g32)"),
        (trial(interval_share=0.1), ["wide"], "their interval reaches 10% to either side"),
        (trial(interval_share=0.08, converged=False), [], ""),
        (busy(trial(drifted=True)), ["busy", "drifted"], "1 of 2 successful trials: the machine was busy"),
    ],
)
def test_noisy_trials_are_counted_first_and_get_no_verdict(
    record: TrialRecord, found: list[str], counted: str, tmp_path: Path
) -> None:
    assert noise_sources(record) == found
    folder = summarized([record, trial("whitened-0.2", slower=2.0)], manifests(), tmp_path)
    text = answers(folder)
    assert text.splitlines()[2] == "## How good the measurements are"
    verdict = (
        f"times the tokens per second of the base: inconclusive, the measurements are noisy ({noise_text(found)});"
    )
    assert (verdict in text) == bool(found)
    assert counted in text
    assert ("1 of 2 successful trials is noisy." in text) == bool(found)
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False).set_index("trial")
    assert summary.loc["base/lean/b1-p4-g32", "noisy"] == " ".join(found)
    for name in TABLES:
        assert ("(!)" in (folder / "tables" / f"{name}.tex").read_text()) == bool(found)


def test_requested_precision_decides_what_is_wide() -> None:
    record = trial(interval_share=0.1)
    record.spec["timing"]["precision"] = 0.05
    assert noise_sources(record) == []


def engines_said(records: list[TrialRecord], folder: Path) -> str:
    return next(line for line in answers(summarized(records, [manifest()], folder)).splitlines() if " engines" in line)


def test_only_an_engine_beyond_its_runner_up_is_the_fastest(tmp_path: Path) -> None:
    lean, static = trial(), trial("base", "static")
    assert "lean is the fastest of 2 engines" in engines_said([lean, static], tmp_path / "a")
    close = changed(static, batches=lean.batches, tokens_per_second=0.999 * (lean.tokens_per_second or 0))
    assert "lean is among the fastest of 2 engines, with" in engines_said([lean, close], tmp_path / "b")
    drifting = summarized([lean, changed(static, drifted=True)], [manifest()], tmp_path / "c")
    assert "but this is inconclusive: the measurements are noisy (the speed drifted)" in answers(drifting)
    third = trial("base", "generate", drifted=True)
    said = engines_said([lean, static, third], tmp_path / "d")
    assert "lean is the fastest of 2 engines (too noisy to judge: generate)" in said


def test_no_difference_is_claimed_only_where_the_interval_is_within(tmp_path: Path) -> None:
    base, same = trial(), trial("whitened-0.2")
    same = changed(same, batches=base.batches)
    text = answers(summarized([base, same], manifests(), tmp_path))
    assert "times the tokens per second of the base: no difference beyond 3%;" in text
    assert "by which two processes may differ" not in text


def test_main_engine_has_most_trials_and_the_first_wins_a_tie(tmp_path: Path) -> None:
    records = [trial("base", engine) for engine in ("static", "continuous")]
    assert [record.engine for record in read_trials(write(records, tmp_path))] == ["static", "continuous"]
    assert main_engine(["a", "b", "b"]) == "b"
    folder = summarized(records, [manifest()], tmp_path)
    assert [line["experiment_id"] for line in lines(folder)] == ["small_r1.0_b1_g32", "small_r1.0_b1_g32_continuous"]
    assert json.loads((folder / "results.json").read_text())["analysis"]["main_cell"]["engine"] == "static"


def test_other_dtypes_are_named_in_the_sentence_and_the_table(tmp_path: Path) -> None:
    half = trial("whitened-0.2")
    config = EngineConfig(dtype="bfloat16", attention="sdpa", threads=2, compile=False)
    half = changed(half, engine_config=config)
    folder = summarized([trial(), half], manifests(), tmp_path)
    assert "tokens per second of the base (bfloat16 against float32)" in answers(folder)
    assert "whitened-0.2 & lean & 1 & 4 & 32 & bfloat16 &" in (folder / "tables" / "throughput.tex").read_text()


def test_ratio_of_a_user_folder_is_marked_as_its_name(tmp_path: Path) -> None:
    mine = changed(trial("whitened-0.2"), variant="mine", method="user", trial="mine")
    variant = manifest("whitened-0.2").model_copy(update={"variant": "mine", "method": "user"})
    assert "mine (ratio 0.2 by its name, " in answers(summarized([trial(), mine], [manifest(), variant], tmp_path))


def test_a_range_of_one_value_is_one_value(tmp_path: Path) -> None:
    text = answers(summarized([trial(ceiling_share=0.143)], [manifest()], tmp_path))
    assert "decoding reaches 14.3% of it" in text


def test_same_records_in_another_order_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    other = summarized(grid()[::-1], manifests()[::-1], tmp_path)
    names = [str(path.relative_to(whole)) for path in whole.rglob("*.*")]
    assert len(names) == 7
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
