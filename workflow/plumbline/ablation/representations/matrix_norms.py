"""Norms of the matrix and their ratios."""

import numpy as np

from plumbline.ablation.linalg.moments import entries, ratio, total
from plumbline.ablation.linalg.spectrum import product_singular_values, singular_values
from plumbline.ablation.representations.interface import dense_route, representation


@representation(width=7)
def matrix_norms(stack: np.ndarray) -> np.ndarray:
    """Frobenius, nuclear, spectral, largest column and row sum, nuclear/Frobenius, spectral/Frobenius.

    (R, m, n) -> (R, 7). Column and row sums are of magnitudes (the induced 1 and ∞ norms). A zero matrix gives zeros.
    """
    return _features(singular_values(stack), _induced(stack))


@matrix_norms.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    if up.shape[-1] == 1:
        ups, downs = np.abs(up[..., 0]), np.abs(down[:, 0])
        columns, rows = total(ups) * downs.max(axis=-1), ups.max(axis=-1) * total(downs)
        return _features(product_singular_values(up, down), np.stack([columns, rows], axis=-1))
    return _features(product_singular_values(up, down), dense_route(_induced, up, down))


def _induced(stack: np.ndarray) -> np.ndarray:
    size = np.abs(stack)
    if min(stack.shape[1:]) == 1:
        values = entries(size)
        largest, whole = values.max(axis=-1), total(values)
        return np.stack([largest, whole] if stack.shape[1] == 1 else [whole, largest], axis=-1)
    columns = np.matmul(np.ones((1, size.shape[1]), size.dtype), size)
    return np.stack([entries(columns).max(axis=-1), total(size).max(axis=-1)], axis=-1)


def _features(sigma: np.ndarray, induced: np.ndarray) -> np.ndarray:
    frobenius, nuclear, largest = np.sqrt(np.vecdot(sigma, sigma)), total(sigma), sigma[:, 0]
    return np.stack(
        [frobenius, nuclear, largest, *induced.T, ratio(nuclear, frobenius), ratio(largest, frobenius)], axis=-1
    )
