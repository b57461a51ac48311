"""Stage `disaggregation.measure`: one block on one link. Fresh processes decode in interleaved turns."""

import os
import secrets
import tempfile
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from plumbline.core.errors import UserError
from plumbline.core.measure.interleave import Candidate, interleave
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import device_name, torch_device
from plumbline.core.run.processes import Member, run_group
from plumbline.core.run.record import recording
from plumbline.core.run.stage import stage
from plumbline.disaggregation.baselines.decoder import Decoder
from plumbline.disaggregation.baselines.others import Others
from plumbline.disaggregation.blocks.links import WAIT_SECONDS, Network, network
from plumbline.disaggregation.blocks.variants import Clock, Variants, behind, captured, here, on_worker
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.runtime.client import Client
from plumbline.disaggregation.runtime.models.weights import Held, Store, build
from plumbline.disaggregation.runtime.transport.meter import settled
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.runtime.transport.remote import Remote
from plumbline.disaggregation.runtime.worker import Worker
from plumbline.disaggregation.settings import CAPTURE, GENERATE, LOCAL, Link, ModelSettings

WEIGHTS_BYTES = 64 << 30


class BlockSpec(Spec):
    """What decides how a block's turns are taken."""

    block: int
    min_rounds: int
    seconds: float
    precision: float
    spin_seconds: float
    seed: int
    device: Literal["auto", "cpu", "cuda"]
    baselines: list[str]


class MeasureSpec(BlockSpec):
    """What decides a block's result."""

    model: ModelSettings
    contexts: list[int]
    tokens: int
    link: Link
    stream_seconds: float

    @property
    def built(self) -> dict[str, Any]:
        """What a process needs to build the model."""
        return {
            "config": config_of(self.model),
            "dtype": self.model.dtype,
            "seed": self.seed,
            "device": str(torch_device(self.device)),
        }


@stage
def measure(spec: MeasureSpec, output: Path) -> None:
    """Starts a worker, a client and the baselines' processes on the link, and records each turn of the client's."""
    secret = secrets.token_bytes(32)
    with (
        closing(network(spec.link)) as between,
        recording(output, MeasureRecord, trial=output.stem, spec=spec) as findings,
        tempfile.TemporaryDirectory(prefix="plumb-") as folder,
    ):
        others = Others.of(spec.baselines, Path(folder))
        findings |= {"link": spec.link, "block": spec.block, "unavailable": others.unavailable}
        members = [
            Member(work=partial(serve, spec, between, secret), name="worker", first=True),
            Member(work=partial(ask, spec, between, secret, others), name="client", first=True),
            *others.members(between),
        ]
        import_ahead()
        for found in run_group(members):
            findings |= found


def import_ahead() -> None:
    """Imports once, before the processes fork, what each of them would spend seconds on."""
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel  # noqa: F401
    from transformers.utils import logging

    logging.disable_progress_bar()  # of models that are uploaded turn after turn


def serve(spec: MeasureSpec, between: Network, secret: bytes) -> dict[str, Any]:
    """The worker: serves until its one client has gone."""
    device = torch_device(spec.device)
    store = Store(WEIGHTS_BYTES, device)
    limits = Limits(spin_seconds=spec.spin_seconds, stream_seconds=spec.stream_seconds)
    worker = Worker(between.worker_end(), secret, store, limits)
    was_used = False
    while not was_used or worker.connections:
        worker.turn()
        was_used = was_used or bool(worker.connections)
    return {"worker_pid": os.getpid(), "device": device_name(device)}


def ask(spec: MeasureSpec, between: Network, secret: bytes, others: Others) -> dict[str, Any]:
    """The client: every variant, in turns. Raises OutcomeError for tokens that are not the local ones."""
    built = spec.built
    held = Held(build(built["config"], built["dtype"], spec.seed).to(built["device"]), "", 0)
    between.client_end()
    with ExitStack() as open_ones:
        client = open_ones.enter_context(
            Client([between.address], partial(reached, secret, spec.spin_seconds), "none", 0.0)
        )
        remote = client.seeded(built["config"], built["dtype"], spec.seed)
        variants = {**here(held), **on_worker(client, remote, held)}
        more: dict[str, Any] = {}
        if CAPTURE in spec.baselines:
            variants[CAPTURE], more = captured(held)
        owners = open_ones.enter_context(others.owned(between, Decoder.built, built))
        variants |= {name: behind(owner, between) for name, owner in owners.items()}
        pids = {name: owner.process() for name, owner in owners.items()}
        threads = {name: owner.threads() for name, owner in owners.items()}
        contexts = [_turns(spec, variants, context) for context in spec.contexts]
        settled(client.remote.wire.socket)
        kernel, meter = client.remote.wire.kernel(), client.remote.wire.meter
    protocol = meter.sent_bytes + meter.received_bytes
    counted = None if kernel is None else kernel.acknowledged + kernel.received
    if counted is not None and counted != protocol:
        raise RuntimeError(f"the protocol counted {protocol} bytes, the kernel {counted}")
    return more | {
        "contexts": contexts,
        "client_pid": os.getpid(),
        "owner_pids": pids,
        "owner_threads": threads,
        "parameters": sum(one.numel() for one in held.model.parameters()),
        "protocol_bytes": protocol,
        "kernel_bytes": counted,
    }


def config_of(model: ModelSettings) -> dict[str, Any]:
    """The transformers config of the model."""
    return model.gpt2


def reached(secret: bytes, spin_seconds: float, address: str) -> Remote:
    """A connection to the worker, which may be about to listen."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return Remote(address, secret, Limits(spin_seconds=spin_seconds))
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _turns(spec: MeasureSpec, variants: Variants, context: int) -> dict[str, Any]:
    """The turns with prompts of `context` tokens, as a record has them."""
    draw = torch.Generator().manual_seed(spec.seed)
    prompt = torch.randint(spec.model.vocabulary, (1, context), generator=draw)
    expected = variants[GENERATE].generate(prompt, spec.tokens, Clock())
    traffic = {name: variant.traffic(name, prompt, expected) for name, variant in variants.items()}  # warms up, too
    arms = {
        name: Candidate(
            name=name,
            run=partial(variant.seconds, name, prompt, expected),
            work=spec.tokens,
            warm=partial(variant.warm, prompt, spec.tokens),
        )
        for name, variant in variants.items()
    }
    rounds = interleave(
        arms.pop(LOCAL),
        list(arms.values()),
        seconds=spec.seconds,
        precision=spec.precision,
        min_rounds=spec.min_rounds,
        seed=[spec.seed, spec.block, context],
    )
    taken = zip(rounds.names, np.transpose(rounds.seconds), strict=True)
    found = [{"name": name, "seconds": seconds.tolist(), **traffic.get(name, {})} for name, seconds in taken]
    return {"context": context, "precise": rounds.precise, "arms": found}


if __name__ == "__main__":
    measure.main()
