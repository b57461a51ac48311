"""Stage `throughput.comparison`: how fast candidates are against each other, interleaved."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer

from plumbline.core.plan.target import Spec
from plumbline.core.registry import short_name
from plumbline.core.run.processes import TimeUpError, in_child
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage
from plumbline.throughput.engine_needs import needs_conversion
from plumbline.throughput.engines.interface import load
from plumbline.throughput.grid import Cell, Contest, Question
from plumbline.throughput.measurement.entry import Entry
from plumbline.throughput.measurement.interleaved import Request, run
from plumbline.throughput.measurement.settings import ComparisonSettings, EngineConfig, TrialTiming
from plumbline.throughput.models.manifest import read_manifest
from plumbline.throughput.record import Arrangement, ComparisonRecord, Interleaved, LeftOut, TrialRecord, merged

log = logging.getLogger("plumbline")

PlainCell = Annotated[Cell, PlainSerializer(Cell._asdict)]


class ComparisonSpec(Spec):
    """What decides one comparison, besides the trials of its candidates."""

    model: str
    question: Question
    baseline: PlainCell
    others: list[PlainCell]
    comparison: ComparisonSettings
    timing: TrialTiming
    """Bounds of the warm-up, of the time and of the memory."""
    tie_margin: float
    seed: int
    device: str
    """auto | cpu | cuda. The device is what is measured, so it decides the result."""


@stage
def comparison(
    spec: ComparisonSpec, manifests: list[Path], references: list[Path], text: Path, trials: list[Path], output: Path
) -> None:
    """Writes the comparison's record to `output`.

    A candidate computes as its trial was tuned to, with the dtype and threads of the baseline; a variant also with the
    baseline's attention kernel. Candidates whose trial has no speed are left out and named. Without a baseline, or with
    nothing to compare it with, the outcome is `unavailable`.
    """
    cells = [spec.baseline, *spec.others]
    models = {(each.variant, each.converted and each.converted.engine): each for each in map(read_manifest, manifests)}
    tokens = dict(zip(dict.fromkeys(cell.variant for cell in cells), references, strict=True))
    records = {record.trial: record for record in map(TrialRecord.read, trials)}
    base = records[spec.baseline.trial]
    name = Contest(spec.question, spec.baseline, spec.others).name
    with recording(output, ComparisonRecord, trial=name, spec=spec) as findings:
        findings |= {"question": spec.question, "model": spec.model, "baseline": name_of(spec.question, spec.baseline)}
        findings |= {"batch": base.batch, "prompt": base.prompt, "generated": base.generated}
        lost = [cell for cell in spec.others if not records[cell.trial].ok]
        findings["left_out"] = [_without_speed(spec.question, cell, records[cell.trial]) for cell in lost]
        if not base.ok:
            raise OutcomeError(Outcome.UNAVAILABLE, f"the baseline {base.trial} has no speed: {base.outcome}")
        entries = [
            Entry(
                name=name_of(spec.question, cell),
                cell=cell,
                config=config_of(spec.question, records[cell.trial], base),
                manifest=models[cell.variant, cell.engine if needs_conversion(cell.engine) else None],
                reference=tokens[cell.variant],
            )
            for cell in cells
            if records[cell.trial].ok
        ]
        for entry in entries:
            with suppress(OutcomeError):  # which the process that loads it meets again, and records
                load(entry.cell.engine).prepare(entry.manifest)  # imports once what all processes need
        for part in _parts(spec, entries, text):
            _add(findings, part)
        if len(findings.get("candidates", [])) < 2:
            raise OutcomeError(Outcome.UNAVAILABLE, f"no candidate has a speed, beside the baseline {base.trial}")


def name_of(question: Question, cell: Cell) -> str:
    """What a comparison calls a candidate: its variant, or its engine without the module."""
    return cell.variant if question == "variants" else short_name(cell.engine)


def config_of(question: Question, record: TrialRecord, base: TrialRecord) -> EngineConfig:
    """How a candidate computes: a variant as the base; an engine in its own way, with the base's dtype and threads."""
    mine, theirs = record.engine_config, base.engine_config
    assert mine is not None
    assert theirs is not None
    return theirs if question == "variants" else mine.model_copy(update=theirs.model_dump(include={"dtype", "threads"}))


def _without_speed(question: Question, cell: Cell, record: TrialRecord) -> dict[str, Any]:
    message = record.message or record.outcome.value
    lost = LeftOut(name=name_of(question, cell), trial=record.trial, outcome=record.outcome, message=message)
    return lost.model_dump(mode="json")


def _parts(spec: ComparisonSpec, entries: list[Entry], text: Path) -> Iterator[dict[str, Any]]:
    """What was found: all candidates together where memory suffices, else each beside the baseline alone.

    Where not even two fit, both are reloaded for each turn; a candidate that does not fit alone is left out.
    """
    base, *others = entries
    if not others:
        return
    try:
        yield measured(spec, entries, text, "together")
        return
    except MemoryError as error:
        log.info("the candidates do not fit side by side: %s", error)
    for entry in others:
        try:
            yield measured(spec, [base, entry], text, "pairs", share=len(others))
        except MemoryError as error:
            log.info("%s does not fit beside the baseline: %s", entry.name, error)
            try:
                yield measured(spec, [base, entry], text, "reloads", share=len(others))
            except MemoryError as alone:
                lost = LeftOut(
                    name=entry.name, trial=entry.cell.trial, outcome=Outcome.OUT_OF_MEMORY, message=str(alone)
                )
                yield {"left_out": [lost.model_dump(mode="json")], "rounds": None}


def measured(
    spec: ComparisonSpec, entries: list[Entry], text: Path, arrangement: Arrangement, share: int = 1
) -> dict[str, Any]:
    """What processes found one after another, as JSON, until all ratios are precise or all processes have run.

    Together they have a `share`-th of the comparison's time. A candidate that fails in a later process is left out.
    """
    seconds = spec.comparison.seconds / share / spec.comparison.processes
    settings = spec.comparison.model_copy(update={"seconds": seconds})
    limit = spec.timing.timeout_seconds * (len(entries) + 1)
    left_out: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for process in range(settings.processes):
        try:
            run = partial(_interleave, spec, settings, entries, text, arrangement == "reloads", process)
            found = in_child(run, seconds=limit, first=True)
        except TimeUpError as error:
            raise OutcomeError(Outcome.TIMEOUT, str(error)) from None
        left_out += found["left_out"]
        if found["rounds"] is None:
            return {"left_out": left_out, "rounds": None}
        parts.append(found)
        names = [each["name"] for each in found["candidates"]]
        entries = [entry for entry in entries if entry.name in names]
        raw = [Interleaved.model_validate(part["rounds"]) for part in parts]
        rounds = merged(raw, settings.processes, settings.precision)
        log.info("process %d: %d rounds so far; precise: %s", process, len(rounds.seconds), rounds.precise)
        if rounds.precise:
            break
    rounds = rounds.model_copy(update={"arrangement": arrangement})
    return found | {"left_out": left_out, "rounds": rounds.model_dump()}


def _add(findings: dict[str, Any], part: dict[str, Any]) -> None:
    """Adds what one process found; the baseline's entry is that of the first."""
    findings["left_out"] += part["left_out"]
    if part["rounds"] is not None:
        findings["device"] = part["device"]
        known = {each["name"] for each in findings.setdefault("candidates", [])}
        findings["candidates"] += [each for each in part["candidates"] if each["name"] not in known]
        findings["rounds"] = [*findings.get("rounds", []), part["rounds"]]


def _interleave(
    spec: ComparisonSpec, settings: ComparisonSettings, entries: list[Entry], text: Path, reload: bool, process: int
) -> Any:
    return run(
        Request(
            entries=entries,
            comparison=settings,
            timing=spec.timing,
            tie_margin=spec.tie_margin,
            seed=spec.seed,
            process=process,
            text=text,
            device=spec.device,
            reload=reload,
        )
    )


if __name__ == "__main__":
    comparison.main()
