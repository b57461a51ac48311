"""Plans give what the module gives on two workers, and move only what their policy says."""

import signal

import pytest
import torch

from disaggregation.runtime.pairs import SECRET
from disaggregation.runtime.some_graphs import Language, Layers, Towers, captured, two_workers
from disaggregation.runtime.workers import forked_worker
from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.deployment import Deployment
from plumbline.disaggregation.runtime.models.flat import Weights
from plumbline.disaggregation.runtime.planning.schedule import Policy, cut, here, one_by_one, schedule, staged
from plumbline.disaggregation.runtime.serving.connection import Bounds
from plumbline.disaggregation.runtime.serving.hosted import EXEC, HANDLE, PEER_SEND, WEIGHTS
from plumbline.disaggregation.runtime.transport.protocol import Op
from plumbline.disaggregation.runtime.transport.remote import ClosedError, Remote, RequestRefusedError

TOKENS = {"tokens": torch.arange(20).reshape(4, 5) % 11}
IMAGES = {"image": torch.randn(6, 8, generator=torch.Generator().manual_seed(0))}
QUESTIONS = {"image": torch.randn(3, 4), "question": torch.tensor([[1, 2], [3, 4], [5, 6]])}
PREFILL = ("weights_resident", "state_resident", "last_logits", "server_sampling", "wanted_only", "split")


def language():
    return captured(Language(), TOKENS, ("logits", "state"), ("logits",), (4, 2), states=("state",))


def layers():
    return captured(Layers(), IMAGES, ("scores",), ("scores",), (6, 1), modalities={"image": "image"})


def towers():
    modalities = {"image": "image", "question": "text"}
    return captured(Towers(), QUESTIONS, ("answers", "seen", "read"), ("answers",), (3,), modalities=modalities)


def moved(deployment, plan, inputs):
    """What a call gives, and how many bytes went over each connection."""
    before = [one.wire.meter.sent_bytes + one.wire.meter.received_bytes for one in deployment.remotes]
    found = deployment.run(plan, inputs)
    after = [one.wire.meter.sent_bytes + one.wire.meter.received_bytes for one in deployment.remotes]
    return found, [now - then for now, then in zip(after, before, strict=True)]


def test_each_switch_of_prefill_changes_what_moves_and_not_the_token():
    program, weights, expected = language()
    token = expected["logits"][:, -1].argmax(-1)
    full = Policy.of(*PREFILL)
    with two_workers(weights) as deployment:
        plans = {name: schedule(program, full.without(name)) for name in PREFILL}
        plans["full"] = schedule(program, full)
        sizes = {}
        for name, plan in plans.items():
            deployment.load(plan)
            found, cost = moved(deployment, plan, TOKENS)
            sizes[name] = sum(cost)
            logits = found.get("logits")
            assert torch.equal(found["token"] if logits is None else logits[:, -1].argmax(-1), token)
            for output in found.keys() & {"state"}:
                torch.testing.assert_close(found[output], expected[output])
        assert sizes["full"] == sizes["last_logits"] < sizes["server_sampling"]
        assert sizes["state_resident"] - sizes["full"] >= expected["state"].nbytes
        assert sizes["weights_resident"] - sizes["full"] >= 2 * sum(one.nbytes for one in weights.values())
        deployment.run(plans["full"], TOKENS)
        kept = [number for number, name in enumerate(["state", "token"] * 2) if name == "state"]
        states = [deployment.fetch(worker, number) for worker, number in enumerate(kept)]
        torch.testing.assert_close(torch.cat(states), expected["state"])


def test_a_pipeline_of_micro_batches_gives_the_whole_batch_and_a_hop_keeps_values_off_the_link():
    program, weights, expected = layers()
    full = Policy.of("weights_resident", "wanted_only", "pipeline", "direct_hop")
    plans = {name: schedule(program, full.without(name), micro_batches=6) for name in ("split", "direct_hop")}
    plans["pipeline"] = staged(program, full)
    plans["one_by_one"] = one_by_one(program, full, 6)
    assert {name: len(plan.calls) for name, plan in plans.items()} == {
        "split": 12,
        "direct_hop": 12,
        "pipeline": 2,
        "one_by_one": 6,
    }
    assert {call.worker for call in plans["one_by_one"].calls} == {0}
    assert [plan.round_trips for plan in plans.values()] == [1, 2, 1, 1]
    costs = {}
    with two_workers(weights) as deployment:
        for name, plan in plans.items():
            deployment.load(plan)
            found, costs[name] = moved(deployment, plan, IMAGES)
            torch.testing.assert_close(found["scores"], expected["scores"])
    crossing = IMAGES["image"].nbytes  # as wide as the images
    for with_hop, through_client in zip(costs["split"], costs["direct_hop"], strict=True):
        assert through_client - with_hop >= crossing


def test_an_unknown_switch_of_a_policy_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=r"policy: no switch 'pipelin'; there are .*pipeline"):
        Policy.of("weights_resident", "pipelin")


def test_branches_run_on_two_workers_and_meet_on_the_first():
    program, weights, expected = towers()
    full = Policy.of("weights_resident", "state_resident", "wanted_only", "branches")
    plans = [schedule(program, full, workers=2), schedule(program, full.without("wanted_only"))]
    plans += [schedule(program, Policy.of("weights_resident", "branches"), workers=1)]
    plans += [schedule(program, Policy.of("weights_resident", "wanted_only"))]
    assert [sorted({call.worker for call in plan.calls}) for plan in plans] == [[0, 1], [0, 1], [0], [0]]
    longest, other, _ = plans[0].calls
    assert longest.graph.flops > other.graph.flops
    with two_workers(weights) as deployment:
        for plan, outputs in zip(plans, [{"answers"}, set(expected), set(expected), {"answers"}], strict=True):
            deployment.load(plan)
            found, _ = moved(deployment, plan, QUESTIONS)
            assert found.keys() == outputs
            for name in outputs:
                torch.testing.assert_close(found[name], expected[name])


def test_the_cut_is_where_the_longer_half_is_shortest_and_one_value_crosses():
    graph = layers()[0].at(1)
    linear = [number for number, node in enumerate(graph.nodes) if node.op == "aten.linear.default"]
    assert linear[1] < cut(graph) <= linear[2]
    slow = {graph.nodes[linear[number]].name: cost for number, cost in enumerate([1.0, 0.5, 0.5, 1.2])}
    assert linear[1] < cut(graph, slow) <= linear[2]
    slow[graph.nodes[linear[3]].name] = 3.0
    assert linear[2] < cut(graph, slow) <= linear[3]


def test_weights_and_graphs_are_sent_once_for_all_connections_of_a_worker():
    program, weights, _ = layers()
    plan = schedule(program, Policy.of("weights_resident", "wanted_only"))
    sent = []
    with forked_worker() as worker:
        remotes = [Remote(worker.address, SECRET) for _ in range(2)]
        for remote in remotes:
            Deployment([remote], weights).load(plan)
            sent.append(remote.wire.meter.sent_bytes)
        assert sent[0] - sent[1] > Weights.of(weights).bytes
        assert sent[1] < 1000
        assert remotes[1].stats()["weights_bytes"] == Weights.of(weights).bytes
        remotes[0].close()
        Deployment([remotes[1]], weights).load(plan)
        remotes[1].close()
        third = Remote(worker.address, SECRET)
        assert third.stats()["weights_bytes"] == 0
        third.close()


class Asking:
    """A connection with one graph loaded, which reads 8 numbers of each of 6 rows."""

    def __init__(self, remote):
        program, weights, _ = layers()
        self.remote = remote
        self.deployment = Deployment([remote], weights)
        plan = schedule(program, Policy.of("weights_resident", "wanted_only"))
        self.deployment.load(plan)
        self.handle = self.deployment.handle(plan.calls[0], plan)

    def exec(self, inputs=1, outputs=1, places=b"\x01\0\0\0\0\x01\0\0\0\0", tensors=None, handle=None):
        body = EXEC.pack(7, inputs, outputs) + places
        sent = [torch.zeros(6, 8)] if tensors is None else tensors
        return self.remote.ask(Op.EXEC, self.handle if handle is None else handle, body, sent)


WRONG = {
    "foreign handle: graph 99": lambda asking: asking.exec(handle=99),
    "the graph has 1 inputs and 1 outputs": lambda asking: asking.exec(inputs=2),
    "1 tensors came, for 0 inputs": lambda asking: asking.exec(places=b"\x02\0\0\0\0\x01\0\0\0\0"),
    "nothing is held as 5": lambda asking: asking.exec(places=b"\x02\x05\0\0\0\x01\0\0\0\0", tensors=()),
    "image is torch.float64": lambda asking: asking.exec(tensors=[torch.zeros(3, 8, dtype=torch.float64)]),
    "an output cannot go by way 9": lambda asking: asking.exec(places=b"\x01\0\0\0\0\x09\0\0\0\0"),
    "an output cannot go by way 4": lambda asking: asking.exec(places=b"\x01\0\0\0\0\x04\0\0\0\0"),
    "nothing is kept as 3": lambda asking: asking.remote.ask(Op.FETCH, 3),
    "no such inbox": lambda asking: asking.remote.ask(Op.PEER_SEND, 0, PEER_SEND.pack(b"x" * 16, 0), [torch.zeros(1)]),
    "is not a peer of this worker": lambda asking: asking.remote.ask(Op.PEER, body=b"x" * 16 + b"127.0.0.1:22"),
    "these were not announced": lambda asking: asking.remote.ask(
        Op.WEIGHTS,
        asking.handle,
        WEIGHTS.pack(b"z" * 32, 4),
        [torch.frombuffer(bytearray(b'[["w","float32",[1]]]'), dtype=torch.uint8), torch.zeros(4, dtype=torch.uint8)],
    ),
    "weights of 1099511627776 bytes": lambda asking: asking.remote.ask(
        Op.WEIGHTS, asking.handle, WEIGHTS.pack(b"z" * 32, 1 << 40)
    ),
    "has another hash than was named": lambda asking: (
        asking.remote.ask(Op.GRAPH, body=bytes(32)),
        asking.remote.ask(
            Op.GRAPH,
            body=bytes(32),
            tensors=[torch.frombuffer(bytearray(layers()[0].at(1).json_text.encode()), dtype=torch.uint8)],
        ),
    ),
}


def test_what_does_not_fit_is_refused_with_its_reason_and_the_connection_goes_on():
    with forked_worker() as worker:
        asking = Asking(Remote(worker.address, SECRET))
        asking.remote.ask(Op.WEIGHTS, asking.handle, WEIGHTS.pack(b"y" * 32, 1000))  # so that buffers are taken
        for reason, wrong in WRONG.items():
            with pytest.raises(RequestRefusedError, match=reason):
                wrong(asking)
        assert asking.exec().tensors[0].shape == (6, 8)
        asking.remote.close()


@pytest.mark.parametrize("where", ["worker", "here"])
def test_inputs_that_do_not_fit_a_plan_are_one_line_with_what_it_takes_and_nothing_is_sent(where):
    program, weights, expected = layers()
    pipeline = Policy.of("weights_resident", "wanted_only", "pipeline", "direct_hop")
    plan = here(program) if where == "here" else schedule(program, pipeline, micro_batches=6)
    image = IMAGES["image"]
    wrong = {
        "image is missing; the plan takes image": {"img": image},
        r"image must be a tensor of float32 \[6, 8\], and is a list": {"image": image.tolist()},
        r"image must be a tensor of float32 \[6, 8\], and is of float64 \[6, 8\]": {"image": image.double()},
        r"float32 \[6, 8\], and is of float32 \[5, 8\]": {"image": image[:5]},
        r"float32 \[6, 8\], and is of float32 \[7, 8\]": {"image": image[[0, *range(6)]]},
        r"float32 \[6, 8\], and is of float32 \[6, 9\]": {"image": torch.zeros(6, 9)},
    }
    with two_workers(weights) as deployment:
        deployment.load(plan)
        for told, inputs in wrong.items():
            before = [one.wire.meter.sent_bytes for one in deployment.remotes]
            with pytest.raises(UserError, match=told):
                deployment.run(plan, inputs)
            assert [one.wire.meter.sent_bytes for one in deployment.remotes] == before
        torch.testing.assert_close(deployment.run(plan, IMAGES | {"more": image})["scores"], expected["scores"])


def test_a_deployment_whose_connection_was_closed_says_so():
    program, weights, _ = layers()
    plan = schedule(program, Policy.of("weights_resident", "wanted_only"))
    with two_workers(weights) as deployment:
        deployment.load(plan)
        deployment.remotes[1].close()
        with pytest.raises(ClosedError, match="the client has closed its connection"):
            deployment.run(plan, IMAGES)


def test_the_loss_of_a_peer_is_told_with_its_address():
    program, weights, _ = layers()
    plan = schedule(program, Policy.of("weights_resident", "wanted_only", "pipeline", "direct_hop"), micro_batches=6)
    with two_workers(weights) as deployment:
        deployment.load(plan)
        first, second = deployment.remotes
        deployment.workers[1].send(signal.SIGKILL)
        with pytest.raises(RequestRefusedError, match=f"peer {second.address}: "):
            first.answer(Op.EXEC)
        assert first.stats()["connections"] == 1


def test_values_of_a_session_are_bounded():
    program, weights, _ = layers()
    plan = schedule(program, Policy.of("weights_resident", "wanted_only"))
    with forked_worker(bounds=Bounds(session_bytes=4000)) as worker:
        remote = Remote(worker.address, SECRET)
        deployment = Deployment([remote], weights)
        deployment.load(plan)
        handle = deployment.handle(plan.calls[0], plan)
        for number in range(30):
            body = EXEC.pack(number, 1, 1) + b"\x01\0\0\0\0\x02" + HANDLE.pack(number)
            remote.wire.send_all(Op.EXEC, handle, body, [torch.zeros(6, 8)], seconds=1.0)
        with pytest.raises(RequestRefusedError, match=r"of at most 4000|bytes wait already"):
            remote.answer(Op.EXEC)
