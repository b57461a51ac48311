"""The judgement of the cost model: exact where times follow it, and honest about a family that does not."""

import re

import numpy as np
import pandas as pd
import pytest

from disaggregation.some_records import (
    COSTS,
    HEAD,
    OPERATIONS,
    ROUNDS,
    block,
    graphs_block,
    micro_block,
    summarized,
)
from plumbline.disaggregation.analysis.cost import judged
from plumbline.disaggregation.analysis.cost_tables import costs_told, scores
from plumbline.disaggregation.commands import compare
from plumbline.disaggregation.figures import FiguresSpec, figures
from plumbline.disaggregation.runtime.planning.cost_model import HERE, CallDemand, CostModel, Demands, Work
from plumbline.disaggregation.workload_record import WorkloadRecord

LINKS = ("loopback", "1gbit")


def blocks(**slowed):
    return [micro_block(number, link, **slowed) for number in range(2) for link in LINKS]


def test_times_that_follow_the_model_are_predicted_for_families_left_out_and_placed_at_the_best_place():
    found = judged(blocks())
    first, *others = scores(found)
    assert first.name == "all families"
    assert {one.name for one in others} == {"matmul", "conv", "norm"}
    assert all(one.error < 0.02 and one.spearman > 0.99 and one.regret < 0.01 for one in (first, *others))
    assert first.programs == 3 * len(OPERATIONS)
    assert {one.chosen for one in found.placements} == {"capture_only", "split"}
    assert first.worker_regret > 0.5 > first.here_regret > first.regret


def test_the_calibration_has_the_costs_that_times_were_made_with():
    found = judged(blocks()).model.model_dump()
    for name, value in COSTS.model_dump().items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=0.01), name
    for link, costs in COSTS.links.items():
        assert found["links"][link]["bytes_per_second"] == pytest.approx(costs.bytes_per_second, rel=0.01)


def test_a_family_is_judged_by_a_model_that_has_not_seen_it():
    found = {one.name: one for one in scores(judged(blocks(norm=1.5)))}
    assert found["norm"].error == pytest.approx(1 - 1 / 1.5, abs=0.01)


def test_without_the_switch_all_programs_take_as_many_times_as_long_as_the_rounds_say():
    records = blocks()
    found = judged(records)
    for link in LINKS:
        own = [one for one in records if one.link == link]
        logs = []
        for one in (place for place in found.placements if place.link == link):
            times = [{arm.name: np.median(np.log(arm.seconds)) for arm in record.arms} for record in own]
            logs += [each[f"{one.program}/full"] - each[f"{one.program}/{one.chosen}"] for each in times]
        ratio = found.saved[link]
        assert ratio.low <= ratio.value <= ratio.high
        assert ratio.value == pytest.approx(np.exp(np.mean(logs)), rel=0.01)


def test_the_findings_say_what_the_round_trip_measured_against_itself_gives():
    records = blocks()
    for arm in (arm for record in records if record.link == "1gbit" for arm in record.arms if arm.name == "control"):
        arm.seconds[:] = [1.2 * one for one in arm.seconds]
    found = judged(records)
    assert found.control["loopback"].value == pytest.approx(1, rel=0.01)
    assert found.control["1gbit"].value == pytest.approx(1.2, rel=0.01)
    assert any("round trip against itself (A/A) takes 1.20 [" in one for one in costs_told(found))


@pytest.mark.parametrize(("slowed", "said"), [(1.0, "met"), (1.5, "met, though not significantly"), (6.0, "missed")])
def test_the_rank_correlation_has_an_interval_and_a_target_inside_it_is_not_met_or_missed_significantly(slowed, said):
    found = judged(blocks(norm=slowed))
    first = scores(found)[0]
    told = next(costs_told(found))
    assert f"rank correlation of {first.spearman:.3f} [{first.spearman_low:.3f}, {first.spearman_high:.3f}]" in told
    assert f"(target: at least 0.95; {said})" in told


def test_a_sentence_has_no_interval_where_one_program_gives_none():
    (told,) = (one for one in costs_told(judged([*blocks(), pipeline_block(0)])) if "vision_cnn" in one)
    assert re.search(r"mean error \d+\.\d%, rank correlation [−\d.]+;", told), told


def test_the_program_that_is_furthest_off_is_said_to_be_predicted_too_fast_or_too_slow_without_a_cause():
    for slowed, said in ((1.5, "too fast"), (0.6, "too slow")):
        told = "\n".join(costs_told(judged(blocks(norm=slowed))))
        found = re.search(r"furthest off is (norm_\w+), .* predicted too (fast|slow), at (\d+)% of its time\.", told)
        assert found, told
        assert f"too {found[2]}" == said
        assert float(found[3]) == pytest.approx(100 / slowed, abs=1.5)


def test_another_workload_is_predicted_by_a_calibration_that_has_not_seen_it():
    work = {"towers": Work(operations=50, parts=[(1e9, 1e6, 50)])}
    plans = {name: [CallDemand(worker=0, work="towers", sent_bytes=1e5)] for name in ("full", "no_branches")}
    plans["capture_only"] = [CallDemand(worker=-1, work="towers")]
    other = graphs_block(0, costs=Demands(work=work, plans=plans))
    found = {one.variant: one for one in judged([*blocks(), other]).predictions if one.workload == other.workload}
    assert found.keys() == plans.keys()
    for name, one in found.items():
        assert one.predicted == pytest.approx(COSTS.seconds(plans[name], work, "loopback"), rel=0.1)
        assert one.measured == pytest.approx(np.median(next(arm.seconds for arm in other.arms if arm.name == name)))


def pipeline_block(number, first_half=0.5):
    """A block of `vision_cnn` whose pipeline loses to one worker that takes the whole batch in one call.

    first_half: the share of the operations on the first worker, which each block chooses anew.
    """
    parts = {"whole": 1.0, "part": 1 / 16, "first": first_half / 16, "second": (1 - first_half) / 16}
    work = {name: Work(operations=2, parts=[(2e9 * share, 1e6, 2)]) for name, share in parts.items()}
    pipeline = []
    for first in range(0, 32, 2):
        pipeline.append(CallDemand(worker=0, work="first", sent_bytes=5e4, hop_bytes=1e5, answers=False))
        pipeline.append(CallDemand(worker=1, work="second", hops=[first], returned_bytes=400))
    plans = {
        "full": pipeline,
        "no_pipeline": [CallDemand(worker=0, work="part", sent_bytes=5e4, returned_bytes=400)] * 16,
        "remote": [CallDemand(worker=0, work="whole", sent_bytes=8e5, returned_bytes=6400)],
        "capture_only": [CallDemand(worker=HERE, work="whole")],
    }
    times = {"local": 0.03, "control": 0.03, "capture_only": 0.06, "full": 0.05, "no_pipeline": 0.09, "remote": 0.04}
    arms = [
        {"name": name, "seconds": [one] * ROUNDS, "bytes": None, "round_trips": None} for name, one in times.items()
    ]
    values = {"trial": f"vision_cnn-loopback-{number}", "outcome": "ok", "device": "cpu", "link": "loopback"}
    values |= {"workload": "vision_cnn", "block": number, "arms": arms, "costs": Demands(work=work, plans=plans)}
    values |= {"serial": "no_pipeline", "undivided": "remote", "spec": {"block": number}}
    return WorkloadRecord.model_validate(HEAD | values)


def test_one_worker_may_take_a_pipelines_whole_batch_in_one_call():
    (place,) = (one for one in judged([*blocks(), pipeline_block(0)]).placements if one.family == "vision_cnn")
    assert place.best == "remote"
    assert place.worker_regret == 0  # local is faster here, but nothing can place a program's module
    assert place.here_regret == pytest.approx(0.06 / 0.04 - 1)


def test_a_pipeline_that_each_block_cuts_anew_is_predicted_block_by_block():
    records = [pipeline_block(0), pipeline_block(1, first_half=0.9)]
    found = judged([*blocks(), *records])
    (one,) = (each for each in found.predictions if (each.family, each.variant) == ("vision_cnn", "full"))
    each = [found.model.seconds(block.costs.plans["full"], block.costs.work, "loopback") for block in records]
    assert each[1] > 1.2 * each[0]
    assert one.predicted == pytest.approx(np.sqrt(each[0] * each[1]))


def test_the_summary_writes_the_calibration_the_table_the_findings_and_the_figure(tmp_path):
    folder = summarized(tmp_path, [block(0), block(1)], blocks())
    assert CostModel.read(folder / "calibration.json").links.keys() == set(LINKS)
    frame = pd.read_csv(folder / "cost_model.csv")
    assert len(frame) == 2 * 3 * len(OPERATIONS) * 4
    errors = frame["predicted_seconds"] / frame["measured_seconds"] - 1
    assert list(errors) == pytest.approx(list(frame["relative_error"]))
    assert (frame.groupby(["program", "link"])["is_chosen"].sum() == 1).all()
    text = (folder / "disaggregation_analysis.md").read_text()
    assert "target: at most 15%; met" in text
    assert "Without `cost_placement`, that is, always on one worker" in text
    assert "| `cost_model.csv`" in (folder / "claims.md").read_text()
    assert "all families &" in (folder / "tables" / "cost_model.tex").read_text()
    figures(FiguresSpec(code="", inputs=""), folder / "results.json", folder / "figures" / "latency.pdf")
    assert (folder / "figures" / "cost_model.png").stat().st_size > 30_000


def test_operations_of_two_results_are_one_number_a_link_and_variant_each_over_its_own_local_run(tmp_path):
    for name in ("before", "after"):
        summarized(tmp_path / name, [block(0), block(1)], blocks())
    found = compare(tmp_path / "before", tmp_path / "after", None).values["changes"]
    times = [one for one in found if one["measure"] == "time_over_local"]
    own = {one["unit"]: one for one in times if one["unit"].startswith("microbenchmark")}
    variants = ("capture_only", "full", "split", "remote", "rpc")
    assert own.keys() == {f"microbenchmark {link} {variant}" for link in LINKS for variant in variants}
    assert own["microbenchmark loopback capture_only"]["before"] == pytest.approx(2, rel=0.02)
    record = micro_block(0)
    times = {arm.name: np.median(arm.seconds) for arm in record.arms}
    programs = [name.removesuffix("/local") for name in times if name.endswith("/local")]
    logs = [np.log(times[f"{one}/full"] / times[f"{one}/local"]) for one in programs]
    assert own["microbenchmark loopback full"]["before"] == pytest.approx(np.exp(np.mean(logs)), rel=0.01)
    assert {one["verdict"] for one in found} == {"equal"}


def test_without_the_micro_workload_nothing_is_calibrated_and_nothing_claimed(tmp_path):
    assert judged([graphs_block(0)]) is None
    assert list(costs_told(None)) == []
    folder = summarized(tmp_path, [block(0)], [graphs_block(0)])
    assert (folder / "calibration.json").read_text() == "null\n"
    assert "cost model" not in (folder / "disaggregation_analysis.md").read_text()
