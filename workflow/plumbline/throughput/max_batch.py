"""Stage `throughput.max_batch`: the largest batch that fits into memory. Each batch is tried in its own process."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer

from plumbline.core.plan.target import Spec
from plumbline.core.run.processes import in_child
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.settings import AutotuneSettings
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.record import MaxBatchRecord, TriedBatch

log = logging.getLogger("plumbline")

CLOSE = 32
"""The search ends when the batch that does not fit is at most 1/32 larger than the one that does, or one larger."""


class MaxBatchSpec(Spec):
    """What decides the search."""

    cell: Annotated[Cell, PlainSerializer(Cell._asdict)]
    """Its batch is ignored."""
    autotune: AutotuneSettings
    """Nothing is tuned here: `auto` takes the default."""
    memory_limit_bytes: int | None
    timeout_seconds: float
    device: str
    """auto | cpu | cuda. The device is what is measured, so it decides the result."""
    missing: list[str] = []
    """Packages of the engine that were not found when this was planned."""


@stage
def max_batch(spec: MaxBatchSpec, manifest: Path, text: Path, output: Path) -> None:
    """Writes to `output` the largest batch that fits, what was estimated, and every batch that was tried."""
    variant, cell = read_manifest(manifest), spec.cell
    name = cell.trial.replace(f"/b{cell.batch}-", "/")
    with recording(output, MaxBatchRecord, trial=name, spec=spec) as findings:
        findings |= {"variant": variant.variant, "engine": cell.engine, "prompt": cell.prompt}
        findings |= {"generated": cell.generated}
        if variant.outcome != Outcome.OK:
            raise OutcomeError(variant.outcome, variant.message or f"{variant.variant}: see its manifest")
        findings |= in_child(partial(_search, spec, variant, text))
        if not findings["largest"]:
            raise OutcomeError(Outcome(findings["bound"]), f"batch 1: {findings['tried_batches'][-1]['message']}")


def largest_batch(start: int, fits: Callable[[int], bool]) -> int:
    """The largest batch that fits, 0 for none: doubled from `start` or halved, then bisected."""
    fitting, too_large, batch = 0, None, max(1, start)
    while too_large is None or not fitting:
        if fits(batch):
            fitting = batch
            batch *= 2
        else:
            too_large = batch
            if batch == 1:
                return 0
            batch //= 2
        if fitting and too_large:
            break
    while too_large - fitting > max(1, fitting // CLOSE):
        middle = (fitting + too_large) // 2
        if fits(middle):
            fitting = middle
        else:
            too_large = middle
    return fitting


def _search(spec: MaxBatchSpec, variant: Manifest, text: Path) -> Any:
    """What the record says of the search, as JSON."""
    from plumbline.throughput.measurement import batch_search  # torch: in the child only, which forks for each batch

    search = batch_search.Search(
        cell=spec.cell,
        autotune=spec.autotune,
        manifest=variant,
        text=text,
        device=spec.device,
        memory_limit_bytes=spec.memory_limit_bytes,
        timeout_seconds=spec.timeout_seconds,
    )
    batch_search.prepare(search)
    found = in_child(partial(batch_search.estimate, search))
    tried: list[TriedBatch] = []

    def fits(batch: int) -> bool:
        tried.append(batch_search.try_batch(search, batch))
        log.info("batch %d %s: %s", batch, "fits" if tried[-1].fits else "does not fit", tried[-1])
        return tried[-1].fits

    largest = largest_batch(found["estimate"], fits)
    bound = min((each for each in tried if not each.fits), key=lambda each: each.batch).outcome
    return found | {"largest": largest, "bound": bound, "tried_batches": [each.model_dump() for each in tried]}


if __name__ == "__main__":
    max_batch.main()
