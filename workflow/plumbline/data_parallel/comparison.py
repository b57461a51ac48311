"""Stage `data_parallel.comparison`: how fast worlds and methods are against each other, in interleaved turns."""

import logging
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError
from plumbline.core.files import read_json
from plumbline.core.measure.machine import core_count
from plumbline.core.plan.target import Spec
from plumbline.core.run.record import recording
from plumbline.core.run.stage import stage
from plumbline.data_parallel.ranks.launch import run_ranks
from plumbline.data_parallel.ranks.room import check_room
from plumbline.data_parallel.ranks.rounds import together
from plumbline.data_parallel.record import ComparisonRecord
from plumbline.data_parallel.settings import ComparisonSettings, ModelSettings, Scaling, TrainingSettings

log = logging.getLogger("plumbline")
ONE = "1 process"


class ComparisonSpec(Spec):
    """What decides the comparison."""

    model: ModelSettings
    training: TrainingSettings
    comparison: ComparisonSettings
    worlds: list[int]
    scalings: list[Scaling]
    seed: int
    device: str
    """auto | cpu | cuda. The device is what is measured, so it decides the result."""


@stage
def comparison(
    spec: ComparisonSpec, tokens: Path, output: Path, timeout_seconds: float = 60.0, oversubscribe: int = 0
) -> None:
    """Compares one process with several, and records every turn.

    tokens: meta.json of that stage. The candidates: one process with one thread, the baseline; on a CPU, one with all
    threads; and in each world both scalings, each method where the world is the largest, and the hardware's ceiling:
    processes that compute at the same time and never talk.
    """
    world = max(spec.worlds)
    check_room(world, spec.device, oversubscribe=bool(oversubscribe))
    batch, place = spec.training.batch, "training" if spec.comparison.batch is None else "comparison"
    if (count := read_json(tokens)["splits"]["train"]["sequences"]) < batch:
        raise UserError(
            f"data_parallel.{place}.batch: {batch} is more than the {count} sequences to train on, and turns need a"
            " whole batch; lower it"
        )
    request = spec.model_dump(mode="json", exclude={"comparison"}) | spec.comparison.model_dump(mode="json")
    request |= {"tokens": str(tokens.resolve()), "candidates": candidates(spec)}
    with recording(output, ComparisonRecord, trial=output.stem, spec=spec) as findings:
        module, folder = "plumbline.data_parallel.ranks.compare", output.with_name(f".{output.stem}.ranks")
        findings["batch"] = batch
        parts = run_ranks(module, request, world=world, folder=folder, timeout=timeout_seconds)
        findings |= together(parts, spec.comparison.launches, spec.comparison.precision)
        log.info("launches: %d, rounds: %d", len(parts), len(findings["launches"]))


def candidates(spec: ComparisonSpec) -> list[dict[str, Any]]:
    """Every candidate as JSON, the baseline first. Ranks on a GPU leave the one with all threads out."""
    found = [_candidate(ONE, None, 1, "strong")]
    if core_count() > 1:
        found.append(_candidate(f"1 process × {core_count()} threads", None, 1, "threads", core_count()))
    for world in (world for world in spec.worlds if world > 1):
        found.append(_candidate(f"{world} independent", None, world, "independent"))
        methods = spec.comparison.methods if world == max(spec.worlds) else spec.comparison.methods[:1]
        found += [
            _candidate(f"{method} {scaling} {world}", method, world, scaling)
            for method in methods
            for scaling in spec.scalings
        ]
    return found


def _candidate(name: str, method: str | None, world: int, scaling: str, threads: int = 1) -> dict[str, Any]:
    return {"name": name, "method": method, "world": world, "scaling": scaling, "threads": threads}


if __name__ == "__main__":
    comparison.main()
