"""Stage `throughput.measure`: one trial, in a process of its own, and its record."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer

from plumbline.core.measure.machine import available_bytes
from plumbline.core.plan.target import Spec
from plumbline.core.run.processes import TimeUpError, in_child
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.settings import AutotuneSettings, TrialTiming
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.record import TrialRecord

log = logging.getLogger("plumbline")

ATTEMPTS = 2
"""A trial that runs out of memory is tried once more, since other processes may have held the memory."""


class MeasureSpec(Spec):
    """What decides one trial."""

    model: str
    cell: Annotated[Cell, PlainSerializer(Cell._asdict)]
    autotune: AutotuneSettings
    timing: TrialTiming
    seed: int
    device: str
    """auto | cpu | cuda. The device is what is measured, so it decides the result."""
    missing: list[str] = []
    """Packages of the engine that were not found when this was planned."""


@stage
def measure(
    spec: MeasureSpec,
    manifest: Path,
    reference: Path,
    text: Path,
    limits: Path,
    output: Path,
    smaller: list[Path] | None = None,
) -> None:
    """Writes the trial's record to `output`. smaller: the record of the next smaller batch, if any."""
    variant, cell = read_manifest(manifest), spec.cell
    with recording(output, TrialRecord, trial=cell.trial, spec=spec) as findings:
        findings |= {"model": spec.model, "variant": variant.variant, "method": variant.method, "ratio": variant.ratio}
        findings |= {"weights": variant.weights, **cell._asdict()}
        stop_early(spec, variant, smaller or [])
        trial = partial(_trial, spec, variant, reference, text, limits)
        for attempt in range(1, ATTEMPTS + 1):
            found = _attempt(trial, spec)
            if found["outcome"] != Outcome.OUT_OF_MEMORY:
                break
            log.info("attempt %d: out of memory: %s", attempt, found["message"])
        findings |= found["findings"] | {"attempts": attempt}
        if found["outcome"] != Outcome.OK:
            raise OutcomeError(Outcome(found["outcome"]), found["message"])


def stop_early(spec: MeasureSpec, variant: Manifest, smaller: Sequence[Path]) -> None:
    """Raises OutcomeError where there is nothing to measure: no model, or a smaller batch that did not fit."""
    if variant.outcome != Outcome.OK:
        raise OutcomeError(variant.outcome, variant.message or f"{variant.variant}: see its manifest")
    for before in map(TrialRecord.read, smaller if spec.timing.skip_larger_after_oom else []):
        if before.outcome is Outcome.OUT_OF_MEMORY:
            raise OutcomeError(Outcome.OUT_OF_MEMORY, f"not tried: batch {before.batch} did not fit")


def _attempt(trial: partial[Any], spec: MeasureSpec) -> Any:
    """Outcome, message and findings of one attempt, as JSON, however it ended."""
    available = available_bytes()
    try:
        return in_child(trial, seconds=spec.timing.timeout_seconds)
    except TimeUpError as error:
        return {"outcome": Outcome.TIMEOUT, "message": str(error), "findings": {}}
    except MemoryError as error:
        message = f"{spec.cell.description}: {error}; {available:,} bytes were free before"
        return {"outcome": Outcome.OUT_OF_MEMORY, "message": message, "findings": {}}


def _trial(spec: MeasureSpec, variant: Manifest, reference: Path, text: Path, limits: Path) -> Any:
    from plumbline.throughput.measurement.roofline import read_limits  # torch: in the child only
    from plumbline.throughput.measurement.trial import Request, run

    return run(
        Request(
            cell=spec.cell,
            autotune=spec.autotune,
            timing=spec.timing,
            seed=spec.seed,
            manifest=variant,
            reference=reference,
            text=text,
            limits=read_limits(limits),
            device=spec.device,
        )
    )


if __name__ == "__main__":
    measure.main()
