"""Whether this machine has room for so many ranks. Imports no torch: planning asks as well."""

import os
from collections.abc import Mapping
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.measure.machine import core_count, gpu_count

FIX = "lower data_parallel.worlds, or set data_parallel.oversubscribe: true to insist"


def check_planned(settings: Mapping[str, Any], device: str, *, oversubscribe: bool) -> None:
    """`check_room` for a target of the plan, whose `settings` name its world or its worlds."""
    world = settings["world"] if "world" in settings else max(settings["worlds"])
    check_room(world, device, oversubscribe=oversubscribe)


def check_room(world: int, device: str, *, oversubscribe: bool) -> None:
    """Raises UserError for more ranks than the machine has cores, or GPUs where it computes on these."""
    here = -(-world // node_count(world))
    gpus = gpu_count() if device != "cpu" else 0
    if gpus and here > gpus:
        raise UserError(
            f"data_parallel.worlds: {world} ranks, but this host has {gpus} GPUs; lower it or set device: cpu"
        )
    if not gpus and here > core_count() and not oversubscribe:
        raise UserError(f"data_parallel.worlds: {world} ranks, but this host has {core_count()} cores; {FIX}")


def node_count(world: int) -> int:
    """Nodes of this Slurm job that `world` ranks use: no more than there are ranks; 1 outside of Slurm."""
    return min(int(os.environ.get("SLURM_JOB_NUM_NODES", "1")), world)
