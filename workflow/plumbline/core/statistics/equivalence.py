"""Whether two things are the same for practical purposes, which no large p-value of a difference shows."""

from numpy.typing import ArrayLike

from plumbline.core.statistics.samples import finite


def equivalence_p(differences: ArrayLike, margin: float) -> float:
    """p-value of the hypothesis that the mean of paired differences (n,) lies at or beyond ±`margin`.

    Two one-sided t-tests (TOST; Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15). For a ratio within
    [1 / (1 + t), 1 + t] give log ratios and log(1 + t). Differences that do not vary give 0 or 1, a single one NaN.
    Raises ValueError for a margin that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"equivalence needs a margin above 0, got {margin}")
    values = finite(differences)
    if values.size < 2:
        return float("nan")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / values.size**0.5
    room = margin - abs(mean)  # to the nearer end: the larger of the two p-values is the one that counts
    if error <= 1e-12 * abs(mean):
        return 0.0 if room > 0 else 1.0
    from scipy.stats import t  # takes a second to import

    return float(t.sf(room / error, df=values.size - 1))
