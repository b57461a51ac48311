"""Stage `ablation.train_ahead`: trains trials of one view and layer set in one process, ahead of their own jobs.

A trial of the default takes less time than importing torch. Each record waits beside its place until the trial's job
takes it over; a trial that is not made here is trained by its own job, so nothing depends on this stage but time.
"""

import logging
from pathlib import Path

from plumbline.ablation.settings import Classifier, LinearSettings, TrainingSettings, TransformerSettings, View
from plumbline.ablation.train import TrainSpec, train
from plumbline.core.errors import UserError
from plumbline.core.files import write_bytes, write_json
from plumbline.core.plan.target import Spec, ahead_path, canonical
from plumbline.core.registry import short_name
from plumbline.core.run.progress import read_journal, track
from plumbline.core.run.record import read_record
from plumbline.core.run.stage import stage
from plumbline.core.settings import Settings

log = logging.getLogger("plumbline")


class Trial(Settings):
    """What decides a trial besides what it shares with the others."""

    representation: str
    parts: list[str]
    classifier: list[Classifier]
    transformer: TransformerSettings | None
    code: str
    inputs: str


class TrainAheadSpec(Spec):
    """What decides the trials. Together with a `Trial`, a TrainSpec."""

    view: View
    layers: str
    training: TrainingSettings
    linear: LinearSettings
    runs: int
    seed: int
    trials: list[Trial]


@stage
def train_ahead(
    spec: TrainAheadSpec,
    adapters: Path,
    splits: Path,
    features: list[Path],
    output: Path,
    logs: Path,
    device: str = "auto",
) -> None:
    """Trains each trial that has no current record, and writes the names of these to `output`.

    Records are made in the folder of `output`; features: the feature files of all trials; logs: the folder of the
    trials' journals.
    """
    shared = spec.model_dump(exclude={"trials", "code", "inputs"})
    files = {path.stem: path for path in features}
    made = []
    for trial in track(spec.trials, len(spec.trials), "trials"):
        own = TrainSpec(**shared, **trial.model_dump())
        name = short_name(own.representation)
        record, journal = output.with_name(f"{name}.json"), logs / f"{name}.jsonl"
        ahead = ahead_path(record, canonical(own.model_dump(mode="json")))
        for old in set(output.parent.glob(f".{name}.*.ahead")) - {ahead}:
            old.unlink()
        if ahead.exists() or _is_current(record, own):
            log.info("%s: has its record", name)
        elif _was_interrupted(journal):
            log.info("%s: its last attempt was killed or failed; left to its own job", name)
        else:
            log.info("%s:", name)
            parts = [files[short_name(part)] for part in own.parts]
            inputs = {"adapters": adapters, "splits": splits, "features": parts}
            stale = record.read_bytes() if record.exists() else None
            if train.ahead_of_its_job(journal, spec=own, **inputs, output=record, device=device):
                record.replace(ahead)
                made.append(name)
            if stale is not None:
                write_bytes(
                    record, stale
                )  # only the trial's job may replace it, and a profile may keep that from running
    write_json(output, made)


def _is_current(record: Path, spec: TrainSpec) -> bool:
    try:
        return bool(read_record(record)["spec"] == spec.model_dump(mode="json"))
    except UserError:
        return False


def _was_interrupted(journal: Path) -> bool:
    """Whether the trial might bring down this process as it did its last one, and keep the others waiting for ever."""
    events = read_journal(journal)
    return bool(events) and events[-1].get("event") != "end"


if __name__ == "__main__":
    train_ahead.main()
