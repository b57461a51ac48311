"""The whole `throughput` study on a tiny model drawn from a seed: outcomes, resume, staleness, comparison."""

import copy
import json
from collections import Counter

import pytest

from house import TINY, House, build, check_shown

ARCHITECTURE = {"vocabulary": 64, "context": 32, "width": 32, "hidden": 48, "layers": 2, "heads": 2}
SETTINGS = copy.deepcopy(TINY)
SETTINGS["throughput"] |= {
    "model": {"source": "config", "name": "tiny", "config": ARCHITECTURE},
    "variants": {
        "ratios": [1.0, 0.4],
        "methods": ["plain"],
        "paths": ["user/broken", "user/missing"],
    },
}
SETTINGS["throughput"]["grid"].append(
    {"variants": ["plain-0.4"], "engines": ["ctranslate2"], "batch": [1], "generated": [6]}
)
GRID = {"base": 4, "plain-0.4": 3, "broken": 2, "missing": 2}
"""Trials of each variant: two batches of `lean`, one of `generate` and `ctranslate2` with the base, and one of
`ctranslate2` with a variant that it cannot run."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> House:
    """A house in which the study was run. Of two user-supplied variants one has a NaN, the other is missing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    house = build(tmp_path_factory.mktemp("measured") / "house", "throughput")
    config = LlamaConfig(
        vocab_size=64,
        max_position_embeddings=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config)
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    model.save_pretrained(house.root / "user" / "broken")
    house.configure(SETTINGS)
    house.snakemake()
    return house


def records(house: House) -> dict[str, dict]:
    paths = sorted((house.study / "trials").rglob("*.json"))
    return {
        str(path.relative_to(house.study / "trials").with_suffix("")): json.loads(path.read_text()) for path in paths
    }


def test_every_outcome_is_a_record_and_the_rest_goes_on(measured):
    found = records(measured)
    assert Counter(name.partition("/")[0] for name in found) == GRID
    outcomes = {
        name.partition("/")[0]: record["outcome"] for name, record in found.items() if "ctranslate2" not in name
    }
    assert outcomes == {"base": "ok", "plain-0.4": "ok", "broken": "invalid_output", "missing": "unavailable"}
    assert found["plain-0.4/ctranslate2/b1-p4-g6"]["outcome"] == "unavailable"
    assert "no low-rank layers" in found["plain-0.4/ctranslate2/b1-p4-g6"]["message"]
    assert all("user/missing" in found[name]["message"] for name in found if name.startswith("missing/"))


def test_the_table_of_trials_fits_the_terminal(measured):
    check_shown(measured)


def test_engines_give_the_same_tokens_and_every_token_is_counted(measured):
    found = records(measured)
    engines = [found[f"base/{engine}/b2-p4-g6"] for engine in ("lean", "generate", "ctranslate2")]
    assert {record["tokens_sha256"] for record in engines} == {engines[0]["reference_sha256"]}
    for record in engines:
        assert record["tokens_generated"] == 2 * 6 * len(record["batches"]) > 0
        seconds = sum(batch["seconds"] for batch in record["batches"])
        assert record["tokens_per_second"] == pytest.approx(record["tokens_generated"] / seconds)


def test_comparisons_name_what_they_leave_out(measured):
    folder = measured.study / "comparisons"
    found = {str(path.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("*.json")}
    assert set(found) == {f"variants/lean/b{batch}-p4-g6.json" for batch in (1, 2)} | {"engines/base/b2-p4-g6.json"}
    for name, record in found.items():
        assert record["outcome"] == "ok"
        assert len(record["rounds"][0]["seconds"]) >= 20
        lost = {each["name"]: each["outcome"] for each in record["left_out"]}
        assert lost == ({"broken": "invalid_output", "missing": "unavailable"} if "variants" in name else {})
    assert (measured.study / "speedups.csv").read_text().count("variants/lean/") == 2


def test_lines_for_existing_scripts_are_there_for_every_trial(measured):
    lines = [json.loads(line) for line in (measured.study / "evaluation_results.jsonl").read_text().splitlines()]
    assert len(lines) == sum(GRID.values())
    assert "tiny_r0.4_b2_g6" in {line["experiment_id"] for line in lines}
    assert {line["successful_batches"] == 0 for line in lines if not line["success"]} == {True}


def test_second_run_does_nothing_and_only_a_deleted_trial_runs_again(measured):
    assert "Nothing to be done" in measured.snakemake()
    trial = measured.study / "trials" / "base" / "lean" / "b2-p4-g6.json"
    kept = trial.read_bytes()
    trial.unlink()
    waiting = measured.waiting()
    trial.write_bytes(kept)
    again = {"throughput_measure": 1, "throughput_comparison": 2}
    assert waiting == again | {"throughput_summarize": 1, "throughput_figures": 1}


def test_edited_format_makes_only_its_conversions_stale_with_what_reads_them(measured):
    path = measured.root / "workflow" / "plumbline" / "throughput" / "formats" / "ctranslate2.py"
    text = path.read_text()
    path.write_text(text + "\nEDITED = True\n")
    waiting = measured.waiting()
    path.write_text(text)
    again = {"throughput_convert": 2, "throughput_measure": 2, "throughput_comparison": 1}
    assert waiting == again | {"throughput_summarize": 1, "throughput_figures": 1}


def test_edited_engine_makes_only_its_own_trials_stale(measured):
    path = measured.root / "workflow" / "plumbline" / "throughput" / "engines" / "generate.py"
    text = path.read_text()
    path.write_text(text + "\nEDITED = True\n")
    waiting = measured.waiting()
    path.write_text(text)
    again = {"throughput_measure": 1, "throughput_comparison": 1}
    assert waiting == again | {"throughput_summarize": 1, "throughput_figures": 1}


def test_added_cell_runs_alone(measured):
    larger = copy.deepcopy(SETTINGS)
    larger["throughput"]["grid"].append({"variants": ["base"], "batch": [2], "generated": [5]})
    measured.configure(larger)
    waiting = measured.waiting()
    measured.configure(SETTINGS)
    assert waiting == {"throughput_measure": 1, "throughput_summarize": 1, "throughput_figures": 1}


def test_results_compared_with_themselves_show_nothing_slower(measured):
    found = json.loads(measured.plumbline("compare", "results", "results", "--json"))
    assert found["counts"] == dict.fromkeys(found["counts"], 0) | {"equal": len(found["trials"])}
