"""Whether decoding on a worker over loopback takes longer than the same loop here: `full` against `local` alone.

    python -m tests.benchmarks overhead [--blocks 12 --append] [--tokens 100]
    python -m tests.benchmarks overhead --one-core --stream-seconds 0.016 0.033 10
    python -m tests.benchmarks overhead --tokens 1
    python -m tests.benchmarks overhead --unwarmed

The study's own processes and variants, with its model: a block is a fresh worker and a fresh client, which take turns
with local (twice, A/A) in random order. The block is the unit: the mean of its median log ratios, with Student's t, and
TOST that it is within 5%. To reach: 2% longer at most, and an upper bound of 5%. With --append, blocks are added to
those that the output holds, so that a few can be measured at a time. About 13 s a block.

Where the time of a turn goes: with --tokens 1, what `full` adds is asking and bringing back. Several --stream-seconds
are arms of one worker, which is in the same memory for all of them, and are also compared with the last: how long after
a frame of a stream the next one is sent; 0 sends each token alone, 10 all at the end. --one-core has the client and the
worker share a core, so that what one does while the other computes counts as well. --unwarmed adds the same arms with
turns that are not warmed. The time between two steps is clocked in both processes, over all turns.
"""

import argparse
import os
import secrets
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.measure.interleave import CONTROL, Candidate, interleave
from plumbline.core.run.processes import Member, run_group
from plumbline.core.statistics.equivalence import equivalence_p
from plumbline.core.statistics.rates import ratio_over_rounds
from plumbline.core.statistics.samples import Array
from plumbline.disaggregation import measure
from plumbline.disaggregation.blocks.links import Network, network
from plumbline.disaggregation.blocks.variants import Clock, here, on_worker
from plumbline.disaggregation.runtime.client import Client
from plumbline.disaggregation.runtime.models.session import Answer, Session
from plumbline.disaggregation.runtime.models.weights import Held, Store, build
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.runtime.worker import Worker
from plumbline.disaggregation.settings import FULL, GENERATE, LOCAL, MARGIN, ModelSettings


def clocked_between_steps() -> list[float]:
    """Seconds from the end of a decoding step to the beginning of the session's next one, here, from now on."""
    found: list[float] = []
    whole = Session.decode

    def decode(session: Any, tokens: torch.Tensor) -> Answer:
        began = time.perf_counter()
        if hasattr(session, "ended"):
            found.append(began - session.ended)
        answer = whole(session, tokens)
        session.ended = time.perf_counter()
        return answer

    Session.decode = decode  # type: ignore[method-assign]
    return found


def serve(spec: measure.MeasureSpec, between: Network, secret: bytes, intervals: list[float]) -> list[float]:
    """The worker, whose first connection has the first of the intervals between frames, and so on."""
    found = clocked_between_steps()
    worker = Worker(between.worker_end(), secret, Store(measure.WEIGHTS_BYTES, torch.device("cpu")))
    was_used = False
    while not was_used or worker.connections:
        interval = intervals[min(len(worker.connections), len(intervals) - 1)]
        worker.limits = Limits(spin_seconds=spec.spin_seconds, stream_seconds=interval)
        worker.turn()
        was_used = was_used or bool(worker.connections)
    return found


def turns(spec: measure.MeasureSpec, between: Network, secret: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """The client: the seconds of each arm's turns, and between two steps of `local`."""
    found = clocked_between_steps()
    built = spec.built
    held = Held(build(built["config"], built["dtype"], spec.seed), "", 0)
    reached = partial(measure.reached, secret, spec.spin_seconds)
    with ExitStack() as stack:
        variants = here(held)
        for interval in options.stream_seconds:
            client = stack.enter_context(Client([between.address], reached, "none", 0.0))
            remote = client.seeded(built["config"], built["dtype"], spec.seed)
            variants[full(interval)] = on_worker(client, remote, held)[FULL]
        draw = torch.Generator().manual_seed(spec.seed)
        prompt = torch.randint(spec.model.vocabulary, (1, spec.contexts[0]), generator=draw)
        expected = variants[GENERATE].generate(prompt, spec.tokens, Clock())
        arms = [
            Candidate(
                name=name,
                run=partial(variants[name].seconds, name, prompt, expected),
                warm=partial(variants[name].warm, prompt, spec.tokens),
            )
            for name in variants
            if name != GENERATE
        ]
        if options.unwarmed:
            arms += [replace(arm, name=unwarmed(arm.name), warm=None) for arm in arms]
        for arm in arms:
            arm.run()  # warms up
        rounds = interleave(arms[0], arms[1:], seconds=spec.seconds, precision=0.0, seed=spec.block)
    return {"seconds": dict(zip(rounds.names, rounds.seconds.T.tolist(), strict=True)), "between_steps": found}


def full(interval: float) -> str:
    """What the figures call `full` with such an interval between frames."""
    return f"{FULL}, {1e3 * interval:g} ms"


def unwarmed(name: str) -> str:
    """What the figures call an arm whose turns are not warmed."""
    return f"{name}, unwarmed"


def block(number: int, options: argparse.Namespace) -> dict[str, Any]:
    """One block of fresh processes: seconds of each arm's turns, and the median between steps in either process."""
    spec = measure.MeasureSpec.model_validate(
        {"model": ModelSettings(layers=options.layers, width=options.width), "contexts": [options.context]}
        | {"tokens": options.tokens, "baselines": [], "link": "loopback", "block": number, "min_rounds": 20}
        | {"seconds": options.seconds, "precision": 0.0, "spin_seconds": options.spin, "seed": 0, "device": "cpu"}
        | {"stream_seconds": options.stream_seconds[0], "code": "", "inputs": ""}
    )
    secret = secrets.token_bytes(32)
    with closing(network("loopback")) as between:
        members = [
            Member(work=partial(serve, spec, between, secret, options.stream_seconds), name="worker", first=True),
            Member(work=partial(turns, spec, between, secret, options), name="client", first=True),
        ]
        on_worker, found = run_group(members)
    steps = {"worker": on_worker, "client": found["between_steps"]}
    return {"seconds": found["seconds"], "between_steps": {end: np.median(one) for end, one in steps.items() if one}}


def told(name: str, first: Array, other: str, second: Array, blocks: Array) -> dict[str, float | None]:
    """How many times as long `first` takes as `second`, and the p-value that it is not within MARGIN."""
    ratio = ratio_over_rounds(first, second, blocks)
    logs = [float(np.median(np.log(first / second)[blocks == one])) for one in np.unique(blocks)]
    p_value = equivalence_p(logs, float(np.log1p(MARGIN)))
    more, low, high = (1e3 * np.median(second) * (one - 1) for one in (ratio.value, ratio.low, ratio.high))
    print(
        f"{name} takes {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] times as long as {other} "
        f"({np.exp(min(logs)):.3f} to {np.exp(max(logs)):.3f} in single blocks; TOST p = {p_value:.3g}), "
        f"{more:.2f} [{low:.2f}, {high:.2f}] ms a turn"
    )
    return {**ratio.as_json(), "equivalence_p": None if np.isnan(p_value) else p_value}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--append", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--layers", type=int, default=ModelSettings().layers)
    parser.add_argument("--width", type=int, default=ModelSettings().width)
    parser.add_argument("--spin", type=float, default=0.0)
    parser.add_argument("--stream-seconds", type=float, nargs="+", default=[Limits().stream_seconds])
    parser.add_argument("--one-core", action="store_true")
    parser.add_argument("--unwarmed", action="store_true")
    options = parser.parse_args()
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = {name: value for name, value in vars(options).items() if name not in ("output", "blocks", "append")}
    held = read_json(options.output) if options.append else {"settings": settings, "blocks": []}
    if held["settings"] != settings:
        raise UserError(f"{options.output} holds blocks of other settings; name another file")
    measure.import_ahead()
    for _ in range(options.blocks):
        held["blocks"].append(block(len(held["blocks"]), options))
    taken = [one["seconds"] for one in held["blocks"]]
    seconds = {name: np.concatenate([one[name] for one in taken]) for name in taken[0]}
    blocks = np.repeat(np.arange(len(taken)), [len(one[LOCAL]) for one in taken])
    local = np.sqrt(seconds[LOCAL] * seconds[CONTROL])
    print(f"{len(taken)} blocks, {len(local)} rounds, {1e3 * np.median(local) / options.tokens:.2f} ms a token")
    held["figures"] = {CONTROL: told("local again", seconds[CONTROL], LOCAL, seconds[LOCAL], blocks)}
    *others, last = map(full, options.stream_seconds)
    pairs = [(name, LOCAL) for name in (*others, last)] + [(name, last) for name in others]
    pairs += [(unwarmed(name), name) for name in (LOCAL, *others, last) if options.unwarmed]
    for name, other in pairs:
        second = local if other == LOCAL else seconds[other]
        held["figures"][f"{name} / {other}"] = told(name, seconds[name], other, second, blocks)
    for end in held["blocks"][0]["between_steps"]:
        medians = [1e6 * one["between_steps"][end] for one in held["blocks"]]
        print(f"between two steps: {np.median(medians):.0f} µs in the {end}, {min(medians):.0f} to {max(medians):.0f}")
    write_json(options.output, {"benchmark": "overhead", **held})


if __name__ == "__main__":
    main()
