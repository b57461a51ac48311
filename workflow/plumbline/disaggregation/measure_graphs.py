"""Stage `disaggregation.measure_graphs`: one block of the workloads of captured graphs, on every link.

Each workload on each link has a fresh client, two fresh workers, and a fresh owner for each baseline behind another
system's calls, in which all variants take turns.
"""

import os
import secrets
import socket
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from plumbline.core.run.device import device_name, torch_device
from plumbline.core.run.processes import Member, run_group
from plumbline.core.run.progress import track
from plumbline.core.run.record import recording
from plumbline.core.run.stage import stage
from plumbline.disaggregation.baselines.others import Others
from plumbline.disaggregation.blocks.arms import MeasureGraphsSpec
from plumbline.disaggregation.blocks.cores import bound_to
from plumbline.disaggregation.blocks.graph_turns import ask
from plumbline.disaggregation.blocks.links import PORT, Network, network
from plumbline.disaggregation.blocks.micro_turns import ask_micro
from plumbline.disaggregation.measure import WEIGHTS_BYTES
from plumbline.disaggregation.runtime.models.weights import Store
from plumbline.disaggregation.runtime.serving.connection import Bounds
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.runtime.worker import Worker
from plumbline.disaggregation.settings import MICRO, Link, WorkloadName
from plumbline.disaggregation.workload_record import WorkloadRecord


def import_ahead() -> None:
    """Imports once, before any process forks, what each of them would spend seconds on."""
    import transformers.models.clip.modeling_clip
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.resnet.modeling_resnet  # noqa: F401


@stage
def measure_graphs(spec: MeasureGraphsSpec, graphs: Path, output: Path) -> None:
    """Writes a record for each workload and link beside `output`, which is that of the first."""
    import_ahead()
    for name, link in track(spec.pairs, len(spec.pairs), "workloads"):
        trial = f"{name}-{link}-{spec.block}"
        with (
            recording(output.parent / f"{name}-{link}.json", WorkloadRecord, trial=trial, spec=spec) as findings,
            tempfile.TemporaryDirectory(prefix="plumb-") as folder,
        ):
            others = Others.of(spec.baselines, Path(folder))
            findings |= {"workload": name, "link": link, "block": spec.block, "unavailable": others.unavailable}
            findings |= _block(spec, graphs, name, link, others)


def _block(spec: MeasureGraphsSpec, graphs: Path, name: WorkloadName, link: Link, others: Others) -> dict[str, Any]:
    """What fresh processes find of one workload on one link."""
    secret = secrets.token_bytes(32)
    with ExitStack() as open_ones:
        between = open_ones.enter_context(closing(network(link)))
        beside = None
        if between.listening is not None:
            beside = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
        addresses = [between.address, _second_address(between, beside)]
        asking = (spec, between, addresses, secret, graphs, others)
        client = partial(ask_micro, *asking) if name == MICRO else partial(ask, *asking, name)
        found = run_group(
            [
                Member(work=partial(serve_both, spec, between, beside, addresses, secret), name="workers", first=True),
                Member(work=client, name="client", first=True),
                *others.members(between),
            ]
        )
    return {key: value for one in found for key, value in one.items()}


def _second_address(between: Network, beside: socket.socket | None) -> str:
    """Where the client, and the first worker, find the second."""
    host, _, _ = between.address.rpartition(":")
    return f"{host}:{PORT + 1 if beside is None else beside.getsockname()[1]}"


def serve_both(
    spec: MeasureGraphsSpec, between: Network, beside: socket.socket | None, addresses: list[str], secret: bytes
) -> dict[str, Any]:
    """Both workers, on the far side of the link; nothing limits what goes from one to the other."""
    first = between.worker_end()
    if beside is None:
        host, _, _ = between.address.rpartition(":")
        beside = socket.create_server((host, PORT + 1))
    members = [
        Member(work=partial(serve, spec, listening, addresses, secret, number), name=f"worker {number}", first=True)
        for number, listening in enumerate((first, beside))
    ]
    found = run_group(members)
    return {
        "worker_pids": [one["pid"] for one in found],
        "worker_cores": [one["core"] for one in found],
        "device": found[0]["device"],
    }


def serve(
    spec: MeasureGraphsSpec, listening: socket.socket, addresses: list[str], secret: bytes, number: int
) -> dict[str, Any]:
    """A worker: serves until its client, and the other worker, have gone.

    On a core of its own, as if on a machine of its own: woken at once by one client, both would share one for as long
    as a call takes.
    """
    core = bound_to(number)
    device = torch_device(spec.device)
    limits, bounds = Limits(spin_seconds=spec.spin_seconds), Bounds(peers=tuple(addresses))
    worker = Worker(listening, secret, Store(WEIGHTS_BYTES, device), limits, bounds)
    was_used = False
    while not was_used or worker.connections:
        worker.turn()
        was_used = was_used or bool(worker.connections)
    return {"pid": os.getpid(), "core": core, "device": device_name(device)}


if __name__ == "__main__":
    measure_graphs.main()
