"""Means over runs that share data: repeated random splits and repeated cross-validation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import CONFIDENCE
from plumbline.core.statistics.samples import Array, finite

FLAT = 1e-12
"""Values whose range is within this share of the largest one do not vary."""


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A mean over splits of one dataset with its 95% interval, and the two-sided p-value that it is zero."""

    mean: float
    low: float
    high: float
    p_value: float


def corrected_mean(values: ArrayLike, *, test_over_train: float) -> Resampled:
    """The corrected resampled t interval and test of Nadeau & Bengio 2003 (Machine Learning 52).

    values: (n,) figures of n random splits of one dataset, or differences of two learners on the same splits.
    test_over_train: test rows over training rows of a split. The splits share rows, so that the mean varies more than
    n independent values would: its variance is taken as (1/n + test_over_train) s², not s²/n. For r repetitions of
    k-fold cross-validation give all n = r·k values and 1 / (k - 1) (Bouckaert & Frank 2004, PAKDD). The interval is
    about this dataset's population, which no number of splits makes narrower than √test_over_train · s.

    Values that do not vary give a width of zero and, unless they are zero, no p-value (NaN): a few runs can agree by
    chance, and how often they do is unknown. A single value gives NaN. Raises ValueError for a negative ratio.
    """
    samples = finite(values)
    low, high = corrected_interval(samples, test_over_train=test_over_train)
    mean, reach = float(samples.mean()), float(high - low) / 2
    if np.isnan(reach):
        p_value = reach
    elif reach <= FLAT * np.abs(samples).max():
        p_value = float("nan") if mean else 1.0
    else:
        from scipy.stats import t

        student = t(df=samples.size - 1)
        p_value = 2 * float(student.sf(abs(mean) / reach * student.ppf((1 + CONFIDENCE) / 2)))
    return Resampled(mean=mean, low=float(low), high=float(high), p_value=p_value)


def corrected_interval(values: ArrayLike, *, test_over_train: float) -> tuple[Array, Array]:
    """The interval of `corrected_mean` along the last axis: (..., n) -> low (...), high (...)."""
    if not test_over_train >= 0:
        raise ValueError(f"test rows over training rows cannot be {test_over_train}")
    samples = finite(values)
    n, mean = samples.shape[-1], samples.mean(axis=-1)
    if n < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    from scipy.stats import t  # takes a second to import

    flat = np.ptp(samples, axis=-1) <= FLAT * np.abs(samples).max(axis=-1)
    deviation = np.where(flat, 0.0, samples.std(axis=-1, ddof=1))
    reach = t.ppf((1 + CONFIDENCE) / 2, df=n - 1) * deviation * (1 / n + test_over_train) ** 0.5
    return np.asarray(mean - reach), np.asarray(mean + reach)
