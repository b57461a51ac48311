"""A plan carried out: graphs and weights on their workers, and a call that goes through them.

All connections are written and read as they are ready, so that no worker waits for this side to read while this side
waits for it to read.
"""

import select
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.disaggregation.runtime.graphs.graph import Described, Graph
from plumbline.disaggregation.runtime.graphs.program import Program
from plumbline.disaggregation.runtime.models.flat import Weights
from plumbline.disaggregation.runtime.planning.cost_model import HERE
from plumbline.disaggregation.runtime.planning.schedule import Call, Plan, Route
from plumbline.disaggregation.runtime.serving.hosted import EXEC, HANDLE, PLACE, PRIVATE, WEIGHTS, Source, Way
from plumbline.disaggregation.runtime.transport.liveness import LOOK_SECONDS
from plumbline.disaggregation.runtime.transport.protocol import Op, PeerGoneError, json_object
from plumbline.disaggregation.runtime.transport.remote import Remote, RequestRefusedError

CPU = torch.device("cpu")
WAYS = {Route.DROP: Way.DROP, Route.CLIENT: Way.RETURN, Route.KEEP: Way.KEEP}


class Deployment:
    """A model's captured graphs on workers. The workers' connections are its own while a call runs."""

    def __init__(self, remotes: Sequence[Remote], weights: Mapping[str, Tensor], here: torch.device = CPU) -> None:
        """remotes: a connection to each worker; `connect_peers` lets the first send to the second. here: where calls of
        this process run.
        """
        self.remotes = list(remotes)
        self.weights = Weights.of(weights)
        self.here = here
        self._content = self.weights.content
        self._handles: dict[tuple[int, bytes, bool], int] = {}
        self._parts: dict[bytes, Weights] = {}
        self._here: dict[bytes, tuple[Program, dict[str, Tensor]]] = {}

    def connect_peers(self, source: int, target: int, address: str) -> None:
        """Has worker `source` connect to worker `target`, which it finds at `address`."""
        inbox = self.remotes[target].ask(Op.INBOX).body
        self.remotes[source].ask(Op.PEER, body=inbox + address.encode())

    def load(self, plan: Plan) -> None:
        """Brings graphs and weights to the workers, unless they have them."""
        for (worker, name), graph in plan.graphs.items():
            if worker != HERE:
                self._load(worker, graph, is_resident=plan.weights_resident)
            elif name not in self._here:
                program = Program(graph, self.here)
                self._here[name] = program, program.prepare(self.weights.to(self.here).tensors)

    def _load(self, worker: int, graph: Graph, *, is_resident: bool) -> None:
        key = (worker, graph.id, is_resident)
        if key in self._handles:
            return
        remote = self.remotes[worker]
        (handle,) = HANDLE.unpack(remote.ask(Op.GRAPH, body=graph.id).body)
        if not handle:
            text = torch.frombuffer(bytearray(graph.json_text.encode()), dtype=torch.uint8)
            (handle,) = HANDLE.unpack(remote.ask(Op.GRAPH, body=graph.id, tensors=[text]).body)
        if is_resident and graph.weights:
            named = WEIGHTS.pack(self._content, self.weights.bytes)
            if remote.ask(Op.WEIGHTS, handle, named).body != b"\x01":
                remote.ask(Op.WEIGHTS, handle, named, _sent(self.weights))
        elif graph.weights:
            part = self._parts[graph.id] = self.weights.part(list(graph.weights))
            remote.ask(Op.WEIGHTS, handle, WEIGHTS.pack(PRIVATE, part.bytes))
        self._handles[key] = handle

    def run(self, plan: Plan, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the plan's calls return, joined by rows where several return the same name.

        inputs: by name, of all rows; those that the plan does not read are passed over. Raises UserError for a missing
        one or one of another type or shape, RequestRefusedError, and PeerGoneError when a worker is lost; the
        connections are closed then.
        """
        _check(plan.inputs, inputs)
        if [call.worker for call in plan.calls] == [HERE]:
            program, prepared = self._here[plan.calls[0].graph.id]
            found = program.run(prepared, {name: one.to(self.here) for name, one in inputs.items()})
            routes = plan.calls[0].routes
            return {name: one.cpu() for name, one in found.items() if routes[name] is Route.CLIENT}
        for remote in self.remotes:
            remote.check_open()
        try:
            return _Flight(self, plan, inputs).outputs()
        except BaseException:
            for remote in self.remotes:
                remote.cut_off()
            raise

    def fetch(self, worker: int, number: int) -> Tensor:
        """A value that a run has kept: `number` counts from 0 over the outputs of a plan's calls, in their order."""
        return self.remotes[worker].ask(Op.FETCH, number).tensors[0]

    def send_weights(self, plan: Plan) -> None:
        """Queues the weights of graphs on workers that keep none."""
        for (worker, name), graph in plan.graphs.items():
            if graph.weights:
                part = self._parts[name]
                handle = self._handles[worker, name, False]
                self.remotes[worker].wire.send(Op.WEIGHTS, handle, WEIGHTS.pack(PRIVATE, part.bytes), _sent(part))

    def handle(self, call: Call, plan: Plan) -> int:
        """The handle of a call's graph."""
        return self._handles[call.worker, call.graph.id, plan.weights_resident]


class _Flight:
    """One call of the whole: what was asked, and what has come back."""

    def __init__(self, deployment: Deployment, plan: Plan, inputs: Mapping[str, Tensor]) -> None:
        self.deployment, self.plan, self.inputs = deployment, plan, inputs
        self.returned: dict[tuple[int, str], Tensor] = {}
        self.numbers: dict[tuple[int, str], int] = {}
        for number, call in enumerate(plan.calls):
            for name in sorted(call.graph.outputs):
                self.numbers[number, name] = len(self.numbers)
        self.targets = {
            (one.call, one.output): plan.calls[number].worker
            for number, call in enumerate(plan.calls)
            for one in call.made.values()
        }

    def outputs(self) -> dict[str, Tensor]:
        """Asks for every call as soon as what it needs is there, and waits for all that comes back."""
        calls = self.plan.calls
        waiting = list(range(len(calls)))
        awaited = [number for number, call in enumerate(calls) if Route.CLIENT in call.routes.values()]
        if not self.plan.weights_resident:
            self.deployment.send_weights(self.plan)
        self.deployment.remotes[0].wire.meter.round_trips += self.plan.round_trips
        while waiting or any(not self._has_returned(number) for number in awaited):
            ready = [number for number in waiting if self._can_ask(calls[number])]
            for number in ready:
                self._ask(number, calls[number])
                waiting.remove(number)
            if any(not self._has_returned(number) for number in awaited):
                self._exchange()
        joined: dict[str, list[Tensor]] = {}
        used = {(one.call, one.output) for call in calls for one in call.made.values()}
        for place, value in sorted(self.returned.items()):
            if place not in used:
                joined.setdefault(place[1], []).append(value)
        return {name: torch.cat(values) if len(values) > 1 else values[0] for name, values in joined.items()}

    def _has_returned(self, number: int) -> bool:
        routes = self.plan.calls[number].routes
        return all((number, name) in self.returned for name, route in routes.items() if route is Route.CLIENT)

    def _passes_here(self, call: int, output: str) -> bool:
        return self.plan.calls[call].routes[output] is Route.CLIENT

    def _can_ask(self, call: Call) -> bool:
        needed = [(one.call, one.output) for one in call.made.values() if self._passes_here(one.call, one.output)]
        return all(place in self.returned for place in needed)

    def _ask(self, number: int, call: Call) -> None:
        places, tensors = [], []
        for name in sorted(call.graph.inputs):
            made = call.made.get(name)
            if made is not None and not self._passes_here(made.call, made.output):
                places.append(PLACE.pack(Source.ARRIVED, self.numbers[made.call, made.output]))
                continue
            value = self.inputs[name] if made is None else self.returned[made.call, made.output]
            tensors.append(value if made is not None or call.rows is None else value[slice(*call.rows)])
            places.append(PLACE.pack(Source.SENT, 0))
        for name in sorted(call.graph.outputs):
            way = self._way(number, call, name)
            places.append(PLACE.pack(way, self.numbers[number, name]))
        body = EXEC.pack(number, len(call.graph.inputs), len(call.graph.outputs)) + b"".join(places)
        self.deployment.remotes[call.worker].wire.send(Op.EXEC, self.deployment.handle(call, self.plan), body, tensors)

    def _way(self, number: int, call: Call, name: str) -> Way:
        route = call.routes[name]
        if route is Route.HOP:
            return Way.LOCAL if self.targets[number, name] == call.worker else Way.SEND
        return WAYS[route]

    def _exchange(self) -> None:
        """Waits until a worker takes or sends something."""
        remotes = {one.wire.socket.fileno(): one for one in self.deployment.remotes}
        poll = select.poll()
        for number, remote in remotes.items():
            poll.register(number, select.POLLIN | (select.POLLOUT if remote.wire.has_unsent else 0))
        seconds = max(one.reply_seconds for one in remotes.values())
        until = time.monotonic() + seconds
        while not (events := poll.poll(1000 * LOOK_SECONDS)):
            for remote in remotes.values():
                remote.wire.check_alive()
            if time.monotonic() > until:
                raise PeerGoneError(f"the workers have been silent for {seconds:g} s")
        for number, event in events:
            remote = remotes[number]
            if event & select.POLLOUT:
                remote.wire.flush()
            if event & ~select.POLLOUT:
                remote.wire.fill()
                while frame := remote.wire.frame():
                    if frame.op is Op.ERR:
                        told = json_object(frame.body).get("message")
                        raise RequestRefusedError(f"worker {remote.address}: {told}")
                    self._take(frame.session, frame.tensors)

    def _take(self, number: int, tensors: Sequence[Tensor]) -> None:
        call = self.plan.calls[number]
        names = [name for name in sorted(call.graph.outputs) if call.routes[name] is Route.CLIENT]
        self.returned |= {(number, name): one for name, one in zip(names, tensors, strict=True)}


def _check(wanted: Mapping[str, Described], given: Mapping[str, Tensor]) -> None:
    """Raises UserError for inputs that are not those of the plan."""
    for name, one in wanted.items():
        if name not in given:
            raise UserError(f"inputs: {name} is missing; the plan takes {', '.join(wanted)}")
        found, told = given[name], f"inputs: {name} must be a tensor of {one.dtype} {one.shape}"
        if not isinstance(found, Tensor):
            raise UserError(f"{told}, and is a {type(found).__name__}")
        if (dtype := str(found.dtype).removeprefix("torch.")) != one.dtype or list(found.shape) != one.shape:
            raise UserError(f"{told}, and is of {dtype} {list(found.shape)}; capture the program for it, or change it")


def _sent(weights: Weights) -> list[Tensor]:
    return [torch.frombuffer(bytearray(weights.description), dtype=torch.uint8), weights.memory]
