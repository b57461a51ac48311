"""Decoding on a worker over loopback against decoding here, with the same model, tokens and threads.

    python tests/benchmarks/bench_remote.py --output remote.json [--seconds 60] [--layers 6 --width 384]

A GPT-2 of random weights generates 32 tokens after 32, greedily: here with transformers' `generate`, and on a worker
in a process of its own, in every mode of the client. In random order, round after round; local twice (A/A). To reach:
streamed within 2% of local, its upper bound within 5%. A minute.
"""

import argparse
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch

from plumbline.core.files import write_json
from plumbline.core.measure.interleave import CONTROL, Candidate, interleave
from plumbline.core.run.orphans import signal_at_death_of_parent
from plumbline.disaggregation.runtime.client import Client
from plumbline.disaggregation.runtime.generation import Mode
from plumbline.disaggregation.runtime.models.weights import Store, build
from plumbline.disaggregation.runtime.transport.protocol import Limits
from plumbline.disaggregation.runtime.transport.remote import Remote
from plumbline.disaggregation.runtime.worker import Worker

SECRET = bytes(32)
NEW, PROMPT = 32, 32
MODES: tuple[Mode, ...] = get_args(Mode)


def serve(listening: socket.socket) -> None:
    signal_at_death_of_parent(signal.SIGKILL)
    torch.set_num_threads(1)
    Worker(listening, SECRET, Store(4 << 30, torch.device("cpu"))).run()


def timed(generate: Callable[[], torch.Tensor], expected: torch.Tensor) -> Callable[[], float]:
    """Seconds of one call. Raises SystemExit for other tokens than `expected`."""

    def run() -> float:
        began = time.perf_counter()
        found = generate()
        seconds = time.perf_counter() - began
        if not torch.equal(found, expected):
            raise SystemExit("the tokens differ from local ones")
        return seconds

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = {"model_type": "gpt2", "n_layer": options.layers, "n_embd": options.width, "n_head": 6, "vocab_size": 8192}
    config |= {"eos_token_id": None, "bos_token_id": None}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        if os.fork() == 0:
            serve(listening)
    model, prompt = build(config, "float32", 0), torch.arange(PROMPT)[None]
    mask = torch.ones_like(prompt)

    def local() -> torch.Tensor:
        return model.generate(prompt, attention_mask=mask, max_new_tokens=NEW, do_sample=False)  # type: ignore[no-any-return, operator]

    expected = local()
    with Client([address], lambda one: Remote(one, SECRET, Limits()), "none", 0) as client:
        remote = client.seeded(config, "float32", 0)
        others = [
            Candidate(
                name=mode,
                run=timed(lambda mode=mode: remote.generate(prompt, max_new_tokens=NEW, mode=mode), expected),  # type: ignore[misc]
                work=NEW,
            )
            for mode in MODES
        ]
        baseline = Candidate(name="local", run=timed(local, expected), work=NEW)
        rounds = interleave(baseline, others, seconds=options.seconds, precision=0.005)
    figures = {}
    for name in (CONTROL, *MODES):
        ratio = rounds.ratio(name)
        figures[name] = {"time_against_local": 1 / ratio.value, "low": 1 / ratio.high, "high": 1 / ratio.low}
        print(
            f"{name:8s} takes {1 / ratio.value:.3f} times as long as local [{1 / ratio.high:.3f}, {1 / ratio.low:.3f}]"
        )
    print(f"local: {1e3 * float(rounds.seconds[:, 0].mean()):.2f} ms a token; {len(rounds.seconds)} rounds")
    write_json(options.output, {"benchmark": "remote", "figures": figures, "seconds": rounds.seconds.tolist()})


if __name__ == "__main__":
    main()
