"""The timed batches and decode steps of a record, as rates are computed from them. Light to import: numpy alone."""

import numpy as np

from plumbline.core.statistics.samples import Array
from plumbline.throughput.record import TrialRecord


def timed(record: TrialRecord) -> Array:
    """The record's batches that are right: (n, 2), seconds and tokens of each."""
    good = [batch for batch in record.batches if batch.ok]
    return np.array([[batch.seconds, batch.tokens] for batch in good], dtype=np.float64).reshape(-1, 2)


def decoded(record: TrialRecord) -> Array:
    """The record's decode steps, from the latency pass: (n, 2), seconds and tokens of each."""
    gaps = np.array(record.inter_token_seconds, dtype=np.float64)
    return np.stack([gaps, np.full(len(gaps), float(record.batch))], axis=1)
