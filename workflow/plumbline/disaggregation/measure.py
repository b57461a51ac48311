"""Stage `disaggregation.measure`: one block on one link. A fresh worker and client decode in interleaved turns."""

import os
import secrets
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.measure.interleave import Candidate, Rounds, interleave
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import device_name, torch_device
from plumbline.core.run.processes import Member, run_group
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.disaggregation.links import WAIT_SECONDS, Network, network
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.runtime.client import Client
from plumbline.disaggregation.runtime.generation import Mode, RemoteModel
from plumbline.disaggregation.runtime.meter import settled
from plumbline.disaggregation.runtime.protocol import Limits, Reply
from plumbline.disaggregation.runtime.remote import Remote
from plumbline.disaggregation.runtime.sampling import Sampling
from plumbline.disaggregation.runtime.session import Session
from plumbline.disaggregation.runtime.weights import Held, Store, build
from plumbline.disaggregation.runtime.worker import Worker
from plumbline.disaggregation.settings import GENERATE, LOCAL, REMOTE, Link, ModelSettings

WEIGHTS_BYTES = 64 << 30


class MeasureSpec(Spec):
    """What decides a block's result."""

    model: ModelSettings
    contexts: list[int]
    tokens: int
    link: Link
    block: int
    min_rounds: int
    seconds: float
    precision: float
    spin_seconds: float
    seed: int
    device: Literal["auto", "cpu", "cuda"]


@stage
def measure(spec: MeasureSpec, output: Path) -> None:
    """Starts a worker and a client on the link, and records each turn that the client took."""
    secret, between = secrets.token_bytes(32), network(spec.link)
    with recording(output, MeasureRecord, trial=output.stem, spec=spec) as findings:
        findings |= {"link": spec.link, "block": spec.block}
        members = [
            Member(work=partial(serve, spec, between, secret), name="worker"),
            Member(work=partial(ask, spec, between, secret), name="client"),
        ]
        served, found = run_group(members)
        findings |= found | served


def serve(spec: MeasureSpec, between: Network, secret: bytes) -> dict[str, Any]:
    """The worker: serves until its one client has gone."""
    device = torch_device(spec.device)
    store = Store(WEIGHTS_BYTES, device)
    worker = Worker(between.worker_end(), secret, store, Limits(spin_seconds=spec.spin_seconds))
    was_used = False
    while not was_used or worker.connections:
        worker.turn()
        was_used = was_used or bool(worker.connections)
    return {"worker_pid": os.getpid(), "device": device_name(device)}


def ask(spec: MeasureSpec, between: Network, secret: bytes) -> dict[str, Any]:
    """The client: every variant, in turns. Raises OutcomeError for tokens that are not the local ones."""
    device = torch_device(spec.device)
    config = config_of(spec.model)
    held = Held(build(config, spec.model.dtype, spec.seed).to(device), "", 0)  # type: ignore[arg-type]
    between.client_end()
    with Client([between.address], partial(reached, secret, spec.spin_seconds), "none", 0.0) as client:
        remote = client.seeded(config, spec.model.dtype, spec.seed)
        contexts = [_turns(spec, held, remote, client, context) for context in spec.contexts]
        settled(client.remote.wire.socket)
        kernel, meter = client.remote.wire.kernel(), client.remote.wire.meter
    protocol = meter.sent_bytes + meter.received_bytes
    counted = None if kernel is None else kernel.acknowledged + kernel.received
    if counted is not None and counted != protocol:
        raise RuntimeError(f"the protocol counted {protocol} bytes, the kernel {counted}")
    return {
        "contexts": contexts,
        "client_pid": os.getpid(),
        "parameters": sum(one.numel() for one in held.model.parameters()),
        "protocol_bytes": protocol,
        "kernel_bytes": counted,
    }


def config_of(model: ModelSettings) -> dict[str, Any]:
    """The transformers config of the model."""
    return model.gpt2


def local_tokens(held: Held, prompt: Tensor, tokens: int) -> Tensor:
    """What the worker computes, here: the same session without a wire."""
    session = Session(held, prompt, None, Sampling(), Reply.TOKENS)
    chosen = [session.prefill().tokens]
    for _ in range(tokens - 1):
        chosen.append(session.decode(cast(Tensor, chosen[-1])).tokens)
    return torch.cat([prompt, torch.stack(cast(list[Tensor], chosen), 1)], 1)


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


def _turns(spec: MeasureSpec, held: Held, remote: RemoteModel, client: Client, context: int) -> dict[str, Any]:
    """The turns with prompts of `context` tokens, as a record has them."""
    draw = torch.Generator().manual_seed(spec.seed)
    prompt = torch.randint(spec.model.vocabulary, (1, context), generator=draw)
    here, model = prompt.to(held.model.device), cast(Any, held.model)
    whole = {"attention_mask": torch.ones_like(here), "max_new_tokens": spec.tokens, "do_sample": False}
    expected = model.generate(here, **whole).cpu()
    variants: dict[str, Callable[[], Tensor]] = {
        LOCAL: lambda: local_tokens(held, here, spec.tokens).cpu(),
        GENERATE: lambda: model.generate(here, **whole).cpu(),
        **{name: _decoding(remote, prompt, spec.tokens, cast(Mode, mode)) for name, mode in REMOTE.items()},
    }
    traffic = {}
    for name, variant in variants.items():  # warms up, too
        before = client.remote.wire.meter.since(type(client.remote.wire.meter)())
        _timed(name, variant, expected)
        cost = client.remote.wire.meter.since(before)
        traffic[name] = (cost.sent_bytes + cost.received_bytes, cost.round_trips) if name in REMOTE else None
    arms = [
        Candidate(name=name, run=partial(_timed, name, variant, expected), work=spec.tokens)
        for name, variant in variants.items()
    ]
    rounds = interleave(
        arms[0],
        arms[1:],
        seconds=spec.seconds,
        precision=spec.precision,
        min_rounds=spec.min_rounds,
        seed=[spec.seed, spec.block, context],
    )
    return {"context": context, "precise": rounds.precise, "arms": _arms(rounds, traffic, spec.tokens)}


def _decoding(remote: RemoteModel, prompt: Tensor, tokens: int, mode: Mode) -> Callable[[], Tensor]:
    return lambda: remote.generate(prompt, max_new_tokens=tokens, mode=mode)


def _timed(name: str, variant: Callable[[], Tensor], expected: Tensor) -> float:
    """Seconds of one turn. Raises OutcomeError for other tokens than those of transformers, here."""
    began = time.perf_counter()
    found = variant()
    seconds = time.perf_counter() - began
    if not torch.equal(found, expected):
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"{name} generates other tokens than transformers does locally")
    return seconds


def _arms(rounds: Rounds, traffic: dict[str, tuple[int, int] | None], tokens: int) -> list[dict[str, Any]]:
    found = []
    for name, seconds in zip(rounds.names, np.transpose(rounds.seconds), strict=True):
        cost = traffic.get(name)
        found.append(
            {
                "name": name,
                "seconds": seconds.tolist(),
                "bytes_per_token": cost and cost[0] / tokens,
                "round_trips_per_token": cost and cost[1] / tokens,
            }
        )
    return found


if __name__ == "__main__":
    measure.main()
