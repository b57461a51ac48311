"""The cost model says what its formula says, and calibration finds the costs that times were made with."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.planning.calibration import Observation, calibrated
from plumbline.disaggregation.runtime.planning.cost_model import HERE, CallDemand, CostModel, LinkCosts, Work

COSTS = CostModel(
    flops_per_second=1e9,
    memory_bytes_per_second=1e8,
    operation_seconds=1e-5,
    graph_seconds=1e-4,
    call_seconds=1e-4,
    serialisation_seconds_per_byte=1e-9,
    sharing=1.0,
    links={
        "loopback": LinkCosts(round_trip_seconds=1e-4, bytes_per_second=1e9),
        "1gbit": LinkCosts(round_trip_seconds=4e-4, bytes_per_second=1.25e8),
    },
)
BOUND_BY_ARITHMETIC, BOUND_BY_MEMORY = (5e6, 1e5, 1), (1e3, 3e5, 2)
WORK = {"both": Work(operations=2, parts=[BOUND_BY_ARITHMETIC, BOUND_BY_MEMORY])}
BOTH_SECONDS = 1e-4 + 5e-3 + 2 * 3e-3 + 2 * 1e-5
"""Of the graph: its start, and two operations of three parts."""


def test_a_call_costs_its_round_trip_bytes_roofline_operations_and_serialisation():
    call = CallDemand(worker=0, work="both", sent_bytes=2e6, returned_bytes=1e6)
    for link, trip, rate in (("loopback", 1e-4, 1e9), ("1gbit", 4e-4, 1.25e8)):
        expected = trip + 3e6 / rate + BOTH_SECONDS + 2e-4 + 2 * 3e6 * 1e-9
        assert COSTS.seconds([call], WORK, link) == pytest.approx(expected)


def test_weights_that_come_before_a_call_are_a_request_of_their_own():
    call = CallDemand(worker=0, work="both", sent_bytes=2e6)
    with_weights = call.model_copy(update={"requests": 2})
    once, twice = (COSTS.seconds([one], WORK, "loopback") for one in (call, with_weights))
    assert twice - once == pytest.approx(2 * COSTS.call_seconds)


def test_here_nothing_moves_and_no_calls_are_a_round_trip():
    assert COSTS.seconds([CallDemand(worker=HERE, work="both")], WORK, "1gbit") == pytest.approx(BOTH_SECONDS)
    assert COSTS.seconds([CallDemand(worker=HERE, sent_bytes=1e6)], {}, "1gbit") == pytest.approx(2e-3)
    assert COSTS.seconds([], {}, "1gbit") == 4e-4


@pytest.mark.parametrize("micro_batches", [1, 2, 16])
def test_equal_stages_take_as_often_as_there_are_micro_batches_and_one_stage_more(micro_batches):
    stages = 2
    free = COSTS.model_copy(
        update={
            "call_seconds": 1e-12,
            "links": {"loopback": LinkCosts(round_trip_seconds=1e-12, bytes_per_second=1e18)},
        }
    )
    calls = []
    for number in range(micro_batches):
        calls.append(CallDemand(worker=0, work="both", answers=False))
        calls.append(CallDemand(worker=1, work="both", hops=[2 * number]))
    expected = (micro_batches + stages - 1) * BOTH_SECONDS
    assert free.seconds(calls, WORK, "loopback") == pytest.approx(expected, rel=1e-6)


def test_branches_take_as_long_as_the_longest_and_longer_where_workers_share_the_machine():
    work = WORK | {"short": Work(operations=1, parts=[(1e6, 0, 1)])}
    calls = [CallDemand(worker=0, work="both"), CallDemand(worker=1, work="short")]
    alone = COSTS.seconds(calls[:1], work, "loopback")
    assert COSTS.seconds(calls, work, "loopback") == pytest.approx(alone)
    assert COSTS.model_copy(update={"sharing": 1.5}).seconds(calls, work, "loopback") > alone


def test_what_passes_through_the_client_waits_for_it():
    through = [CallDemand(worker=0, work="both", returned_bytes=1e6)]
    through.append(CallDemand(worker=1, work="both", sent_bytes=1e6, waits=[0]))
    one = COSTS.seconds([CallDemand(worker=0, work="both", sent_bytes=1e6)], WORK, "1gbit")
    assert COSTS.seconds(through, WORK, "1gbit") == pytest.approx(2 * one)


@given(
    more=st.tuples(*[st.floats(0, 1e9)] * 4),
    base=st.tuples(*[st.floats(0, 1e9)] * 4),
    link=st.sampled_from(["loopback", "1gbit"]),
)
def test_more_bytes_and_more_flops_never_take_less_time(base, more, link):
    def seconds(sent, returned, flops, moved):
        work = {"one": Work(operations=1, parts=[(flops, moved, 1)])}
        calls = [
            CallDemand(worker=0, work="one", sent_bytes=sent, hop_bytes=returned, answers=False),
            CallDemand(worker=1, work="one", returned_bytes=returned, hops=[0]),
        ]
        return COSTS.seconds(calls, work, link)

    both = [first + second for first, second in zip(base, more, strict=True)]
    assert seconds(*both) >= seconds(*base) * (1 - 1e-12)


def observations(noise=0.0):
    """Times that COSTS gives for calls of many sizes, as the micro workload has them."""
    draw = np.random.default_rng(0)
    shared = COSTS.model_copy(update={"sharing": 1.3})
    found = []
    for flops, moved, count in ((1e3, 1e3, 2), (1e8, 1e6, 1), (1e3, 1e7, 1), (1e7, 1e5, 20), (1e2, 1e4, 40)):
        work = {"one": Work(operations=count, parts=[(flops, moved, count)])}
        one = CallDemand(worker=0, work="one", sent_bytes=moved / 2, returned_bytes=100)
        plans = ([], [one], [one, replace_worker(one)], [CallDemand(worker=HERE, work="one")])
        plans += ([CallDemand(worker=HERE, sent_bytes=moved)],)
        for link in COSTS.links:
            for calls in plans:
                seconds = shared.seconds(calls, work, link) * float(np.exp(draw.normal(0, noise)))
                found.append(Observation(link=link, calls=calls, work=work, seconds=seconds))
    return shared, found


def replace_worker(call):
    return call.model_copy(update={"worker": 1})


def values(costs):
    return [value for value in costs.model_dump().values() if isinstance(value, float)]


def test_calibration_finds_the_costs_that_times_were_made_with():
    true, observed = observations()
    found = calibrated(observed)
    assert values(found) == pytest.approx(values(true), rel=1e-3)
    assert found.links.keys() == true.links.keys()
    for link, costs in found.links.items():
        assert list(costs.model_dump().values()) == pytest.approx(
            list(true.links[link].model_dump().values()), rel=1e-3
        )


def test_calibration_of_noisy_times_predicts_others_within_the_noise():
    true, observed = observations(noise=0.05)
    slow = replace(observed[0], seconds=50 * observed[0].seconds)
    found = calibrated([slow, *observed[1:]])
    errors = [
        found.seconds(one.calls, one.work, one.link) / true.seconds(one.calls, one.work, one.link) - 1
        for one in observed
    ]
    assert np.mean(np.abs(errors)) < 0.05


def test_nothing_measured_calibrates_nothing():
    with pytest.raises(ValueError, match="nothing was measured"):
        calibrated([])


def test_a_calibration_is_read_as_it_was_written_and_a_wrong_one_is_refused_by_name(tmp_path):
    path = tmp_path / "calibration.json"
    COSTS.write(path)
    assert CostModel.read(path) == COSTS
    values = json.loads(path.read_text())
    for change, message in (
        ({"flops_per_second": -1}, "calibration.json: flops_per_second: .* greater than 0"),
        ({"links": {"loopback": {"round_trip_seconds": 1e-4}}}, "links.loopback.bytes_per_second: missing"),
        ({"peak": 1}, "peak: no such key"),
    ):
        path.write_text(json.dumps(values | change))
        with pytest.raises(UserError, match=message):
            CostModel.read(path)
    for text, message in (("null", "because microbenchmark had no result"), ("[]", "is not a calibration")):
        path.write_text(text)
        with pytest.raises(UserError, match=f"calibration.json: .*{message}"):
            CostModel.read(path)
    with pytest.raises(UserError, match="does not exist"):
        CostModel.read(tmp_path / "none.json")


def test_a_link_that_was_not_calibrated_is_named():
    with pytest.raises(UserError, match="the calibration has no link 10gbit; it has loopback, 1gbit"):
        COSTS.seconds([], {}, "10gbit")
