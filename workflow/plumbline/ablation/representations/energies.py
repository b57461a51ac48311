"""The share of each output and each input in the change."""

import numpy as np

from plumbline.ablation.linalg.moments import gram, total
from plumbline.ablation.representations.interface import representation


@representation(width=lambda rows, columns: 2 * (rows + columns), views=("product",))
def energies(stack: np.ndarray) -> np.ndarray:
    """Sums of squares of every row and column, then the sums of every row and column.

    (R, m, n) -> (R, 2m + 2n).
    """
    by_column = np.ascontiguousarray(stack.mT)
    parts = [np.vecdot(stack, stack), np.vecdot(by_column, by_column), total(stack), total(by_column)]
    return np.concatenate(parts, axis=-1)


@energies.of_product
def _(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    rows = np.vecdot(np.matmul(up, gram(down)), up)
    columns = np.vecdot(np.matmul(down.mT, gram(up.mT)), down.mT)
    row_sums = np.matmul(up, total(down)[:, :, None])[..., 0]
    column_sums = np.matmul(total(up.mT)[:, None, :], down)[:, 0]
    return np.concatenate([np.maximum(rows, 0), np.maximum(columns, 0), row_sums, column_sums], axis=-1)
