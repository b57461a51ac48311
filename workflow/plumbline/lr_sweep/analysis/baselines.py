"""Losses of n-gram tables beside those of the trained models, on the same validation windows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.errors import UserError
from plumbline.lr_sweep.record import Baselines, TrialRecord, or_nan

COLUMNS = ("model", "steps", "loss", "standard_error", "over_trigram", "over_trigram_standard_error")


def baselines_frame(baselines: Baselines, records: Sequence[TrialRecord], best_rate: float) -> pd.DataFrame:
    """A row per n-gram table, per trial at the best rate, and for the longer training; losses in nats per token.

    `over_trigram` is the loss minus the trigram's. Its standard error is that of the paired difference over windows,
    which is much smaller than that of either loss. Raises UserError when windows were counted differently.
    """
    trigram = np.array(baselines.models["trigram"].window_losses)
    rows: list[dict[str, Any]] = [
        _row(name, 0, baseline.nats, np.array(baseline.window_losses), trigram)
        for name, baseline in baselines.models.items()
    ]
    for record in records:
        if record.trained and (record.long or record.rate == best_rate):
            if len(record.final_window_losses) != baselines.windows:
                raise UserError(
                    f"{record.trial}: scored on {len(record.final_window_losses)} validation windows, the baselines on"
                    f" {baselines.windows}; delete baselines.json to have it rebuilt"
                )
            losses = np.array(record.final_window_losses, dtype=np.float64)
            rows.append(_row(record.trial, record.steps, or_nan(record.final_validation_loss), losses, trigram))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(name: str, steps: int | None, loss: float, windows: np.ndarray, trigram: np.ndarray) -> dict[str, Any]:
    values = (name, steps, loss, _standard_error(windows), loss - trigram.mean(), _standard_error(windows - trigram))
    return dict(zip(COLUMNS, values, strict=True))


def _standard_error(values: np.ndarray) -> float:
    """Of the mean of values (W,); NaN for a single one and where one is not finite."""
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    return float(values.std(ddof=1) / math.sqrt(len(values)))
