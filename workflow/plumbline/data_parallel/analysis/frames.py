"""Tidy tables of the trials: a row a trial, a row an epoch and rank."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plumbline.data_parallel.record import TrialRecord


def label(record: TrialRecord) -> str:
    """The trial in figures and tables: `1 process`, `2 × ddp, weak`."""
    return "1 process" if record.world == 1 else f"{record.world} × {record.method}, {record.scaling}"


def epochs_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """A row for each trial, epoch and rank, with all that the rank measured."""
    rows = [
        {
            "trial": record.trial,
            "label": label(record),
            "method": record.method,
            "scaling": record.scaling,
            **epoch.model_dump(exclude={"schema_version"}),
        }
        for record in records
        for epoch in record.epochs
    ]
    frame = pd.DataFrame(rows)
    return frame.astype({"communication_seconds": float}) if rows else frame


def learning_frame(epochs: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial and epoch, in their order: validation loss, BLEU, and the seconds of training until then.

    seconds: of all epochs so far, the first one included, each as long as its slowest rank took. Validation and
    checkpoints are left out.
    """
    by_epoch = epochs.groupby(["trial", "label", "epoch"], sort=False, as_index=False)
    found = by_epoch.agg(
        seconds=("training_time", "max"), validation_loss=("validation_loss", "first"), bleu=("bleu", "first")
    )
    found["seconds"] = found.groupby("trial", sort=False)["seconds"].cumsum()
    return found


def time_to_bleu(epochs: pd.DataFrame) -> tuple[float, dict[str, float]]:
    """The validation BLEU that every trial reached, and by label the seconds of training until the epoch with it.

    epochs: of one trial at least.
    """
    learned = learning_frame(epochs)
    target = float(learned.groupby("trial")["bleu"].max().min())
    reached = learned[learned["bleu"] >= target].groupby("label", sort=False)["seconds"].first()
    return target, {str(name): float(seconds) for name, seconds in reached.items()}


def trials_frame(records: Sequence[TrialRecord], epochs: pd.DataFrame) -> pd.DataFrame:
    """A row for each trial; times and rates without the first epoch, which warms up.

    training_time: the mean over ranks, epoch by epoch, then mean and deviation over epochs; slowest_rank_time: of the
    slowest rank. tokens_per_second: summed over ranks, epoch by epoch, then mean and deviation over epochs.
    """
    return pd.DataFrame([_row(record, epochs) for record in records])


def _row(record: TrialRecord, epochs: pd.DataFrame) -> dict[str, object]:
    row: dict[str, object] = {
        **{name: getattr(record, name) for name in ("trial", "method", "scaling", "world", "batch")},
        "label": label(record),
        "outcome": str(record.outcome),
    }
    if not record.epochs:
        return row
    own = epochs[epochs["trial"] == record.trial]
    warm = own[own["epoch"] > 0] if own["epoch"].max() > 0 else own
    by_epoch = warm.groupby("epoch")
    for name, values in (
        ("training_time", by_epoch["training_time"].mean()),
        ("slowest_rank_time", by_epoch["training_time"].max()),
        ("tokens_per_second", by_epoch["tokens_per_sec"].sum()),
    ):
        row[f"{name}_mean"] = float(values.mean())
        row[f"{name}_deviation"] = float(values.std()) if len(values) > 1 else np.nan
    last = own[own["epoch"] == own["epoch"].max()].iloc[0]
    row |= {"epochs": int(own["epoch"].max()) + 1, "steps": int(own[own["rank"] == 0]["steps"].sum())}
    row |= {"validation_loss": last["validation_loss"]}
    for split, found in record.translations.items():
        row |= {f"{split}_bleu": found.bleu, f"{split}_copied_bleu": found.copied_bleu}
    row |= {"wire_bytes_per_step": record.wire_bytes_per_step, "restarts": record.restarts}
    return row | {f"{name}_bytes": size for name, size in record.memory_bytes.items()}
