"""Rates, names and ranges in sentences and tables. Light to import."""

import math
from typing import TYPE_CHECKING

from plumbline.core.present.formatting import percent, with_interval

if TYPE_CHECKING:
    import pandas as pd

APART = 0.02
"""A share of parameters differs from the one asked for by at least this; ranks, whole numbers, stay within it unless a
layer is tiny."""


def rate_text(row: "pd.Series") -> str:
    """`812 [801, 824]`, tokens per second; more digits where it is slow."""
    value = row["tokens_per_second"]
    digits = 0 if math.isnan(value) or value >= 100 else 1 if value >= 10 else 2
    return with_interval(value, row["tokens_per_second_low"], row["tokens_per_second_high"], digits=digits)


def ratio_text(row: "pd.Series", name: str = "ratio") -> str:
    """`1.21 [1.19, 1.23]`."""
    return with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], digits=2)


def share_text(ratio: float, reached: float | None) -> str:
    """`0.8`, the share of parameters that a variant was to keep; `0.99 (asked for: 0.2)` where another was reached."""
    if reached is None or math.isnan(reached) or abs(reached - ratio) < APART:
        return f"{ratio:.3g}"
    return f"{reached:.2g} (asked for: {ratio:.3g})"


def excess_text(row: "pd.Series") -> str:
    """`+0.302 [+0.290, +0.314]`: a variant's loss above the base's, in nats per token."""
    values = (row[name] for name in ("excess_nats", "excess_nats_low", "excess_nats_high"))
    return with_interval(*values, digits=3, signed=True)


def named(trials: "pd.DataFrame", most: int = 6) -> str:
    """The names of trials, at most `most` of them."""
    names = list(trials["trial"])
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def range_text(shares: "pd.Series") -> str:
    """`12% to 94%`, or `12%` where both ends read alike."""
    return " to ".join(dict.fromkeys(percent(share) for share in (shares.min(), shares.max())))
