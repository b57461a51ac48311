"""Whether decoding on a worker over loopback takes longer than the same loop here: `full` against `local` alone.

    python tests/benchmarks/bench_overhead.py --output overhead.json [--blocks 12 --append] [--tokens 100]

The study's own processes and variants, with its model: a block is a fresh worker and a fresh client, which take turns
with local (twice, A/A) in random order. The block is the unit: the mean of its median log ratios, with Student's t, and
TOST that it is within 5%. To reach: 2% longer at most, and an upper bound of 5%. With --append, blocks are added to
those that the output holds, so that a few can be measured at a time. About 13 s a block.
"""

import argparse
import secrets
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.measure.interleave import CONTROL, Candidate, interleave
from plumbline.core.run.processes import Member, run_group
from plumbline.core.statistics.equivalence import equivalence_p
from plumbline.core.statistics.rates import ratio_over_rounds
from plumbline.disaggregation import measure
from plumbline.disaggregation.blocks.links import Network, network
from plumbline.disaggregation.blocks.variants import Clock, here, on_worker
from plumbline.disaggregation.runtime.client import Client
from plumbline.disaggregation.runtime.models.weights import Held, build
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.settings import FULL, GENERATE, LOCAL, MARGIN, ModelSettings


def turns(spec: measure.MeasureSpec, between: Network, secret: bytes) -> list[list[float]]:
    """The client: (rounds, 3) seconds of a turn of local, of local again and of `full`."""
    built = spec.built
    held = Held(build(built["config"], built["dtype"], spec.seed), "", 0)
    reached = partial(measure.reached, secret, spec.spin_seconds)
    with Client([between.address], reached, "none", 0.0) as client:
        remote = client.seeded(built["config"], built["dtype"], spec.seed)
        variants = {**here(held), **on_worker(client, remote, held)}
        draw = torch.Generator().manual_seed(spec.seed)
        prompt = torch.randint(spec.model.vocabulary, (1, spec.contexts[0]), generator=draw)
        expected = variants[GENERATE].generate(prompt, spec.tokens, Clock())
        arms = [
            Candidate(
                name=name,
                run=partial(variants[name].seconds, name, prompt, expected),
                warm=partial(variants[name].warm, prompt, spec.tokens),
            )
            for name in (LOCAL, FULL)
        ]
        for arm in arms:
            arm.run()  # warms up
        rounds = interleave(arms[0], arms[1:], seconds=spec.seconds, precision=0.0, seed=spec.block)
    return [list(map(float, row)) for row in rounds.seconds]


def block(number: int, options: argparse.Namespace) -> list[list[float]]:
    """The turns of one block of fresh processes."""
    spec = measure.MeasureSpec.model_validate(
        {"model": ModelSettings(layers=options.layers, width=options.width), "contexts": [options.context]}
        | {"tokens": options.tokens, "baselines": [], "link": "loopback", "block": number, "min_rounds": 20}
        | {"seconds": options.seconds, "precision": 0.0, "spin_seconds": options.spin, "seed": 0, "device": "cpu"}
        | {"stream_seconds": Limits().stream_seconds, "code": "", "inputs": ""}
    )
    secret = secrets.token_bytes(32)
    with closing(network("loopback")) as between:
        members = [
            Member(work=partial(measure.serve, spec, between, secret), name="worker", first=True),
            Member(work=partial(turns, spec, between, secret), name="client", first=True),
        ]
        found: list[list[float]] = run_group(members)[1]
    return found


def told(name: str, first: np.ndarray, second: np.ndarray, blocks: np.ndarray) -> dict[str, float | None]:
    """How many times as long `first` takes as `second`, and the p-value that it is not within MARGIN."""
    ratio = ratio_over_rounds(first, second, blocks)
    logs = [float(np.median(np.log(first / second)[blocks == one])) for one in np.unique(blocks)]
    p_value = equivalence_p(logs, float(np.log1p(MARGIN)))
    print(f"{name} takes {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] times as long; TOST p = {p_value:.3g}")
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
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name not in ("output", "blocks", "append")}
    held = read_json(options.output) if options.append else {"settings": settings, "blocks": []}
    if held["settings"] != settings:
        raise UserError(f"{options.output} holds blocks of other settings; name another file")
    measure.import_ahead()
    for _ in range(options.blocks):
        held["blocks"].append(block(len(held["blocks"]), options))
    seconds = np.concatenate([np.array(one) for one in held["blocks"]])
    blocks = np.repeat(np.arange(len(held["blocks"])), [len(one) for one in held["blocks"]])
    local, control, full = seconds.T
    print(
        f"{len(held['blocks'])} blocks, {len(seconds)} rounds, {1e3 * np.median(local) / options.tokens:.2f} ms a token"
    )
    held["figures"] = {
        CONTROL: told("local again", control, local, blocks),
        FULL: told("full", full, np.sqrt(local * control), blocks),
    }
    write_json(options.output, {"benchmark": "overhead", **held})


if __name__ == "__main__":
    main()
