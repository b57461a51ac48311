"""Numbers and names as they stand in sentences and tables."""

import math

import pandas as pd

from plumbline.core.present.formatting import with_interval


def rate_text(row: pd.Series) -> str:
    """`812 [801, 824]`, tokens per second; more digits where it is slow."""
    value = row["tokens_per_second"]
    digits = 0 if math.isnan(value) or value >= 100 else 1 if value >= 10 else 2
    return with_interval(value, row["tokens_per_second_low"], row["tokens_per_second_high"], digits=digits)


def ratio_text(row: pd.Series, name: str = "ratio") -> str:
    """`1.21 [1.19, 1.23]`."""
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits=2)


def named(trials: pd.DataFrame, most: int = 6) -> str:
    """The names of trials, at most so many."""
    names = list(trials["trial"])
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def bytes_text(count: float) -> str:
    """`0.61 MB`, `13.5 GB`, in powers of ten."""
    size, unit = (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    return f"{count / size:,.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"


def were(count: int) -> str:
    """`was` or `were`."""
    return "was" if count == 1 else "were"


def range_text(shares: pd.Series) -> str:
    """`12% to 94%`, or `12%` where both ends read alike."""
    return " to ".join(dict.fromkeys(percent(share) for share in (shares.min(), shares.max())))


def percent(share: float) -> str:
    """`14.3%`, three digits."""
    return f"{100 * share:.3g}%"


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
