"""What the study adds to the command line: `plumbline diagnose lr_sweep`."""

from collections.abc import Sequence
from pathlib import Path

from plumbline.core.present.answer import Answer


def diagnose(folder: Path, trials: Sequence[str]) -> Answer:
    """Whether `trials`, below the study's results `folder`, are as fast as they should be, and if not, why."""
    from plumbline.lr_sweep.diagnosis.report import diagnose_study, in_words
    from plumbline.lr_sweep.diagnosis.verdict import EXIT_STATUS

    diagnosis = diagnose_study(folder, trials)
    return Answer(diagnosis.to_json(), in_words(diagnosis), EXIT_STATUS[diagnosis.status])
