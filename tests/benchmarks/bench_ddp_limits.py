"""What keeps DDP on two processes from the speed of two independent ones: variants of it in turns.

    python tests/benchmarks/bench_ddp_limits.py --output ddp_limits.json [--seconds 50] [--only no_sync …]

Model, batches, launches, turns and clocks are those of the study's stage `comparison`. `no_sync` is DDP without any
all-reduce; `one_bucket` reduces all gradients at the end of the backward pass; `flat` does so without DDP, in one
tensor; `own_core` is DDP whose ranks keep to a core each, with all their threads.
Needs two cores.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from plumbline.core.files import write_json
from plumbline.core.measure.priority import take_priority
from plumbline.core.statistics.rates import Ratio, ratio_over_rounds
from plumbline.data_parallel.methods.ddp import Ddp
from plumbline.data_parallel.methods.interface import Replica
from plumbline.data_parallel.ranks import compare
from plumbline.data_parallel.ranks.launch import run_ranks
from plumbline.data_parallel.ranks.rank import main_of_launches
from plumbline.data_parallel.ranks.rounds import together

WORLD = 2


class NoSync(Ddp):
    """DDP whose ranks never talk."""

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        parallel = super().wrapped(module, group)
        parallel.require_backward_grad_sync = False
        return parallel


class OneBucket(Ddp):
    """DDP with a bucket that holds all gradients."""

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        return DistributedDataParallel(
            module, process_group=group, gradient_as_bucket_view=True, forward_sync_buffers=False, bucket_cap_mb=1000
        )


class Flat(Replica):
    """All gradients in one tensor, which is reduced after the backward pass."""

    def wrapped(self, module: nn.Module, group: dist.ProcessGroup) -> nn.Module:
        parameters = list(module.parameters())
        self.gradients = torch.zeros(sum(each.numel() for each in parameters))
        for each, part in zip(parameters, self.gradients.split([each.numel() for each in parameters]), strict=True):
            each.grad = part.view_as(each)
        return module

    def reduce(self) -> None:
        dist.all_reduce(self.gradients, group=self.group)
        self.gradients /= self.world


VARIANTS: dict[str, type[Replica]] = {
    "ddp": Ddp,
    "no_sync": NoSync,
    "one_bucket": OneBucket,
    "flat": Flat,
    "own_core": Ddp,
}


class Arm(compare.Arm):
    """A candidate of the comparison; in the turns of `own_core`, all threads of the rank keep to one."""

    def turn(self) -> float:
        if self.described["method"] != "own_core" or not self.takes_part:
            return super().turn()
        cores = os.sched_getaffinity(0)
        self._move_threads({sorted(cores)[self.rank.rank]})
        seconds = super().turn()
        self._move_threads(cores)
        return seconds

    @staticmethod
    def _move_threads(cores: Any) -> None:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)


def variant(name: str, module: nn.Module, group: dist.ProcessGroup | None) -> Replica:
    """The module as variant `name` trains it."""
    return Replica(module, None) if group is None else VARIANTS[name](module, group)


def request_for(names: list[str], meta: Path, launches: int, seconds: float) -> dict[str, Any]:
    """What the ranks are asked: the study's default, with other candidates."""
    from bench_data_parallel import SETTINGS

    settings = SETTINGS.comparison
    kinds = [("1 process", None, 1, "strong"), ("independent", None, WORLD, "independent")]
    kinds += [(f"{name} {scaling}", name, WORLD, scaling) for name in names for scaling in ("strong", "weak")]
    return {
        "model": SETTINGS.model.model_dump(),
        "training": SETTINGS.training.model_dump() | {"batch": settings.batch},
        "candidates": [
            dict(zip(("name", "method", "world", "scaling"), kind, strict=True), threads=1) for kind in kinds
        ],
        "tokens": str(meta),
        "worlds": [],  # no all-reduces by themselves
        "device": "cpu",
        "seed": 0,
        "steps": settings.steps,
        "launches": launches,
        "seconds": seconds,
        "precision": 1e-6,
    }


def of_independent(parts: list[dict[str, Any]]) -> dict[str, Ratio]:
    """The speed of each variant over that of two independent processes."""
    found = together(parts, len(parts), 1e-6)
    seconds = {one["name"]: np.array(one["seconds"]) for one in found["candidates"]}
    return {
        name: ratio_over_rounds(seconds["independent"], own, found["launches"])
        for name, own in seconds.items()
        if " " in name and name != "1 process"
    }


def main() -> None:
    from bench_data_parallel import default_tokens

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=50.0)
    parser.add_argument("--launches", type=int, default=6)
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="one of the variants; may be repeated")
    options = parser.parse_args()
    here = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(here)
    with tempfile.TemporaryDirectory() as name:
        request = request_for(
            options.only or list(VARIANTS), default_tokens(Path(name)), options.launches, options.seconds
        )
        parts = run_ranks("bench_ddp_limits", request, world=WORLD, folder=Path(name) / "ranks", timeout=60)
    found = of_independent(parts)
    for key, ratio in found.items():
        print(f"{key:18} {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]")
    write_json(options.output, {"of_independent": {key: one.as_json() for key, one in found.items()}, "parts": parts})


if __name__ == "__main__" and "RANK" in os.environ:
    take_priority()
    compare.Arm, compare.replica = Arm, variant  # type: ignore[misc, assignment]
    main_of_launches(compare.compare)
elif __name__ == "__main__":
    sys.exit(main())
