"""Demands count what a plan moves and computes, and the cost model's choice of a place follows from them."""

import pytest
import torch

from disaggregation.runtime.some_graphs import Language, Layers, Towers, captured, two_workers
from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.planning.cost_model import HERE, CostModel, LinkCosts
from plumbline.disaggregation.runtime.planning.demands import demands
from plumbline.disaggregation.runtime.planning.placement import placed
from plumbline.disaggregation.runtime.planning.schedule import Policy, here, schedule

FRAME_BYTES = 512
"""The most that headers, descriptions, MACs and padding of one call take in these programs."""
TOKENS = {"tokens": torch.arange(20).reshape(4, 5) % 11}
IMAGES = {"image": torch.randn(6, 8, generator=torch.Generator().manual_seed(0))}
QUESTIONS = {"image": torch.randn(3, 4), "question": torch.tensor([[1, 2], [3, 4], [5, 6]])}
KEEPING = ("weights_resident", "state_resident", "wanted_only")


def language():
    return captured(Language(), TOKENS, ("logits", "state"), ("logits",), (4, 2), states=("state",))


def layers():
    return captured(Layers(), IMAGES, ("scores",), ("scores",), (6, 3, 1), modalities={"image": "image"})


def towers():
    modalities = {"image": "image", "question": "text"}
    return captured(Towers(), QUESTIONS, ("answers", "seen", "read"), ("answers",), (3,), modalities=modalities)


def frames(deployment):
    return sum(one.wire.meter.sent_frames for one in deployment.remotes)


@pytest.mark.parametrize(
    ("program", "inputs", "micro_batches", "policies"),
    [
        (language, TOKENS, 1, [KEEPING, (*KEEPING, "split"), ("weights_resident",), ()]),
        (layers, IMAGES, 6, [(*KEEPING, "pipeline"), (*KEEPING, "pipeline", "direct_hop"), KEEPING]),
        (towers, QUESTIONS, 1, [(*KEEPING, "branches"), (*KEEPING, "branches", "direct_hop"), ("weights_resident",)]),
    ],
)
def test_demands_are_the_bytes_and_requests_between_client_and_workers(program, inputs, micro_batches, policies):
    program, weights, _ = program()
    home = 1  # only the first worker sends to the other
    plans = {
        str(names): schedule(program, Policy.of(*names), micro_batches=micro_batches, home=home) for names in policies
    }
    told = demands(plans)
    with two_workers(weights) as deployment:
        for name, plan in plans.items():
            deployment.load(plan)
            before = [one.wire.meter.sent_bytes + one.wire.meter.received_bytes for one in deployment.remotes]
            asked = frames(deployment)
            deployment.run(plan, inputs)
            after = [one.wire.meter.sent_bytes + one.wire.meter.received_bytes for one in deployment.remotes]
            expected = sum(call.sent_bytes + call.returned_bytes for call in told.plans[name])
            assert sum(call.requests for call in told.plans[name]) == frames(deployment) - asked, name
            assert 0 <= sum(after) - sum(before) - expected <= FRAME_BYTES * 2 * len(plan.calls), name


def test_values_that_hop_wait_for_their_worker_and_count_once():
    program, _, _ = layers()
    plan = schedule(program, Policy.of(*KEEPING, "pipeline", "direct_hop"), micro_batches=6)
    first, second = demands({"plan": plan}).plans["plan"][:2]
    assert (first.hop_bytes, first.returned_bytes, first.answers) == (4 * 8, 0, False)
    assert (second.hops, second.waits, second.sent_bytes, second.returned_bytes) == ([0], [], 0, 4 * 8)


def test_a_program_runs_here_without_sending_anything():
    program, weights, expected = layers()
    plan = here(program)
    (call,) = demands({"here": plan}).plans["here"]
    assert (call.worker, call.sent_bytes, call.returned_bytes) == (HERE, 0, 0)
    with two_workers(weights) as deployment:
        deployment.load(plan)
        before = frames(deployment)
        torch.testing.assert_close(deployment.run(plan, IMAGES)["scores"], expected["scores"])
        assert frames(deployment) == before


class Weightless(torch.nn.Module):
    """A module that only computes."""

    def forward(self, image):
        return image.relu()


def test_a_program_without_weights_runs_on_a_worker_and_here():
    program, weights, expected = captured(Weightless(), IMAGES, ("scores",), ("scores",), (6,))
    assert weights == {}
    with two_workers(weights) as deployment:
        for plan in (here(program), schedule(program, Policy.of(*KEEPING)), schedule(program, Policy.of())):
            deployment.load(plan)
            torch.testing.assert_close(deployment.run(plan, IMAGES)["scores"], expected["scores"])


def costs(**changes):
    values = {"flops_per_second": 1e9, "memory_bytes_per_second": 1e9, "operation_seconds": 1e-6}
    values |= {"graph_seconds": 1e-9, "call_seconds": 1e-9, "serialisation_seconds_per_byte": 1e-12, "sharing": 1.0}
    links = {
        "near": LinkCosts(round_trip_seconds=1e-9, bytes_per_second=1e12),
        "far": LinkCosts(round_trip_seconds=1.0, bytes_per_second=1e12),
    }
    return CostModel(links=links, **values | changes)


def workers(plan):
    return sorted({call.worker for call in plan.calls})


def test_a_program_is_spread_where_that_is_fastest_and_stays_here_where_a_round_trip_costs_more():
    program, _, _ = layers()
    policy = Policy.of(*KEEPING, "split", "cost_placement")
    slow = {"flops_per_second": 1e3}  # computing takes longer than anything else
    assert workers(placed(program, policy, costs(**slow), "near")) == [0, 1]
    assert workers(placed(program, policy, costs(**slow, sharing=3.0), "near")) == [HERE]
    assert workers(placed(program, policy, costs(), "far")) == [HERE]


def test_without_the_switch_the_cost_model_decides_nothing():
    program, _, _ = layers()
    policy = Policy.of(*KEEPING, "split")
    assert placed(program, policy, costs(), "far") == schedule(program, policy)


def test_a_place_on_a_link_that_was_not_calibrated_is_refused():
    program, _, _ = layers()
    with pytest.raises(UserError, match="has no link 1gbit; it has near, far"):
        placed(program, Policy.of("cost_placement"), costs(), "1gbit")
