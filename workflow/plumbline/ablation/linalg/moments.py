"""Mean, standard deviation, skewness and kurtosis of the entries of matrices, dense or given by their factors."""

from functools import cache
from typing import NamedTuple

import numpy as np

from plumbline.ablation.linalg.blocks import in_factor_blocks, in_range

CONSTANT = 1e-7
"""Entries are constant when their standard deviation is below this fraction of their root mean square."""


class Moments(NamedTuple):
    """Each (R,), float64. `kurtosis` is m4/m2² (3 for a Gaussian). For constant entries the last three are 0."""

    mean: np.ndarray
    sd: np.ndarray
    skewness: np.ndarray
    kurtosis: np.ndarray


def entries(stack: np.ndarray) -> np.ndarray:
    """(R, m, n) -> (R, m·n), without a copy."""
    return stack.reshape(len(stack), -1)


def total(rows: np.ndarray) -> np.ndarray:
    """Σ over the last axis, as a dot product per row: faster than `sum`, and the bits depend on the row alone."""
    return np.vecdot(rows, np.ones(rows.shape[-1], rows.dtype))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where the denominator is 0."""
    return numerator / np.where(denominator == 0, np.inf, denominator)


def mean_and_sd(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (R,) in float64 of each row of `rows` (R, k), float32 or float64."""
    sums, unit = in_range(_spread, rows)
    shift, first, second = sums.T
    mean = shift + first
    return mean * unit, _sd(second - first**2, second + shift**2 + 2 * shift * first) * unit


def moments(rows: np.ndarray) -> Moments:
    """Moments of each row of `rows` (R, k), float32 or float64."""
    return _from_sums(*in_range(_power_sums, rows))


def moments_and_deviation(rows: np.ndarray) -> tuple[Moments, np.ndarray]:
    """Moments of each row of `rows` (R, k), float32 or float64, and the mean absolute deviation (R,) from the mean."""
    sums, unit = in_range(_power_sums_and_deviation, rows)
    return _from_sums(sums[:, :5], unit), sums[:, 5] * unit


def _from_sums(sums: np.ndarray, unit: np.ndarray) -> Moments:
    shift, first, second, third, fourth = sums.T
    sd = _sd(second - first**2, second + shift**2 + 2 * shift * first)
    third = third - 3 * first * second
    fourth = fourth - 4 * first * third
    return Moments((shift + first) * unit, sd * unit, *_standardised(sd, third, fourth))


def _deviations(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deviations, in the dtype of `rows`, from a shift (R,), which is the mean up to rounding."""
    shift = total(rows) / rows.dtype.type(rows.shape[-1])
    return rows - shift[:, None], shift


def _means(k: int, shift: np.ndarray, *sums: np.ndarray) -> np.ndarray:
    found = np.stack([shift, *sums], axis=-1).astype(np.float64)
    found[:, 1:] /= k
    return found


def _spread(rows: np.ndarray) -> np.ndarray:
    deviation, shift = _deviations(rows)
    return _means(rows.shape[-1], shift, total(deviation), np.vecdot(deviation, deviation))


def _power_sums(rows: np.ndarray) -> np.ndarray:
    deviation, shift = _deviations(rows)
    return _means(rows.shape[-1], shift, *_powers(deviation))


def _power_sums_and_deviation(rows: np.ndarray) -> np.ndarray:
    deviation, shift = _deviations(rows)
    _, *powers = _powers(deviation)
    # sd/|mean| needs full precision when the mean is near zero.
    rest = np.vecdot(rows, np.ones(rows.shape[-1])) - rows.shape[-1] * shift.astype(np.float64)
    return _means(rows.shape[-1], shift, rest, *powers, total(np.abs(deviation, out=deviation)))


def _powers(values: np.ndarray) -> tuple[np.ndarray, ...]:
    squared = values * values
    return total(values), total(squared), np.vecdot(squared, values), np.vecdot(squared, squared)


def product_mean(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Mean entry (R,) of up · down: (1ᵀ up)(down 1) / mn."""
    m, n = up.shape[-2], down.shape[-1]
    return np.vecdot(total(up.mT), total(down)) / (m * n)


def product_sd(up: np.ndarray, down: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Standard deviation (R,) of the entries of up · down, from Grams of the factors of up · down − mean."""
    left, right = _augmented(up, down, mean)
    mn = left.shape[-1] * right.shape[-1]
    left_gram, right_gram = gram(left), gram(right)
    square = _inner(left_gram[:, :-1, :-1], right_gram[:, :-1, :-1]) / mn
    return _sd(_inner(left_gram, right_gram) / mn, square)


def product_moments(up: np.ndarray, down: np.ndarray) -> Moments:
    """Moments of the entries of up · down (`up` (R, m, r), `down` (R, r, n)) without forming the product.

    With L = [1, up], R = [1; down] and weights w = (−μ, 1, …, 1), the centred product is C = L diag(w) R, and
    Σ C^{p+q} is an inner product of the weighted power sums of the factors, which are Grams of their face-splitting
    products. Those of second order contain the lower ones, because of L's column of ones, so one product per factor
    gives all four moments. At high rank, where this costs more, the product is formed.
    """
    m, n, r = up.shape[-2], down.shape[-1], up.shape[-1]
    pairs = (r + 1) * (r + 2) // 2
    if pairs * pairs * (m + n) > 16 * m * n:
        return _dense_product_moments(up, down)
    sums = in_factor_blocks(lambda *factors: _power_sums_of(factors[0].mT) * _power_sums_of(factors[1]), up, down)
    row, column = _places(r)
    sums = (sums / (m * n))[:, row, column]
    first, second = np.triu_indices(r + 1)
    mean = total(np.ascontiguousarray(sums[:, 0, 1 : r + 1]))
    weight = np.ones((len(up), r + 1))
    weight[:, 0] = -mean
    # A pair of two different columns counts for both orders.
    of_pair = weight[:, first] * weight[:, second] * np.where(first == second, 1.0, 2.0)
    variance = np.vecdot(sums[:, 0], of_pair)
    square = np.vecdot(sums[:, 0, r + 1 :], of_pair[:, r + 1 :])
    third = np.vecdot(np.matmul(sums[:, : r + 1], of_pair[:, :, None])[..., 0], weight)
    fourth = np.vecdot(np.matmul(sums, of_pair[:, :, None])[..., 0], of_pair)
    sd = _sd(variance, square)
    return Moments(mean, sd, *_standardised(sd, third, fourth))


def gram(rows: np.ndarray) -> np.ndarray:
    """rows · rowsᵀ for `rows` (R, r, k), as a general product: faster here than the symmetric one numpy would use."""
    return np.matmul(rows, rows.copy().mT)


def _augmented(up: np.ndarray, down: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (count, m, r), n = up.shape, down.shape[-1]
    left, right = np.empty((count, r + 1, m)), np.empty((count, r + 1, n))
    left[:, :r], left[:, r] = up.mT, -mean[:, None]
    right[:, :r], right[:, r] = down, 1.0
    return left, right


@cache
def _lifted_pairs(r: int) -> tuple[list[tuple[int, int]], int]:
    """Pairs i ≤ j of the rows 0 … r of [1; rows], and how many of them, times all, give every product of four.

    These are (0, 0) and the pairs of equal parity, which come first. Of any three rows two have equal parity, so any
    product of four with at most one row 0 is such a pair times another pair. This saves a third of the work.
    """
    alike = [(i, j) for i in range(1, r + 1) for j in range(i, r + 1, 2)]
    unlike = [(i, j) for i in range(1, r + 1) for j in range(i + 1, r + 1, 2)]
    return [(0, 0), *alike, *unlike, *((0, j) for j in range(1, r + 1))], 1 + len(alike)


@cache
def _places(r: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in `_power_sums_of` of the sum over two pairs, each (p, p), in the order of np.triu_indices."""
    pairs, kept = _lifted_pairs(r)
    found = {
        tuple(sorted(pairs[row] + pairs[column])): (row, column) for row in range(kept) for column in range(len(pairs))
    }
    ordered = list(zip(*(each.tolist() for each in np.triu_indices(r + 1)), strict=True))
    places = np.array([[found[tuple(sorted(one + other))] for other in ordered] for one in ordered])
    return places[..., 0], places[..., 1]


def _power_sums_of(rows: np.ndarray) -> np.ndarray:
    """Σ over k of every product of four rows of [1; rows], `rows` (R, r, k): (R, kept, pairs), indexed by `_places`."""
    count, r, k = rows.shape
    pairs, kept = _lifted_pairs(r)
    lifted, end = np.empty((count, len(pairs), k)), 1
    rows = np.ascontiguousarray(rows)
    lifted[:, 0], lifted[:, -r:] = 1.0, rows
    for step in (0, 1):
        for i in range(r):
            partners = rows[:, i + step :: 2]
            start, end = end, end + partners.shape[1]
            np.multiply(rows[:, i : i + 1], partners, out=lifted[:, start:end])
    return np.matmul(lifted[:, :kept], lifted.mT)


def _dense_product_moments(up: np.ndarray, down: np.ndarray) -> Moments:
    parts = [moments(entries(np.matmul(up[i : i + 1], down[i : i + 1]))) for i in range(len(up))]
    return Moments(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _inner(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.vecdot(entries(left), entries(right))


def _sd(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    return np.sqrt(np.where(variance > CONSTANT**2 * square, variance, 0.0))


def _standardised(sd: np.ndarray, third: np.ndarray, fourth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Divided step by step, because sd⁴ leaves the range of float64 before the moments do.
    return ratio(ratio(third, sd * sd), sd), ratio(ratio(fourth, sd * sd), sd * sd)
