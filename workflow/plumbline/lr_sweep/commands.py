"""What the study adds to the command line: `plumbline diagnose lr_sweep`, `show lr_sweep`, `compare A B`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from plumbline.core.present.answer import Answer, Row


def diagnose(folder: Path, trials: Sequence[str]) -> Answer:
    """Whether `trials`, below the study's results `folder`, are as fast as they should be, and if not, why."""
    from plumbline.lr_sweep.diagnosis.report import diagnose_study, summary_lines
    from plumbline.lr_sweep.diagnosis.verdict import EXIT_STATUS

    diagnosis = diagnose_study(folder, trials)
    return Answer(diagnosis.to_json(), summary_lines(diagnosis), EXIT_STATUS[diagnosis.status])


def rows(record: dict[str, Any]) -> list[Row]:
    """What `plumbline show` says of a trial."""
    keys, found = ("trial", "rate", "seed"), ("class", "final_validation_loss", "tokens_per_second", "steps")
    return [Row(*({name: record.get(name) for name in names} for names in (keys, found)))]


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """What differs beyond noise between two results folders: the final loss of each rate, paired by seed."""
    from plumbline.core.present.comparing import compared
    from plumbline.core.statistics.before_after import Measured
    from plumbline.lr_sweep.record import TrialRecord

    def measured(record: TrialRecord) -> Iterator[Measured]:
        if record.trained and record.final_validation_loss is not None:
            unit, loss = ("long " if record.long else "") + f"rate {record.rate:g}", record.final_validation_loss
            seed = str(record.seed)
            yield Measured(unit=unit, measure="final_validation_loss", replicate=seed, value=loss, goal="min")

    return compared(TrialRecord, measured, (first, second), threshold)
