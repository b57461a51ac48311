"""What the study adds to the command line: `plumbline diagnose lr_sweep`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.core.present.answer import Answer


def diagnose(folder: Path, trials: Sequence[str]) -> Answer:
    """Whether `trials`, below the study's results `folder`, are as fast as they should be, and if not, why."""
    from plumbline.lr_sweep.diagnosis.report import diagnose_study, summary_lines
    from plumbline.lr_sweep.diagnosis.verdict import EXIT_STATUS

    diagnosis = diagnose_study(folder, trials)
    return Answer(diagnosis.to_json(), summary_lines(diagnosis), EXIT_STATUS[diagnosis.status])


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What `plumbline show` says of a trial first."""
    names = ("trial", "rate", "seed", "steps", "class", "final_validation_loss", "tokens_per_second")
    return {name: record.get(name) for name in names}
