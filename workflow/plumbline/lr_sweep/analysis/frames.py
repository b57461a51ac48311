"""Records as tidy frames: a row per trial, and a row per rate with the spread over its seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from plumbline.core.measure.spans import SPANS
from plumbline.core.run.record import hardware
from plumbline.lr_sweep.analysis.seeds import has_interval, spread
from plumbline.lr_sweep.record import CLASSES, TrialRecord, or_nan

LOSSES = ("final_validation_loss", "best_validation_loss", "initial_validation_loss", "final_train_loss")
COUNTS = ("steps", "tokens", "parameters", "peak_rss_bytes", "restarts")
SUMMARISED = ("final_validation_loss", "best_validation_loss", "capped_loss")


def trials_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """One row per trial, whatever its outcome: rate, seed, class, losses in nats, counts, speed, spans.

    Losses that were not finite stay inf or NaN. `capped_loss` is the final validation loss, or the initial one where
    that is lower. `loop_seconds` is the sum of the spans, over all attempts of a trial except for work that a kill
    undid; `last_attempt_seconds` is the time of the process that finished it. `different_machines` says that the
    trials did not all run on the same hardware, so their seconds are not comparable.
    """
    machines = [hardware(record.machine, record.device) for record in records]
    rows = []
    for record, machine in zip(records, machines, strict=True):
        row: dict[str, Any] = {"trial": record.trial, "rate": record.rate, "seed": record.seed}
        row |= {"class": record.stability, "outcome": record.outcome, "message": record.message}
        row |= {name: or_nan(getattr(record, name)) for name in LOSSES}
        row["capped_loss"] = float(np.fmin(row["final_validation_loss"], row["initial_validation_loss"]))
        row |= {name: or_nan(getattr(record, name)) for name in ("unigram_entropy_nats", "tokens_per_second")}
        row |= {name: getattr(record, name) for name in COUNTS}
        row["loop_seconds"] = sum(record.spans.values()) if record.spans else np.nan
        row["last_attempt_seconds"] = record.seconds
        row |= {f"{span}_seconds": or_nan(record.spans.get(f"{span}_seconds")) for span in SPANS}
        row |= {"machine": machine, "different_machines": len(set(machines)) > 1}
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame[list(COUNTS)] = frame[list(COUNTS)].astype("Int64")
    return frame


def rates_frame(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per rate: seeds, number of trials in each class, mean losses with their spread, tokens per second.

    Means are over all seeds that have a loss. `_low` and `_high` are the ends of their bootstrap 95% interval, or of
    their range where `shows_intervals` is False. A mean is NaN when one of the losses is not finite.
    `tokens_per_second` is the sum of all tokens over the sum of the seconds of their steps.
    """
    interval = shows_intervals(trials)
    rows = []
    for rate, group in trials.groupby("rate"):
        trained = group[group["class"].notna()]
        row: dict[str, Any] = {"rate": rate, "seeds": len(group), "with_loss": len(trained)}
        row |= {name: int((trained["class"] == name).sum()) for name in CLASSES}
        for name in SUMMARISED:
            row |= _mean_and_spread(name, trained[name].to_numpy(dtype=np.float64), interval=interval)
        row["tokens_per_second"] = overall_speed(trained)
        rows.append(row)
    return pd.DataFrame(rows)


def shows_intervals(trials: pd.DataFrame) -> bool:
    """Whether every rate has enough seeds for an interval. Rates with a single loss have no spread and are ignored."""
    counts = trials[trials["class"].notna()].groupby("rate").size()
    several = counts[counts > 1]
    return bool(len(several)) and has_interval(int(several.min()))


def overall_speed(trials: pd.DataFrame) -> float:
    """Tokens per second over several trials: the sum of their tokens over the sum of their seconds; NaN for none."""
    tokens = trials["tokens"].to_numpy(dtype=np.float64)
    speed = trials["tokens_per_second"].to_numpy(dtype=np.float64)
    known = (tokens > 0) & (speed > 0)
    return float(tokens[known].sum() / (tokens[known] / speed[known]).sum()) if known.any() else float("nan")


def _mean_and_spread(name: str, values: np.ndarray, *, interval: bool) -> dict[str, float]:
    """Mean and spread; NaN without a value, or with one that is not finite."""
    if not values.size or not np.isfinite(values).all():
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = spread(values, interval=interval)
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
