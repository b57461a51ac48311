import json
from pathlib import Path

import pytest

from lr_sweep.sweep_records import RATES, sweep, trial, unfinished, write
from merging import merge_fields
from plumbline.lr_sweep.analysis.extension import extension
from plumbline.lr_sweep.analysis.sweep import edge_of_stability, sweep_of
from plumbline.lr_sweep.extend import ExtendSpec, extend
from plumbline.lr_sweep.record import TrialRecord

BELOW, ABOVE = [3.2e-4, 1e-4], [31.6, 100.0]


def next_rates(records: list[TrialRecord], below: list[float], above: list[float]) -> list[float]:
    return extension(records, below, above).add


def falling(kinds: dict[float, str] | None = None, reverse: bool = False) -> list[TrialRecord]:
    """A sweep whose highest rate has the least loss, or with `reverse` its lowest."""
    order = RATES if reverse else RATES[::-1]
    kinds = kinds or {}
    return [
        trial(rate, seed, kinds.get(rate, "converged"), **({} if rate in kinds else {"loss": 3 + 0.1 * place}))
        for place, rate in enumerate(order)
        for seed in (0, 1)
    ]


def test_bracketed_sweep_with_an_edge_asks_for_nothing() -> None:
    assert next_rates(sweep(), BELOW, ABOVE) == []


def test_unseen_edge_asks_for_the_next_rate_above() -> None:
    assert next_rates(sweep(kinds={}), BELOW, ABOVE) == [31.6]


def test_best_rate_at_the_lower_end_asks_for_one_below() -> None:
    assert next_rates(falling({10.0: "diverged"}, reverse=True), BELOW, ABOVE) == [3.2e-4]


def test_best_rate_at_the_lower_end_without_an_edge_asks_for_both() -> None:
    assert next_rates(falling(reverse=True), BELOW, ABOVE) == [3.2e-4, 31.6]


def test_best_rate_at_the_upper_end_asks_for_one_above_only() -> None:
    assert next_rates(falling(), BELOW, ABOVE) == [31.6]


def test_all_diverged_asks_for_one_below_only() -> None:
    assert next_rates(sweep(kinds=dict.fromkeys(RATES, "diverged")), BELOW, ABOVE) == [3.2e-4]


def test_one_diverged_seed_shows_the_edge() -> None:
    records = sweep(kinds={})
    records[-1] = trial(10.0, 1, "diverged")
    assert next_rates(records, BELOW, ABOVE) == []


def test_rates_are_added_one_after_another_until_the_limit_and_then_it_is_said() -> None:
    records = sweep(kinds={})
    for rate in ABOVE:
        assert next_rates(records, BELOW, ABOVE) == [rate]
        records = records + [trial(rate, seed) for seed in (0, 1)]
    decision = extension(records, BELOW, ABOVE)
    assert decision.add == []
    assert "all 2 rates allowed above the grid were tried; raise lr_sweep.extend_at_most" in decision.why


def test_rounds_end_once_an_added_rate_diverged() -> None:
    records = sweep(kinds={}) + [trial(31.6, seed, "diverged") for seed in (0, 1)]
    assert next_rates(records, BELOW, ABOVE) == []


@pytest.mark.parametrize("kinds", [None, {}, {3.0: "plateaued"}, {1e-3: "diverged"}, dict.fromkeys(RATES, "diverged")])
def test_a_rate_above_is_asked_for_until_the_edge_of_the_analysis_is_reached(kinds: dict[float, str] | None) -> None:
    records = sweep(kinds=kinds)
    edge = edge_of_stability(sweep_of(records))
    all_diverged = all(record.stability == "diverged" for record in records)
    assert (31.6 in next_rates(records, BELOW, ABOVE)) is not (edge.reached or all_diverged)


def test_trials_without_any_loss_ask_for_nothing() -> None:
    decision = extension([unfinished(0.01, 0)], BELOW, ABOVE)
    assert decision.add == []
    assert "no trial has a loss" in decision.why


@pytest.mark.parametrize(("kinds", "add"), [({}, [31.6]), (None, [])])
def test_stage_writes_the_decision(tmp_path: Path, kinds: dict[float, str] | None, add: list[float]) -> None:
    records = sweep(kinds=kinds)
    spec = ExtendSpec(**merge_fields(records), learning_rates=list(RATES), below=BELOW, above=ABOVE, round=0)
    extend(spec, write(records, tmp_path / "trials"), tmp_path / "rounds" / "0.json")
    written = json.loads((tmp_path / "rounds" / "0.json").read_text())
    assert written["add"] == add
    assert written["why"].endswith(".")
