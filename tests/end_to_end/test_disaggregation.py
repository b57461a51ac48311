"""The whole `disaggregation` study at a tiny size, with real workers: outputs and staleness."""

import json

import pandas as pd
import pytest

from house import House, build, check_shown


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> House:
    """A house in which the tiny study was run."""
    house = build(tmp_path_factory.mktemp("measured") / "house", "disaggregation")
    house.snakemake()
    return house


def test_the_study_runs_from_processes_to_figures(measured):
    records = [json.loads(path.read_text()) for path in (measured.study / "trials").glob("*.json")]
    assert [record["outcome"] for record in records] == ["ok", "ok"]
    assert len({record[side] for record in records for side in ("worker_pid", "client_pid")}) == 4
    frame = pd.read_csv(measured.study / "summary.csv")
    assert set(frame["variant"]) >= {"control", "full", "no_semantics"}
    assert (measured.study / "figures" / "latency.pdf").exists()
    others = [json.loads(path.read_text()) for path in (measured.study / "trials").glob("block-*/*.json")]
    assert [record["outcome"] for record in others] == ["ok"] * 8
    assert len({pid for record in others for pid in (*record["worker_pids"], record["client_pid"])}) == 24
    # also in the threads that answer calls, though Snakemake sets MKL_NUM_THREADS to the cores of a job
    assert [record["owner_threads"] for record in (*records, *others)] == [{"rpc": 1}] * 10
    frame = pd.read_csv(measured.study / "workloads.csv")
    assert set(frame["workload"]) == {"llm_prefill", "vision_cnn", "multimodal_vqa"}


def test_the_table_of_trials_fits_the_terminal(measured):
    check_shown(measured)


def test_second_run_has_nothing_to_do_and_a_deleted_block_alone_is_measured_again(measured):
    assert "Nothing to be done" in measured.snakemake()
    (measured.study / "trials" / "llm_decode-loopback-1.json").unlink()
    jobs = measured.waiting()
    assert dict(jobs) == {"disaggregation_measure": 1, "disaggregation_summarize": 1, "disaggregation_figures": 1}


def test_a_deleted_record_of_graphs_has_its_block_alone_measured_again_and_nothing_captured(measured):
    measured.snakemake()
    (measured.study / "trials" / "block-1" / "vision_cnn-loopback.json").unlink()
    jobs = {"disaggregation_measure_graphs": 1, "disaggregation_summarize": 1, "disaggregation_figures": 1}
    assert dict(measured.waiting()) == jobs
