"""Stage `throughput.measure`: one trial, in a process of its own, and its record."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer

from plumbline.core.files import read_json
from plumbline.core.measure.machine import available_bytes
from plumbline.core.plan.target import Spec
from plumbline.core.run.processes import TimeUpError, in_child
from plumbline.core.run.record import Outcome, OutcomeError, read_record, recording
from plumbline.core.run.stage import stage
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.settings import Cell, ChoiceSettings, TrialTiming

log = logging.getLogger("plumbline")

TRIES = 2
"""A trial that memory does not suffice for is tried once more, for others may have had it."""
FOUND = (
    "device", "choice", "probe", "load_seconds", "cold_call_seconds", "compile_seconds", "warmup_calls",
    "warmup_steady", "fastest_pace_seconds", "slowed", "slowed_batches", "batches", "successful_batches",
    "failed_batches", "tokens_generated", "tokens_per_second", "interval", "interval_share", "converged",
    "drift_share", "drifted", "outliers", "latency_slowed", "time_to_first_token_seconds",
    "time_per_output_token_seconds", "inter_token_seconds", "inter_token_p50_seconds", "inter_token_p90_seconds",
    "inter_token_p99_seconds", "prefill_tokens_per_second", "decode_tokens_per_second", "memory", "weights_bytes",
    "kv_bytes", "peak_bytes", "activation_bytes", "memory_overhead", "decode_step_bytes", "decode_step_flops",
    "limit_bandwidth_bytes_per_second", "limit_flops_per_second", "mbu", "mfu", "ceiling_tokens_per_second",
    "ceiling_share", "binds", "energy", "tokens_sha256", "reference_sha256", "rows_equal", "rows_tied",
)  # fmt: skip
"""What a trial finds, in the order of its record; null where it did not come so far."""


class MeasureSpec(Spec):
    """What decides one trial."""

    model: str
    cell: Annotated[Cell, PlainSerializer(Cell._asdict)]
    choice: ChoiceSettings
    timing: TrialTiming
    seed: int
    device: str
    """auto | cpu | cuda: what is measured, so that it decides the result."""


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
    with recording(output, study="throughput", stage="measure", trial=cell.trial, spec=spec) as findings:
        findings |= {"model": spec.model, "variant": variant.variant, "method": variant.method, "ratio": variant.ratio}
        findings |= {"weights": variant.weights, **cell._asdict()}
        findings |= {"attempts": 0, **dict.fromkeys(FOUND)}
        stop_early(spec, variant, smaller or [])
        trial = partial(_trial, spec, variant, reference, text, read_json(limits))
        for attempt in range(1, TRIES + 1):
            found = _tried(trial, spec)
            findings |= {"attempts": attempt, **dict.fromkeys(FOUND), **found["findings"]}
            if found["outcome"] != Outcome.OUT_OF_MEMORY:
                break
            log.info("attempt %d: out of memory: %s", attempt, found["message"])
        if found["outcome"] != Outcome.OK:
            raise OutcomeError(Outcome(found["outcome"]), found["message"])


def stop_early(spec: MeasureSpec, variant: Manifest, smaller: Sequence[Path]) -> None:
    """Raises OutcomeError where there is nothing to try: the variant is no good, or less did not fit."""
    if variant.outcome != Outcome.OK:
        raise OutcomeError(variant.outcome, variant.message or f"{variant.variant}: see its manifest")
    for before in map(read_record, smaller if spec.timing.skip_larger_after_oom else []):
        if before["outcome"] == Outcome.OUT_OF_MEMORY:
            raise OutcomeError(Outcome.OUT_OF_MEMORY, f"not tried: batch {before['batch']} did not fit")


def _tried(trial: partial[dict[str, Any]], spec: MeasureSpec) -> dict[str, Any]:
    """Outcome, message and findings of one attempt, however it ended."""
    available = available_bytes()
    try:
        found: dict[str, Any] = in_child(trial, seconds=spec.timing.timeout_seconds)
    except TimeUpError as error:
        return {"outcome": Outcome.TIMEOUT, "message": str(error), "findings": {}}
    except MemoryError as error:
        message = f"{spec.cell.shown}: {error}; {available:,} bytes were free before"
        return {"outcome": Outcome.OUT_OF_MEMORY, "message": message, "findings": {}}
    return found


def _trial(spec: MeasureSpec, variant: Manifest, reference: Path, text: Path, limits: dict[str, Any]) -> dict[str, Any]:
    from plumbline.throughput.measurement.trial import Request, run  # torch: in the child only

    return run(
        Request(
            cell=spec.cell,
            choice=spec.choice,
            timing=spec.timing,
            seed=spec.seed,
            manifest=variant,
            reference=reference,
            text=text,
            limits=limits,
            device=spec.device,
        )
    )


if __name__ == "__main__":
    measure.main()
