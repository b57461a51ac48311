"""How fast the zoo's adapters train: 4 blocks, rank 1, 40 steps, 4 images, one thread a process.

    python tests/benchmarks/bench_zoo.py --output zoo.json [--full]

Without --full (about 20 s) the time of 2,000 adapters on two processes is projected from one process's rate, with the
other core at whatever else it does; with --full (about 1.5 min) the base is pretrained, and the 2,000 adapters are
trained by two processes at once, from the start of the processes to the end of the last one.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from plumbline.ablation.zoo.adapters import chunks_of, train_chunk
from plumbline.ablation.zoo.diffusion import load_base
from plumbline.ablation.zoo.pretraining import pretrain
from plumbline.ablation.zoo.settings import AdapterSettings, DiffusionSettings, PretrainingSettings
from plumbline.core.files import write_json

ADAPTERS, PROCESSES, REPEATS = 2000, 2, 5
MODEL = DiffusionSettings(blocks=4)
SETTINGS = AdapterSettings(rank=1, steps=40, batch=4, image_count_min=4, image_count_max=4)


def train_shard(base: Path, shard: int) -> None:
    """Every other chunk of the 2,000 adapters."""
    torch.set_num_threads(1)
    model = load_base(base, MODEL)
    for indices in chunks_of(ADAPTERS, SETTINGS.chunk)[shard::PROCESSES]:
        train_chunk(model, MODEL, SETTINGS, indices, seed=0)


def one_process(base: Path) -> dict[str, Any]:
    """Seconds of each of a few chunks after a warm-up, and what they project to."""
    model = load_base(base, MODEL)
    samples = []
    for repeat in range(REPEATS + 1):
        start = time.perf_counter()
        train_chunk(model, MODEL, SETTINGS, range(repeat * SETTINGS.chunk, (repeat + 1) * SETTINGS.chunk), seed=0)
        samples.append(time.perf_counter() - start)
    rate = REPEATS * SETTINGS.chunk / sum(samples[1:])
    return {
        "chunk_adapters": SETTINGS.chunk,
        "chunk_seconds": samples[1:],
        "adapters_per_second_one_thread": rate,
        "projected_2000_adapters_two_processes_seconds": ADAPTERS / PROCESSES / rate,
    }


def two_processes(base: Path) -> float:
    """Wall seconds of the 2,000 adapters, process starts and imports included."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=train_shard, args=(base, shard)) for shard in range(PROCESSES)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    if failed := [worker.exitcode for worker in workers if worker.exitcode != 0]:
        raise RuntimeError(f"a process ended with {failed}")
    return seconds


def pretraining(base: Path, steps: int) -> dict[str, Any]:
    """Writes a base of `steps` steps of the default training to `base`; its seconds, and those of a median step."""
    ends = [time.perf_counter()]
    state, losses = pretrain(
        MODEL, PretrainingSettings(steps=steps), seed=0, progress=lambda done: ends.append(time.perf_counter())
    )
    save_file(state, base)
    step = statistics.median(end - start for start, end in pairwise(ends))
    return {
        "base_steps": steps,
        "base_seconds": ends[-1] - ends[0],
        "base_step_seconds": step,
        "base_default_projected_seconds": step * PretrainingSettings().steps,
        "base_last_loss": statistics.mean(losses[-50:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--full", action="store_true", help="pretrain whole, and really train 2,000 adapters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.safetensors"
        figures = pretraining(base, PretrainingSettings().steps if arguments.full else 60)
        figures |= one_process(base)
        if arguments.full:
            figures["measured_2000_adapters_two_processes_seconds"] = two_processes(base)
    write_json(arguments.output, {"benchmark": "zoo", "figures": figures})
    for name, value in figures.items():
        print(f"{name}: {value if not isinstance(value, float) else round(value, 4)}")


if __name__ == "__main__":
    main()
