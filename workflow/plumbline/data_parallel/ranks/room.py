"""Whether this machine has room for so many ranks."""

import os

from plumbline.core.errors import UserError
from plumbline.core.measure.machine import core_count

FIX = "lower data_parallel.worlds, or set data_parallel.oversubscribe: true to insist"


def check_room(world: int, device: str, *, oversubscribe: bool) -> None:
    """Raises UserError for more ranks than the machine has cores, or GPUs where it computes on these."""
    here = -(-world // node_count(world))
    gpus = _gpu_count() if device != "cpu" else 0
    if gpus and here > gpus:
        raise UserError(
            f"data_parallel.worlds: {world} ranks, but this host has {gpus} GPUs; lower it or set device: cpu"
        )
    if not gpus and here > core_count() and not oversubscribe:
        raise UserError(f"data_parallel.worlds: {world} ranks, but this host has {core_count()} cores; {FIX}")


def node_count(world: int) -> int:
    """Nodes of this Slurm job that `world` ranks use: no more than there are ranks; 1 outside of Slurm."""
    return min(int(os.environ.get("SLURM_JOB_NUM_NODES", "1")), world)


def _gpu_count() -> int:
    import torch  # here: only where a GPU may be meant

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
