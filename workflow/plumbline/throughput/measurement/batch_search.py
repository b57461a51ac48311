"""Whether a batch fits into memory: an estimate, and a try in a process of its own."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plumbline.core.measure.machine import available_bytes
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.processes import TimeUpError, in_child, limit_address_space
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import DTYPES, Engine, Shape, load
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.autotune import check_dtype, initial_config
from plumbline.throughput.measurement.memory import free_bytes, meter, status_bytes
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.measurement.settings import AutotuneSettings
from plumbline.throughput.models.manifest import Manifest, Shapes
from plumbline.throughput.record import TriedBatch

SHARE = 0.9
"""Share of the available memory that may be used; the rest is left to the system and other processes."""
LIVE_VECTORS = 8
"""Rough number of vectors of the model's width that are alive at once for each prompt token."""
DISTINCT_PROMPTS = 64


@dataclass(frozen=True, kw_only=True)
class Search:
    """Everything that a try needs except the batch."""

    cell: Cell
    autotune: AutotuneSettings
    manifest: Manifest
    text: Path
    device: str
    memory_limit_bytes: int | None
    timeout_seconds: float

    @property
    def shapes(self) -> Shapes:
        """The model's shapes. Raises OutcomeError where the manifest has none."""
        if self.manifest.shapes is None:
            raise OutcomeError(Outcome.UNAVAILABLE, f"{self.manifest.variant}: its manifest has no shapes")
        return self.manifest.shapes


def prepare(search: Search) -> None:
    """Imports what the processes that this one forks will need."""
    torch.set_num_threads(1)
    load(search.cell.engine).prepare(search.manifest)


def estimate(search: Search) -> dict[str, Any]:
    """The batch that should fit: (free memory − weights) / bytes per row; all of them in bytes, as JSON."""
    device = ready(search)
    config = initial_config(search.autotune, load(search.cell.engine))
    itemsize = DTYPES[config.dtype].itemsize
    weights = (search.manifest.parameters or 0) * itemsize
    row = row_bytes(search.shapes, search.cell, itemsize)
    room = free_bytes(device)
    return {
        "device": device_name(device),
        "engine_config": config.model_dump(),
        "limit_bytes": room,
        "weights_bytes": weights,
        "row_bytes": row,
        "estimate": max(1, (room - weights) // row),
    }


def row_bytes(shapes: Shapes, cell: Cell, itemsize: int) -> int:
    """Bytes of one row: its keys and values at the end, and what the pass over its prompt needs (activations, and the
    logits of one token, once as computed and once as float32).
    """
    kept = 2 * shapes.layers * shapes.kv_heads * shapes.head_size * (cell.prompt + cell.generated)
    live = LIVE_VECTORS * shapes.width * cell.prompt + shapes.vocabulary
    return (kept + live) * itemsize + 4 * shapes.vocabulary


def try_batch(search: Search, batch: int) -> TriedBatch:
    """Whether `batch` fits, its peak, and why not; tried in a process of its own."""
    began = time.perf_counter()
    fits, outcome, message, peak = False, Outcome.OK, None, None
    try:
        peak = in_child(partial(_peak_bytes, search, batch), seconds=search.timeout_seconds)
        fits = True
    except MemoryError as error:
        outcome, message = Outcome.OUT_OF_MEMORY, str(error)
    except TimeUpError as error:
        outcome, message = Outcome.TIMEOUT, str(error)
    except OutcomeError as error:  # more rows than the engine takes
        outcome, message = error.outcome, str(error)
    seconds = time.perf_counter() - began
    return TriedBatch(batch=batch, fits=fits, outcome=outcome, peak_bytes=peak, seconds=seconds, message=message)


def ready(search: Search) -> torch.device:
    """The device. On the CPU this process may not use more than is free from now on, so that nothing is swapped."""
    device = torch_device(search.device)
    check_dtype(search.autotune.dtype, device)
    if device.type == "cpu":
        limit = status_bytes("VmSize") + int(SHARE * available_bytes())
        limit_address_space(min(limit, search.memory_limit_bytes or limit))
    return device


def _peak_bytes(search: Search, batch: int) -> int | None:
    """Peak memory of one call; None where the system does not tell."""
    device = ready(search)
    cell = search.cell
    engine_class: type[Engine] = load(cell.engine)
    used = meter(device, with_torch=engine_class.allocates_with_torch)
    used.reset()
    config = initial_config(search.autotune, engine_class)
    torch.set_num_threads(config.threads)
    with memory_errors():
        few = prompts(search.text, search.shapes.vocabulary, min(batch, DISTINCT_PROMPTS), cell.prompt, 0)
        rows = few.repeat(-(-batch // len(few)), 1)[:batch]
        shape = Shape(batch=batch, prompt=cell.prompt, generated=cell.generated)
        engine = engine_class(search.manifest, device, config, shape)
        engine.generate(rows, cell.generated)
    return used.peak()
