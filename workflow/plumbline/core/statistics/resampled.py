"""Means over runs that share data: repeated random splits and repeated cross-validation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from plumbline.core.statistics.bootstrap import CONFIDENCE
from plumbline.core.statistics.samples import finite


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

    Values that do not vary give a width of zero; a single one gives NaN. Raises ValueError for a negative ratio.
    """
    if not test_over_train >= 0:
        raise ValueError(f"test rows over training rows cannot be {test_over_train}")
    samples = finite(values)
    mean = float(samples.mean())
    if samples.size < 2:
        return Resampled(mean=mean, low=float("nan"), high=float("nan"), p_value=float("nan"))
    if np.ptp(samples) <= 1e-12 * np.abs(samples).max():
        return Resampled(mean=mean, low=mean, high=mean, p_value=0.0 if mean else 1.0)
    from scipy.stats import t  # takes a second to import

    error = float(samples.std(ddof=1)) * (1 / samples.size + test_over_train) ** 0.5
    student = t(df=samples.size - 1)
    reach = error * float(student.ppf((1 + CONFIDENCE) / 2))
    p_value = 2 * float(student.sf(abs(mean) / error))
    return Resampled(mean=mean, low=mean - reach, high=mean + reach, p_value=p_value)
