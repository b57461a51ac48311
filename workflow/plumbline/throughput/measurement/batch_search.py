"""Whether a batch fits into memory: by an estimate, and by trying it in a process of its own."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plumbline.core.measure.machine import available_bytes
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.processes import TimeUpError, in_child, limit_address_space
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import DTYPES, Engine, Shape, load
from plumbline.throughput.measurement.autotune import check_dtype, first_choice
from plumbline.throughput.measurement.memory import free_bytes, meter, status_bytes
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.models.manifest import Manifest, Shapes
from plumbline.throughput.settings import Cell, ChoiceSettings

SHARE = 0.9
"""Of the memory that is available, so much may be used: the rest is for the system and for others."""
LIVE_VECTORS = 8
"""Vectors of the model's width that are live at once for a token of the prompt, about."""
OWN_PROMPTS = 64


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All but the batch."""

    cell: Cell
    choice: ChoiceSettings
    manifest: Manifest
    text: Path
    device: str
    memory_limit_bytes: int | None
    timeout_seconds: float

    @property
    def shapes(self) -> Shapes:
        """Of the model. Raises OutcomeError where the manifest has none."""
        if self.manifest.shapes is None:
            raise OutcomeError(Outcome.UNAVAILABLE, f"{self.manifest.variant}: its manifest says nothing of its shapes")
        return self.manifest.shapes


def prepare(setting: Setting) -> None:
    """Imports what the processes that this one makes will need."""
    torch.set_num_threads(1)
    load(setting.cell.engine).prepare(setting.manifest)


def estimated(setting: Setting) -> dict[str, Any]:
    """The batch that should fit: (room − weights) / what a row takes, with all of these in bytes."""
    device = ready(setting)
    choice = first_choice(setting.choice, load(setting.cell.engine))
    itemsize = DTYPES[choice.dtype].itemsize
    weights = (setting.manifest.parameters or 0) * itemsize
    row = row_bytes(setting.shapes, setting.cell, itemsize)
    room = free_bytes(device)
    return {
        "device": device_name(device),
        "choice": asdict(choice),
        "limit_bytes": room,
        "weights_bytes": weights,
        "row_bytes": row,
        "estimate": max(1, (room - weights) // row),
    }


def row_bytes(shapes: Shapes, cell: Cell, itemsize: int) -> int:
    """Keys and values of a row when it is done, and what a pass over its prompt needs: activations, and logits of one
    token, once as they are computed and once as float32.
    """
    kept = 2 * shapes.layers * shapes.kv_heads * shapes.head_size * (cell.prompt + cell.generated)
    live = LIVE_VECTORS * shapes.width * cell.prompt + shapes.vocabulary
    return (kept + live) * itemsize + 4 * shapes.vocabulary


def tried(setting: Setting, batch: int) -> dict[str, Any]:
    """Whether `batch` fits, its peak, and why not; in a process of its own, whatever becomes of it."""
    began = time.perf_counter()
    found: dict[str, Any] = {"batch": batch, "fits": False, "outcome": Outcome.OK.value, "peak_bytes": None}
    found |= {"seconds": None, "message": None}
    try:
        found |= in_child(partial(_generated, setting, batch), seconds=setting.timeout_seconds)
    except MemoryError as error:
        found |= {"outcome": Outcome.OUT_OF_MEMORY.value, "message": str(error)}
    except TimeUpError as error:
        found |= {"outcome": Outcome.TIMEOUT.value, "message": str(error)}
    return found | {"seconds": time.perf_counter() - began}


def ready(setting: Setting) -> torch.device:
    """The device; on the CPU this process may from now on take no more than is there, so that nothing is swapped."""
    device = torch_device(setting.device)
    check_dtype(setting.choice.dtype, device)
    if device.type == "cpu":
        limit = status_bytes("VmSize") + int(SHARE * available_bytes())
        limit_address_space(min(limit, setting.memory_limit_bytes or limit))
    return device


def _generated(setting: Setting, batch: int) -> dict[str, Any]:
    device = ready(setting)
    cell, used = setting.cell, meter(device)
    used.reset()
    engine_class: type[Engine] = load(cell.engine)
    choice = first_choice(setting.choice, engine_class)
    torch.set_num_threads(choice.threads)
    with memory_errors():
        few = prompts(setting.text, setting.shapes.vocabulary, min(batch, OWN_PROMPTS), cell.prompt, 0)
        rows = few.repeat(-(-batch // len(few)), 1)[:batch]
        shape = Shape(batch=batch, prompt=cell.prompt, generated=cell.generated)
        engine = engine_class(setting.manifest, device, choice, shape)
        engine.generate(rows, cell.generated)
    return {"fits": True, "peak_bytes": used.peak()}
