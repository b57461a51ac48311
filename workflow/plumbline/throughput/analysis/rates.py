"""The timed batches and decode steps of a record, as rates are computed from them. Light to import: numpy alone."""

from typing import Any

import numpy as np

from plumbline.core.statistics.samples import Array


def timed(record: dict[str, Any]) -> Array:
    """The record's good batches that count, all of them where it knows no pace: (n, 2), seconds and tokens of each."""
    good = [batch for batch in record.get("batches") or [] if batch["ok"] and batch.get("counts", True)]
    return np.array([[batch["seconds"], batch["tokens"]] for batch in good], dtype=np.float64).reshape(-1, 2)


def decoded(record: dict[str, Any]) -> Array:
    """The record's decode steps, of the pass that reads the clock at every token: (n, 2), seconds and tokens."""
    gaps = np.array(record.get("inter_token_seconds") or [], dtype=np.float64)
    return np.stack([gaps, np.full(len(gaps), float(record["batch"]))], axis=1)
